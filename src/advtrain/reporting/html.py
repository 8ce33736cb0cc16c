"""The page: every table and figure, and behind each number its lineage, in one offline file."""

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from markupsafe import Markup

from advtrain.published.registry import Registry, read_registry
from advtrain.reporting import wording
from advtrain.reporting.changes import Version
from advtrain.reporting.lineage import Lineages, lineages
from advtrain.reporting.moved import moved
from advtrain.reporting.pages import TEMPLATES, inlined, render
from advtrain.reporting.sheet import Cell, Sheet
from advtrain.reporting.study import UNKNOWN, Failure, StudyInfo
from advtrain.reporting.study_report import StudyReport
from advtrain.reporting.svg import inline_svg
from advtrain.results.collect import Collected, read_collected
from advtrain.results.files import write_bytes

BESIDE = {
    "published": "Published beside reproduced",
    "claims": "Do the published claims hold here?",
}
"""The tables right after the results."""
HEADS = {"published": "Published", "claims": "Claims"}
"""The same in short."""
FURTHER = {
    "methods": "What robustness costs and gains",
    "selection": "The best epoch against the last",
    "certified": "Certified accuracy",
    "comparisons": "Which method withstood more",
    "overlap": "What each attack breaks",
    "transformed": "Rotated, shifted and corrupted images",
    "audits": "Audits: can these accuracies be believed?",
}
"""The tables after the figures."""
WARNINGS = ("selection", "audits")
"""The tables that stay folded if they note nothing."""
FLAGGED = ("results", "selection", "certified", "audits")
"""The tables whose warnings are listed."""


@dataclass(frozen=True)
class Figure:
    """A figure on the page."""

    number: int
    text: str
    svg: Markup


class Evidence(NamedTuple):
    """What stands behind an entry of a table: its column, its text, and the evidence in words."""

    column: str
    text: str
    words: str


@dataclass(frozen=True)
class Table:
    """A table on the page.

    Attributes:
        name: of the table.
        number: on the page.
        sheet: the table.
        evidence: by row, of the entries that have words of their own and no lineage.
    """

    name: str
    number: int
    sheet: Sheet
    evidence: tuple[tuple[str, tuple[Evidence, ...]], ...]


@dataclass(frozen=True)
class Folded:
    """A table that can be folded away.

    Attributes:
        head: what stands above it.
        table: the table.
        open: it is shown unfolded.
    """

    head: str
    table: Table
    open: bool


@dataclass(frozen=True)
class Section:
    """One study on the page.

    Attributes:
        id: part of the anchors.
        info: the study in words.
        reference: what a reference run was made on, with and when; None for this run.
        facts: names and texts: data set, classes, attacks.
        results: the results table.
        beside: the tables right after it, of those that have rows, and the reference runs.
        figures: the figures that show something.
        further: the tables after them, likewise.
        costs: the costs table.
        flags: every warning of the tables, with the row that it stands in.
        lineages: what the numbers come from.
    """

    id: str
    info: StudyInfo
    reference: str | None
    facts: tuple[tuple[str, str], ...]
    results: Table
    beside: tuple[Folded, ...]
    figures: tuple[Figure, ...]
    further: tuple[Folded, ...]
    costs: Table
    flags: tuple[tuple[str, tuple[str, ...]], ...]
    lineages: Lineages

    @property
    def failures(self) -> list[Failure]:
        """The cells without numbers."""
        return self.info["failures"]

    @property
    def contents(self) -> tuple[tuple[str, str], ...]:
        """The parts of the section: their anchors and their heads."""
        beside = {one.table.name: HEADS.get(one.table.name, "Reference run") for one in self.beside}
        parts = {
            "results": ("Results", True),
            **{name: (head, True) for name, head in beside.items()},
            "figures": ("Figures", self.figures),
            "audits": ("Audits", any(one.table.name == "audits" for one in self.further)),
            "costs": ("Costs", True),
            "failures": ("Failures and flags", self.failures or self.flags),
            "lineage": ("Lineage", self.lineages.groups),
        }
        return tuple((f"{part}-{self.id}", head) for part, (head, there) in parts.items() if there)


def write_report(studies: Sequence[StudyReport], out: Path) -> None:
    """Write the page.

    Args:
        studies: in the order of the page. One whose collected folder is not there is shown with
            its failures alone.
        out: the HTML file; it loads nothing from anywhere.
    """
    tables, figures = itertools.count(1), itertools.count(1)
    registry = read_registry()
    sections = [_section(study, tables, figures, registry) for study in studies]
    page = render(
        TEMPLATES / "report.html",
        sections=sections,
        incomplete=[section for section in sections if section.failures],
        style=inlined("style.css"),
        theme=inlined("theme.js"),
        script=inlined("script.js"),
    )
    write_bytes(out, page.encode())


def _section(
    study: StudyReport,
    tables: Iterator[int],
    figures: Iterator[int],
    registry: Registry,
) -> Section:
    shown, laid = study.shown, study.sheets
    info, collected = shown.info, shown.collected
    return Section(
        id=_id(info["name"]),
        info=info,
        reference=study.reference,
        facts=_facts(info, collected, laid["audits"]),
        # Numbered in the order of the page.
        results=_table("results", laid["results"], tables),
        beside=(*_folded(BESIDE, laid, tables), *_moved(study, tables)),
        figures=tuple(_figures(study, figures)),
        further=tuple(_folded(FURTHER, laid, tables)),
        costs=_table("costs", laid["costs"], tables),
        flags=_flags([laid[name] for name in FLAGGED]),
        lineages=lineages(info, shown.units, collected, registry, kept=study.reference is not None),
    )


def _id(name: str) -> str:
    """Name a study in anchors and in style sheets, in which a kept run's `@` has a meaning."""
    return name.replace("@", "-")


def _classes(classes: int) -> str:
    if classes == UNKNOWN:
        return "unknown: the data set was not prepared"
    return f"{classes} (chance {wording.percent_words(1 / classes)})"


def _facts(info: StudyInfo, collected: Collected, audits: Sheet) -> tuple[tuple[str, str], ...]:
    found = Counter(audits.data["status"].to_pylist())
    judged, failed = found["pass"] + found["fail"], found["fail"]
    return (
        ("data set", info["dataset"]),
        ("classes", _classes(info["classes"])),
        ("methods", ", ".join(info["methods"])),
        ("attacks", ", ".join(info["attacks"])),
        ("trained cells", str(collected.cells.num_rows)),
        ("rows", f"{collected.outcomes.num_rows:,}"),
        ("audits", _audits(judged, failed, strict=info["strict"])),
    )


def _audits(judged: int, failed: int, *, strict: bool) -> str:
    """Say how many audits failed, and what follows where the study is strict."""
    if not judged:
        return "none applied"
    if not failed:
        return "none failed"
    return f"{failed} failed" + "; the study is strict: no table was written" * strict


def _table(name: str, sheet: Sheet, tables: Iterator[int]) -> Table:
    evidence = []
    for row in sheet.rows:
        found = tuple(
            Evidence(column.title, cell.text, cell.title)
            for column, cell in zip(sheet.columns, row, strict=True)
            if cell.title and not cell.origin
        )
        if found:
            evidence.append((_row_name(sheet, row), found))
    return Table(name, next(tables), sheet, tuple(evidence))


def _folded(
    heads: Mapping[str, str], laid: Mapping[str, Sheet], tables: Iterator[int]
) -> Iterator[Folded]:
    """Number the tables that have rows; one that has nothing to warn of stays folded."""
    for name, head in heads.items():
        sheet = laid[name]
        noted = any(cell.notes for row in sheet.rows for cell in row)
        if sheet.rows:
            open_ = name not in WARNINGS or noted
            yield Folded(head, _table(name, sheet, tables), open=open_)


def _moved(study: StudyReport, tables: Iterator[int]) -> Iterator[Folded]:
    """Number the tables of what differs from each reference run of the study."""
    for one in study.beside:
        before = Version(one.name, read_collected(one.collected), environment=one.environment)
        sheet = moved(before, Version("this run", study.shown.collected), study.shown.info)
        head = f"Beside the reference run on {one.words}"
        yield Folded(head, _table(f"moved-{_id(one.name)}", sheet, tables), open=False)


def _flags(shown: Sequence[Sheet]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Name each flagged row by its method and budgets; what two tables say is said once."""
    found: dict[str, dict[str, None]] = {}
    for sheet in shown:
        for row in sheet.rows:
            said = [note for cell in row for note in cell.notes]
            if said:
                found.setdefault(_row_name(sheet, row), {}).update(dict.fromkeys(said))
    return tuple((name, tuple(notes)) for name, notes in found.items())


def _row_name(sheet: Sheet, row: Sequence[Cell]) -> str:
    named = []
    for column, cell in zip(sheet.columns, row, strict=True):
        if cell.text != wording.NOTHING:
            if column.kind == "name":
                named.append(cell.text)
            elif column.title.endswith("ε"):
                named.append(f"{column.title} = {cell.text}")
    return ", ".join(named)


def _figures(study: StudyReport, numbers: Iterator[int]) -> Iterator[Figure]:
    for figure, caption in study.captions.items():
        path = study.figures / f"{figure}.svg"
        if not caption.empty and path.is_file():
            name = f"figure-{_id(study.info['name'])}-{figure}"
            svg = inline_svg(path.read_text(encoding="utf-8"), name, caption.alt)
            yield Figure(next(numbers), caption.text, Markup(svg))
