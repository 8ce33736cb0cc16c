"""The page: every table and figure, and behind each number its lineage, in one offline file."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
import pyarrow as pa
from markupsafe import Markup

from advtrain.reporting import wording
from advtrain.reporting.audits import audit_rows, failures
from advtrain.reporting.captions import captions, select
from advtrain.reporting.lineage import Group, lineages
from advtrain.reporting.measure import Unit, measure, units
from advtrain.reporting.sheet import Cell, Sheet
from advtrain.reporting.study import UNKNOWN, Failure, StudyInfo, StudyReport, check_info
from advtrain.reporting.svg import inline_svg
from advtrain.reporting.tables import sheets
from advtrain.results.collect import Collected, read_collected
from advtrain.results.files import write_bytes
from advtrain.results.schema import ADVERSARIAL, CELLS, CERTIFIED, COSTS, OUTCOMES, PROBES

TEMPLATES = Path(__file__).parent / "templates"
FOLDED = {
    "methods": "What robustness costs and gains",
    "selection": "The best epoch against the last",
    "certified": "Certified accuracy",
    "comparisons": "Which method withstood more",
    "overlap": "What each attack breaks",
    "transformed": "Rotated, shifted and corrupted images",
    "audits": "Audits: can these accuracies be believed?",
}
WARNINGS = ("selection", "audits")
"""The tables that stay folded if they note nothing."""


@dataclass(frozen=True)
class Figure:
    """A figure on the page."""

    number: int
    text: str
    svg: Markup


@dataclass(frozen=True)
class Folded:
    """A table that can be folded away.

    Attributes:
        name: of the table.
        head: what stands above it.
        table: with its number.
        open: it is shown unfolded.
    """

    name: str
    head: str
    table: tuple[int, Sheet]
    open: bool


@dataclass(frozen=True)
class Section:
    """One study on the page.

    Attributes:
        info: the study in words.
        facts: names and texts: data set, classes, attacks.
        results: the results table, with its number.
        folded: the tables that can be folded away, of those that have rows.
        costs: the costs table, with its number.
        flags: every warning of the tables, with the row that it stands in.
        figures: the figures that show something.
        groups: the lineages.
    """

    info: StudyInfo
    facts: tuple[tuple[str, str], ...]
    results: tuple[int, Sheet]
    folded: tuple[Folded, ...]
    costs: tuple[int, Sheet]
    flags: tuple[tuple[str, tuple[str, ...]], ...]
    figures: tuple[Figure, ...]
    groups: tuple[Group, ...]

    @property
    def failures(self) -> list[Failure]:
        """The cells without numbers."""
        return self.info["failures"]

    @property
    def names(self) -> frozenset[str]:
        """The cells and units that have a lineage."""
        cells = {cell.cell for group in self.groups for cell in group.cells}
        return frozenset({group.name for group in self.groups} | cells)


def write_report(studies: Sequence[StudyReport], out: Path) -> None:
    """Write the page.

    Args:
        studies: in the order of the page. One whose collected folder is not there is shown with
            its failures alone.
        out: the HTML file; it loads nothing from anywhere.
    """
    tables, figures = itertools.count(1), itertools.count(1)
    sections = [_section(study, tables, figures) for study in studies]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    page = environment.get_template("report.html").render(
        sections=sections,
        incomplete=[section for section in sections if section.failures],
        style=Markup((TEMPLATES / "style.css").read_text(encoding="utf-8")),
        script=Markup((TEMPLATES / "script.js").read_text(encoding="utf-8")),
    )
    write_bytes(out, page.encode())


def _section(study: StudyReport, tables: Iterator[int], figures: Iterator[int]) -> Section:
    info = check_info(study.info)
    collected = read_collected(study.collected) if study.collected.is_dir() else _empty()
    grouped = units(measure(collected), info)
    laid = sheets(collected, info)
    return Section(
        info=info,
        facts=_facts(info, collected, grouped),
        results=(next(tables), laid["results"]),
        folded=tuple(_folded(laid, tables)),
        costs=(next(tables), laid["costs"]),
        flags=_flags([laid[name] for name in ("results", "selection", "certified", "audits")]),
        figures=tuple(_figures(study, info, collected, figures)),
        groups=lineages(info["name"], grouped, collected),
    )


def _classes(classes: int) -> str:
    if classes == UNKNOWN:
        return "unknown: the data set was not prepared"
    return f"{classes} (chance {wording.percent_words(1 / classes)})"


def _facts(
    info: StudyInfo, collected: Collected, grouped: Sequence[Unit]
) -> tuple[tuple[str, str], ...]:
    cells = collected.cells.num_rows
    return (
        ("data set", info["dataset"]),
        ("classes", _classes(info["classes"])),
        ("methods", ", ".join(info["methods"])),
        ("attacks", ", ".join(info["attacks"])),
        ("trained cells", str(cells)),
        ("rows", f"{collected.outcomes.num_rows:,}"),
        ("audits", _audits(failures(audit_rows(grouped, info)), strict=info["strict"])),
    )


def _audits(failed: Sequence[str], *, strict: bool) -> str:
    """Say how many audits failed, and what follows where the study is strict."""
    if not failed:
        return "none failed"
    return f"{len(failed)} failed" + "; the study is strict: no table was written" * strict


def _folded(laid: Mapping[str, Sheet], tables: Iterator[int]) -> Iterator[Folded]:
    """Number the tables that have rows; one that has nothing to warn of stays folded."""
    for name, head in FOLDED.items():
        sheet = laid[name]
        noted = any(cell.notes for row in sheet.rows for cell in row)
        if sheet.rows:
            yield Folded(name, head, (next(tables), sheet), open=name not in WARNINGS or noted)


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


def _figures(
    study: StudyReport, info: StudyInfo, collected: Collected, numbers: Iterator[int]
) -> Iterator[Figure]:
    for caption in captions(select(collected, info), info):
        path = study.figures / f"{caption.name}.svg"
        if not caption.empty and path.is_file():
            name = f"figure-{info['name']}-{caption.name}"
            svg = inline_svg(path.read_text(encoding="utf-8"), name, caption.alt)
            yield Figure(next(numbers), caption.text, Markup(svg))


def _empty() -> Collected:
    """Stand in for a study of which nothing was collected."""
    return Collected(
        outcomes=OUTCOMES.empty_table(),
        cells=CELLS.empty_table(),
        histories=pa.table({"cell": pa.array([], pa.string())}),
        costs=COSTS.empty_table(),
        certified=CERTIFIED.empty_table(),
        probes=PROBES.empty_table(),
        adversarial=ADVERSARIAL.empty_table(),
    )
