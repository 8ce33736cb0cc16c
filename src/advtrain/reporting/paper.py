r"""The draft of a paper: the run's studies as LaTeX, with the numbers in the prose as macros."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

from advtrain.reporting.latex import latex, latex_text
from advtrain.reporting.numbers import Numbers, numbers_file, table_numbers
from advtrain.reporting.pages import TEMPLATES
from advtrain.reporting.prose import Facts, study_facts
from advtrain.reporting.settings import attacks_sheet, digest, keys_sheet, methods_sheet
from advtrain.reporting.sheet import Sheet
from advtrain.reporting.study import StudyInfo
from advtrain.reporting.study_report import StudyReport
from advtrain.reporting.works import Library, read_library
from advtrain.results.collect import Collected
from advtrain.results.files import write_bytes

TABLES = {
    "results": "",
    "comparisons": "",
    "methods": "What robustness costs and gains",
    "published": "Beside the published numbers",
    "claims": "The published claims",
    "selection": "The best epoch against the last",
    "certified": "Certified accuracy",
    "overlap": "What each attack breaks",
    "transformed": "Transformed images",
    "audits": "Audits",
    "costs": "Costs",
}
"""The tables of a study, in their order, with the headings that begin there."""

MOST_KEYS = 100
"""Studies with more cells do not list the key of each."""

LISTED = 8
"""Of more methods than that, their number stands in place of their names."""

GENERAL = ("madry2018", "wilson1927", "agresti2005", "mcnemar1947", "holm1979", "wong2020")
"""The works that the text cites whatever the study."""


class Written(str):
    """A text that is LaTeX already."""


@dataclass(frozen=True)
class Named:
    """Some names of the study that are of one module, and what is said of it."""

    names: tuple[str, ...]
    says: str
    works: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """A table of the paper.

    Attributes:
        name: of the file.
        heading: of the subsection that begins with it; empty for none.
        caption: one line.
        body: as LaTeX, where the paper itself has it.
    """

    name: str
    heading: str
    caption: str
    body: str = ""


@dataclass(frozen=True)
class Figure:
    """A figure of the paper, with its caption."""

    name: str
    text: str


@dataclass(frozen=True)
class Part:
    """What the paper says of a study; without cells, of its failures alone."""

    info: StudyInfo
    numbers: Numbers
    facts: Facts
    data: tuple[str, ...] = ()
    network: Named | None = None
    methods: tuple[Named, ...] = ()
    additions: tuple[Named, ...] = ()
    attacks: tuple[Named, ...] = ()
    certificates: tuple[Named, ...] = ()
    settings: tuple[Table, ...] = ()
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()
    digest: str = ""
    keys: Table | None = None

    @property
    def name(self) -> str:
        """The study's name."""
        return self.info["name"]

    @property
    def title(self) -> str:
        """The study in one line."""
        return self.info["title"]

    @property
    def seeds_vary(self) -> bool:
        """Some methods or budgets have more seeds than others."""
        return self.numbers["counts/seeds_least"] != self.numbers["counts/seeds_most"]

    def val(self, name: str) -> Written:
        r"""Print a number by its name.

        Raises:
            ValueError: if the study has no such number.
        """
        if name not in self.numbers:
            raise ValueError(f"the paper wants {name} of {self.name}, which has no such number")
        return Written(rf"\val{{{self.name}/{name}}}")

    def named(self, names: Sequence[str], count: str) -> Written:
        """List names, or print how many they are where they are too many to list."""
        return _codes(names) if len(names) <= LISTED else Written(f"{self.val(count)} others")

    def has(self, *names: str) -> bool:
        """Say whether the study has these numbers."""
        return set(names) <= set(self.numbers)


def write_paper(studies: Sequence[StudyReport], out: Path) -> list[Path]:
    """Write the paper of a run.

    Args:
        studies: in the order of the paper. One whose collected folder is not there is shown with
            its failures alone.
        out: the folder that gets `paper.tex` and, for each study, `numbers/<study>.tex`. It has, or
            will have, `tables/<study>` and `figures/<study>`, which the paper reads.

    Returns:
        The files.
    """
    library = read_library()
    parts = [_part(study, library) for study in studies]
    written = [out / "paper.tex"]
    write_bytes(written[0], _text(parts, library).encode())
    for part in parts:
        written.append(out / "numbers" / f"{part.name}.tex")
        write_bytes(written[-1], numbers_file(part.name, part.numbers).encode())
    return written


def _text(parts: Sequence[Part], library: Library) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        block_start_string="<%",
        block_end_string="%>",
        variable_start_string="<<",
        variable_end_string=">>",
        comment_start_string="<#",
        comment_end_string="#>",
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_escaped,
    )
    environment.filters |= {"raw": Written, "code": _code, "codes": _codes, "cite": _cite}
    environment.filters |= {"ended": _ended}
    keys = {key for part in parts for key in _cited(part)} | set(GENERAL)
    return environment.get_template("paper.tex").render(
        title=parts[0].title if len(parts) == 1 else "Adversarial training, measured",
        parts=parts,
        works=[library.works[key] for key in sorted(keys)],
    )


def _part(study: StudyReport, library: Library) -> Part:
    info, collected = study.shown.info, study.shown.collected
    if not collected.cells.num_rows:
        return Part(info, {"counts/failures": str(len(info["failures"]))}, Facts())
    laid = study.sheets
    facts, counts = study_facts(laid, collected, info)
    evaluations = _modules(collected)
    return Part(
        info=info,
        numbers=counts | table_numbers(laid),
        facts=facts,
        data=library.module("data", info["data_set"]["module"]).works,
        network=_network(collected, library),
        methods=_named(
            library, "methods", {m: info["method_modules"].get(m, "") for m in info["methods"]}
        ),
        additions=_additions(library, info),
        attacks=_named(library, "attacks", {a: evaluations.get(a, "") for a in info["attacks"]}),
        certificates=_named(
            library, "certificates", {c: evaluations.get(c, "") for c in info["certificates"]}
        ),
        settings=tuple(
            _table(name, "", sheet, info, inline=True)
            for name, sheet in (
                ("methods", methods_sheet(collected, info)),
                ("attacks", attacks_sheet(collected, info)),
            )
            if sheet.rows
        ),
        tables=tuple(_tables(laid, info)),
        figures=tuple(
            Figure(name, caption.text)
            for name, caption in study.captions.items()
            if not caption.empty
        ),
        digest=digest(collected),
        keys=_table("keys", "", keys_sheet(collected, info), info, inline=True)
        if collected.cells.num_rows <= MOST_KEYS
        else None,
    )


def _tables(laid: dict[str, Sheet], info: StudyInfo) -> Iterator[Table]:
    """Return the tables that have rows."""
    for name, heading in TABLES.items():
        if name in laid and laid[name].rows:
            yield _table(name, heading, laid[name], info)


def _table(
    name: str, heading: str, sheet: Sheet, info: StudyInfo, *, inline: bool = False
) -> Table:
    said = sheet.title.removeprefix(f"{info['title']}: ")
    return Table(name, heading, f"{said[0].upper()}{said[1:]}", latex(sheet) if inline else "")


def _modules(collected: Collected) -> dict[str, str]:
    """Return the module of each attack and certificate that was run, by name."""
    found = {}
    for row in collected.cells.to_pylist():
        for said in json.loads(row["evaluations"]).values():
            one = said["params"].get("attack") or said["params"]["certificate"]
            found[one["name"]] = one["module"]
    return found


def _named(library: Library, kind: str, modules: Mapping[str, str]) -> tuple[Named, ...]:
    """Group names by their module, in the order that they come in."""
    names: dict[str, list[str]] = {}
    for name, module in modules.items():
        names.setdefault(module, []).append(name)
    return tuple(
        Named(tuple(of_it), module.says, module.works)
        for name, of_it in names.items()
        for module in [library.module(kind, name)]
    )


def _additions(library: Library, info: StudyInfo) -> tuple[Named, ...]:
    """Return what recipes add to their methods, where a work is known for it."""
    names: dict[str, list[str]] = {}
    for method in info["methods"]:
        added = [text.split()[0] for text in info["method_additions"].get(method, [])]
        if info["method_updates"].get(method) == "awp":
            added.insert(0, "awp")
        for name in added:
            names.setdefault(name, []).append(method)
    return tuple(
        Named(tuple(names[name]), module.says, module.works)
        for name, module in library.modules["additions"].items()
        if name in names
    )


def _network(collected: Collected, library: Library) -> Named:
    """Return the network, which is one for all cells of a study."""
    model = json.loads(collected.cells["params"][0].as_py())["model"]
    return _named(library, "models", {model["name"]: model["module"]})[0]


def _cited(part: Part) -> Iterator[str]:
    """Return the keys of the works that a study's part cites."""
    named = (*part.methods, *part.additions, *part.attacks, *part.certificates)
    yield from (key for one in named for key in one.works)
    yield from (*part.data, *(part.network.works if part.network else ()))


def _escaped(value: object) -> str:
    """Escape what the template prints, unless it is LaTeX."""
    return value if isinstance(value, Written) else latex_text(str(value))


def _code(name: str) -> Written:
    return Written(rf"\texttt{{{latex_text(name)}}}")


def _codes(names: Iterable[str]) -> Written:
    """List names: `a, b and c`."""
    *others, last = map(_code, names)
    return Written(f"{', '.join(others)} and {last}" if others else last)


def _ended(sentence: str) -> str:
    """End a sentence, if it does not end by itself."""
    return sentence if sentence[-1:] in (".", "!", "?") else f"{sentence}."


def _cite(works: Sequence[str]) -> Written:
    return Written(rf"~\cite{{{','.join(works)}}}" if works else "")
