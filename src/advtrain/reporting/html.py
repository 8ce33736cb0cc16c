"""The page: every table and figure, and behind each number its lineage, in one offline file."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
import pyarrow as pa
from markupsafe import Markup

from advtrain.reporting import wording
from advtrain.reporting.captions import captions, select
from advtrain.reporting.lineage import Group, lineages
from advtrain.reporting.measure import measure, units
from advtrain.reporting.sheet import Sheet
from advtrain.reporting.study import UNKNOWN, Failure, StudyInfo, StudyReport, check_info
from advtrain.reporting.svg import inline_svg
from advtrain.reporting.tables import sheets
from advtrain.results.collect import Collected, read_collected
from advtrain.results.files import write_bytes
from advtrain.results.schema import CELLS, COSTS, OUTCOMES

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Figure:
    """A figure on the page."""

    number: int
    text: str
    svg: Markup


@dataclass(frozen=True)
class Section:
    """One study on the page.

    Attributes:
        info: the study in words.
        facts: names and texts: data set, classes, attacks.
        results: the results table, with its number.
        costs: the costs table, with its number.
        flags: every warning of the results table, with the row that it stands in.
        figures: the figures that show something.
        groups: the lineages.
    """

    info: StudyInfo
    facts: tuple[tuple[str, str], ...]
    results: tuple[int, Sheet]
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
        facts=_facts(info, collected),
        results=(next(tables), laid["results"]),
        costs=(next(tables), laid["costs"]),
        flags=tuple(_flags(laid["results"])),
        figures=tuple(_figures(study, info, collected, figures)),
        groups=lineages(info["name"], grouped, collected),
    )


def _classes(classes: int) -> str:
    if classes == UNKNOWN:
        return "unknown: the data set was not prepared"
    return f"{classes} (chance {wording.percent_words(1 / classes)})"


def _facts(info: StudyInfo, collected: Collected) -> tuple[tuple[str, str], ...]:
    cells = collected.cells.num_rows
    return (
        ("data set", info["dataset"]),
        ("classes", _classes(info["classes"])),
        ("methods", ", ".join(info["methods"])),
        ("attacks", ", ".join(info["attacks"])),
        ("trained cells", str(cells)),
        ("rows", f"{collected.outcomes.num_rows:,}"),
    )


def _flags(results: Sheet) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Name each flagged row by its method and budgets."""
    notes = [place for place, column in enumerate(results.columns) if column.kind == "notes"]
    heads = [
        place
        for place, column in enumerate(results.columns)
        if column.kind == "name" or column.title.endswith("ε")
    ]
    for row in results.rows:
        said = tuple(note for place in notes for note in row[place].notes)
        if said:
            named = [
                row[place].text
                if results.columns[place].kind == "name"
                else f"{results.columns[place].title} = {row[place].text}"
                for place in heads
                if row[place].text != wording.NOTHING
            ]
            yield ", ".join(named), said


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
    )
