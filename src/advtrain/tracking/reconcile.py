"""Make a tracker show what the files on disk say.

It compares the two and delivers the difference, so nothing is lost whatever was killed, refused
or switched off in between: the next time sees the same difference and delivers it.
"""

import functools
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from advtrain.tracking import location, records
from advtrain.tracking.ledger import Ledger
from advtrain.tracking.mlflow_tracker import MlflowTracker
from advtrain.tracking.sources import Cell, cells
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
    return reconcile(root, tracker, ledger, everything=everything)


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
    found = cells(root)
    unseen = [cell for cell in found if ledger.seen.get(cell.name) != cell.signature]
    delivered, failures, unread = 0, list[str](), sum(cell.runs for cell in unseen)
    with ExitStack() as opened:
        opened.callback(ledger.save)
        deliver = _opening(tracker, opened)
        for news in _news(root, ledger, found, unseen):
            unread -= news.cell.runs if news.cell else 0
            failures += news.troubles
            for place, record in enumerate(news.due):
                try:
                    deliver(record)
                except RefusedError as error:
                    news.troubles.append(str(error))
                    failures.append(str(error))
                except UnreachableError as error:
                    pending = len(failures) + len(news.due) - place + unread
                    return Reconciled(delivered, pending, str(error))
                else:
                    ledger.note(record)
                    delivered += 1
            if news.cell:
                ledger.see(news.cell, settled=news.settled and not news.troubles)
    return Reconciled(delivered, len(failures), failures[0] if failures else "")


@dataclass
class _News:
    """The runs of a cell that the tracker does not show yet (`cell` None: of no cell on disk)."""

    cell: Cell | None
    due: list[RunRecord]
    troubles: list[str]
    settled: bool


def _news(root: Path, ledger: Ledger, found: list[Cell], unseen: list[Cell]) -> Iterator[_News]:
    names = {cell.name for cell in found}
    lost = [run for run in ledger.running.values() if f"{run['study']}/{run['cell']}" not in names]
    yield _News(None, [records.vanished(run) for run in lost], [], True)
    for cell in unseen:
        contents = records.read(root, cell)
        if not contents.troubles:
            spoken_of = contents.waiting | {record.identity for record in contents.records}
            contents.records += [
                records.vanished(run)
                for identity, run in ledger.running.items()
                if f"{run['study']}/{run['cell']}" == cell.name and identity not in spoken_of
            ]
        due = [one for one in contents.records if ledger.delivered.get(one.identity) != one.digest]
        yield _News(cell, due, contents.troubles, contents.settled)


def _opening(tracker: Tracker, opened: ExitStack) -> Deliver:
    """Return a function that delivers, and opens the tracker the first time."""

    @functools.cache
    def deliver() -> Deliver:
        return opened.enter_context(tracker.delivering())

    return lambda record: deliver()(record)
