"""The page that leads from the report to the runs: `reports/runs.html#<key>` opens a run in MLflow.

The report is the same bytes whenever it is made of the same rows, and MLflow draws the numbers of
its runs anew in each database; so what joins them is a page of its own, written once the runs are
delivered, and part of no result.
"""

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from advtrain.reporting.pages import render
from advtrain.results.files import write_bytes
from advtrain.tracking import views
from advtrain.tracking.ledger import Shown

PAGE = "reports/runs.html"
TEMPLATE = Path(__file__).parent / "templates" / "runs.html"


@dataclass(frozen=True)
class Listed:
    """A study on the page.

    Attributes:
        name: the study's.
        table: the address of its trainings, below MLflow's own.
        runs: its summaries, then its trainings, each with the evaluations of it; then evaluations
            whose training is not shown.
    """

    name: str
    table: str
    runs: list[tuple[Shown, list[Shown]]]


def write(root: Path, delivered: Mapping[str, Shown], address: str, start: str) -> None:
    """Write the page, if it is not there as it should be.

    Args:
        root: the repository's top folder.
        delivered: the runs by identity, as the ledger notes them; without any, no page.
        address: where MLflow is looked at, `http://127.0.0.1:5000`.
        start: the command that makes it answer there; empty for a server of its own.
    """
    shown = sorted((one for one in delivered.values() if one.page), key=_order)
    if not shown:
        return
    template = TEMPLATE.read_text(encoding="utf-8")
    content = hashlib.sha256(repr((shown, address, start, template)).encode()).hexdigest()[:16]
    path = root / PAGE
    if path.exists():
        with path.open(encoding="utf-8") as file:
            if f'content="{content}"' in file.read(200):
                return
    page = render(TEMPLATE, content=content, address=address, start=start, studies=_studies(shown))
    write_bytes(path, page.encode())


def _order(run: Shown) -> tuple[str, bool, str, str]:
    return run.study, run.stage != "summary", run.name, run.key


def _studies(shown: Sequence[Shown]) -> list[Listed]:
    listed = []
    for name, of_it in itertools.groupby(shown, key=lambda run: run.study):
        runs = list(of_it)
        evaluations: dict[str, list[Shown]] = {run.key: [] for run in runs if not run.parent}
        for run in runs:
            evaluations.get(run.parent, []).append(run)
        tops = [run for run in runs if run.parent not in evaluations]
        listed.append(
            Listed(
                name=name,
                table=views.table_page(runs[0].page),
                runs=[(run, evaluations.get(run.key, [])) for run in tops],
            )
        )
    return listed
