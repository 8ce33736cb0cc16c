"""Make a tracker show what the files on disk say.

It compares the two and delivers the difference, so nothing is lost whatever was killed, refused
or switched off in between: the next time sees the same difference and delivers it.
"""

import functools
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from advtrain.tracking import location, records, runs_page, summaries
from advtrain.tracking.columns import Columns
from advtrain.tracking.ledger import Ledger
from advtrain.tracking.mlflow_tracker import MlflowTracker
from advtrain.tracking.sources import Cell, Study, cells, studies
from advtrain.tracking.tracker import Deliver, RefusedError, RunRecord, Tracker, UnreachableError


@dataclass(frozen=True)
class Reconciled:
    """What came of it.

    Attributes:
        delivered: runs that were new or had news.
        pending: runs that still are (where the tracker could not be reached, at least so many).
        cause: why, in words; empty if none is.
    """

    delivered: int
    pending: int
    cause: str


def reconcile_mlflow(root: Path, *, everything: bool = False) -> Reconciled:
    """Make MLflow show the runs that are on disk; MLflow is imported only if there is news.

    Beside the report, a page then says where each run is shown (`runs_page`).

    Args:
        root: the repository's top folder.
        everything: look at every run in MLflow, also where the ledger says it is delivered.

    Returns:
        How many runs were delivered and how many are pending, and why: a tracking server that is
        down or a damaged file is a cause to show, not an exception.
    """
    root = root.resolve()
    uri = location.tracking_uri(root)
    tracker = MlflowTracker(uri, location.lock_path(root, uri))
    ledger = Ledger.load(location.ledger_path(root, uri))
    done = reconcile(root, tracker, ledger, everything=everything)
    start = location.start_command(root, uri)
    runs_page.write(root, ledger.delivered, location.web_address(uri), start)
    return done


def reconcile(
    root: Path, tracker: Tracker, ledger: Ledger, *, everything: bool = False
) -> Reconciled:
    """Make a tracker show the runs that are on disk.

    Args:
        root: the repository's top folder.
        tracker: where the runs are shown; it is opened only if there is news.
        ledger: what has been delivered there; saved at the end, also when interrupted.
        everything: deliver every run, also where the ledger says that it is delivered.
    """
    if everything:
        ledger.forget()
    elif (shown := tracker.shows()) is not None:
        ledger.keep(shown)
    found, laid = cells(root), _studies(root, ledger)
    for cell in found:
        if told := laid.columns.get(cell.study, {}).get(cell.cell):
            cell.stamps.append(repr(told))
    unseen = [cell for cell in found if ledger.seen.get(cell.name) != cell.signature]
    delivered, failures = 0, list[str]()
    unread = sum(cell.runs for cell in unseen) + len(laid.news)
    with ExitStack() as opened:
        opened.callback(ledger.save)
        deliver = _opening(tracker, opened)
        for news in _news(root, ledger, found, unseen, laid):
            unread -= news.runs
            failures += news.troubles
            for place, record in enumerate(news.due):
                try:
                    page = deliver(record)
                except RefusedError as error:
                    news.troubles.append(str(error))
                    failures.append(str(error))
                except UnreachableError as error:
                    pending = len(failures) + len(news.due) - place + unread
                    return Reconciled(delivered, pending, str(error))
                else:
                    ledger.note(record, page)
                    delivered += 1
            if news.files:
                ledger.see(news.files, settled=news.settled and not news.troubles)
    return Reconciled(delivered, len(failures), failures[0] if failures else "")


@dataclass
class _News:
    """Runs of a cell or a study that the tracker does not show yet (`files` None: of neither)."""

    files: Cell | Study | None
    due: list[RunRecord]
    troubles: list[str]
    settled: bool

    @property
    def runs(self) -> int:
        """How many runs it has at least."""
        return self.files.runs if isinstance(self.files, Cell) else int(self.files is not None)


@dataclass(frozen=True)
class _Studies:
    """What the studies' tables say of their cells, and the studies whose tables are new."""

    columns: Mapping[str, Mapping[str, Columns]]
    news: list[_News]


def _studies(root: Path, ledger: Ledger) -> _Studies:
    """Read the studies whose tables or figures changed; of the others the ledger knows enough."""
    news = []
    for study in studies(root):
        if ledger.seen.get(study.name) == study.signature:
            continue
        one = _News(study, [], [], True)
        try:
            summary = summaries.read(root, study.name)
        except FileNotFoundError:
            one.settled = False  # the step that makes the rest is not done, or never will be
        except records.DAMAGE as error:
            one.troubles.append(records.trouble(root, root / "reports/tables" / study.name, error))
        else:
            one.due.append(summary.record)
            ledger.tell(study.name, summary.columns)
        news.append(one)
    return _Studies(ledger.columns, news)


def _news(
    root: Path, ledger: Ledger, found: list[Cell], unseen: list[Cell], laid: _Studies
) -> Iterator[_News]:
    names = {cell.name for cell in found}
    running = ledger.running
    lost = [run for run in running.values() if f"{run.study}/{run.cell}" not in names]
    yield _News(None, [records.vanished(run) for run in lost], [], True)
    for cell in unseen:
        contents = records.read(root, cell, laid.columns.get(cell.study, {}).get(cell.cell))
        if not contents.troubles:
            spoken_of = contents.waiting | {record.identity for record in contents.records}
            contents.records += [
                records.vanished(run)
                for identity, run in running.items()
                if f"{run.study}/{run.cell}" == cell.name and identity not in spoken_of
            ]
        yield _News(cell, _due(ledger, contents.records), contents.troubles, contents.settled)
    for one in laid.news:
        yield _News(one.files, _due(ledger, one.due), one.troubles, one.settled)


def _due(ledger: Ledger, found: list[RunRecord]) -> list[RunRecord]:
    """Return the runs that have not been delivered as they are."""
    shown = ledger.delivered
    return [
        one
        for one in found
        if shown.get(one.identity) is None or shown[one.identity].digest != one.digest
    ]


def _opening(tracker: Tracker, opened: ExitStack) -> Deliver:
    """Return a function that delivers, and opens the tracker the first time."""

    @functools.cache
    def deliver() -> Deliver:
        return opened.enter_context(tracker.delivering())

    return lambda record: deliver()(record)
