r"""A table as LaTeX: booktabs rules, numbers aligned by siunitx, no wider than a page.

A table that is wider than a line stands in several blocks below each other, each of which begins
with the columns that name the row; one that is longer than a page goes on on the next.
"""

import math
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from advtrain.reporting.sheet import Cell, Column, Sheet

LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "`": r"\textasciigrave{}",
    "±": r"$\pm$",
    "–": "--",
    "−": r"$-$",
    "×": r"$\times$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "∞": r"$\infty$",
    "→": r"$\rightarrow$",
    "√": r"$\surd$",
    "✓": r"$\surd$",
    "✗": r"$\times$",
    "·": r"$\cdot$",
    "α": r"$\alpha$",
    "β": r"$\beta$",
    "γ": r"$\gamma$",
    "δ": r"$\delta$",
    "ε": r"$\varepsilon$",
    "κ": r"$\kappa$",
    "λ": r"$\lambda$",
    "σ": r"$\sigma$",
    "τ": r"$\tau$",
    "ℓ": r"$\ell$",
    "²": r"\textsuperscript{2}",
    "₂": r"\textsubscript{2}",
    "—": "---",
    "…": r"\ldots{}",
    "‘": "`",
    "’": "'",
    "“": "``",
    "”": "''",
}
LATIN = "\u017f"
"""The last letter that every LaTeX knows: the end of Latin Extended-A."""

NUMBER = re.compile(r"(?P<sign>[−-]?)(?P<whole>\d+)(?:\.(?P<part>\d+))?")
SPREAD = re.compile(rf"(?P<number>{NUMBER.pattern})(?: ± (?P<off>\d+)(?:\.(?P<fine>\d+))?)?")

LINE = 445.0
"""Points of a line, of 16 cm: that of a page with margins of 2.5 cm."""
LETTER = 4.2
"""Points of a letter at footnote size."""
SMALL = 3.2
"""Points of a letter of the small print."""
GAP = 8.0
"""Points between two columns."""
WORDS = 26
"""Longer texts stand in a column that breaks its lines."""
BROKEN = (80.0, 170.0)
"""How wide such a column is at least, and at most, in points."""
LINES = 24
"""Tables with more lines may break between pages."""


@dataclass(frozen=True)
class Laid:
    """A column of a table in LaTeX.

    Attributes:
        place: of the column in the sheet.
        letter: its kind in LaTeX: `l`, `r`, siunitx's `S[...]`, or `p` where its texts break.
        width: in points, by the number of letters.
        longest: how wide its longest text would be.
    """

    place: int
    letter: str
    width: float
    longest: float

    @property
    def broken(self) -> bool:
        """Its texts break."""
        return self.letter == "p"

    @property
    def aligned(self) -> bool:
        """Its numbers are aligned by siunitx, which takes texts in braces alone."""
        return self.letter.startswith("S")

    @property
    def form(self) -> str:
        """How the table's preamble declares it."""
        if not self.broken:
            return self.letter
        return rf">{{\raggedright\arraybackslash}}p{{{self.width:.0f}pt}}"


def latex(sheet: Sheet) -> str:
    r"""Write a table as LaTeX for `\input`: needs array, booktabs, longtable and siunitx.

    The small print stands below each number, the notes below the table.
    """
    columns = _columns(sheet)
    marks, notes = _marks(sheet)
    lines = [f"% {' '.join(sheet.title.split())}", r"\begingroup\footnotesize"]
    lines += [r"\setlength{\tabcolsep}{4pt}"]
    lines += [r"\sisetup{separate-uncertainty,table-align-uncertainty=false,group-digits=none}"]
    for number, block in enumerate(_blocks(sheet, columns)):
        lines += [r"\par\medskip"] * (number > 0)
        lines += _table(sheet, block, marks)
    lines += [r"\par\smallskip"]
    lines += [
        rf"\noindent\textsuperscript{{{_letter(place)}}}~{latex_text(note)}\par"
        for place, note in enumerate(notes)
    ]
    return "\n".join([*lines, rf"\noindent {latex_text(sheet.reading)}\par", r"\endgroup", ""])


def latex_text(text: str) -> str:
    """Escape a text for LaTeX, so that it prints as it reads.

    A letter that LaTeX would stop at, such as one of another script, becomes a question mark.
    """
    return "".join(
        LATEX.get(character, character if character <= LATIN else "?")
        for character in " ".join(text.split())
    )


def _columns(sheet: Sheet) -> list[Laid]:
    """Choose the form of each column; long texts share what the others leave of the line."""
    found = [
        _column(sheet, place) for place, one in enumerate(sheet.columns) if one.kind != "notes"
    ]
    broken = [one for one in found if one.broken]
    rest = LINE - sum(one.width + GAP for one in found if not one.broken)
    least, most = BROKEN
    share = rest / len(broken) - GAP if broken else 0.0
    width = most if share < least else min(most, share)
    return [replace(one, width=width) if one.broken else one for one in found]


def _column(sheet: Sheet, place: int) -> Laid:
    """Choose the form of a column."""
    cells = [row[place] for row in sheet.rows]
    texts = [cell.text for cell in cells]
    most = max(map(len, texts), default=0)
    small = max((len(cell.detail) for cell in cells), default=0)
    title = max(map(len, _head(sheet.columns[place], cells)))
    width = max(LETTER * title, LETTER * most, SMALL * small)
    if sheet.columns[place].kind == "name":
        return Laid(place, "p" if most > WORDS else "l", width, width)
    form = _aligned(texts)
    return Laid(place, f"S[table-format={form}]" if form else "r", width, width)


def _aligned(texts: Sequence[str]) -> str:
    """Return siunitx's format of numbers, such as `2.1(2)`; none if they are not numbers."""
    found = [one for one in map(SPREAD.fullmatch, texts) if one]
    if not found or any((one["fine"] or "") and not one["part"] for one in found):
        return ""
    sign = "-" if any(one["sign"] for one in found) else ""
    whole = max(len(one["whole"]) for one in found)
    part = max(len(one["part"] or "") for one in found)
    spread = max(len(one["off"] or "") + len(one["fine"] or "") for one in found)
    return f"{sign}{whole}" + f".{part}" * (part > 0) + f"({spread})" * (spread > 0)


def _blocks(sheet: Sheet, columns: Sequence[Laid]) -> list[list[Laid]]:
    """Share the columns among as few blocks as fit a line, all about as wide."""
    keys = columns[: _keys(sheet, columns)]
    others = columns[len(keys) :]
    limit = LINE - sum(one.width + GAP for one in keys)
    fewest = _filled(others, limit)
    widest = max((one.width + GAP for one in others), default=0.0)
    while limit > widest and len(tried := _filled(others, limit - 1)) == len(fewest):
        fewest, limit = tried, limit - 1
    return [_widened([*keys, *block]) for block in fewest or [[]]]


def _widened(block: Sequence[Laid]) -> list[Laid]:
    """Give what a block leaves of the line to the texts that break, as far as they need it."""
    count = sum(one.broken for one in block)
    rest = max(0.0, LINE - sum(one.width + GAP for one in block))
    return [
        replace(one, width=min(one.width + rest / count, max(one.longest, BROKEN[0])))
        if one.broken
        else one
        for one in block
    ]


def _filled(columns: Sequence[Laid], limit: float) -> list[list[Laid]]:
    """Fill one block after the other; none is left empty."""
    blocks: list[list[Laid]] = []
    free = 0.0
    for one in columns:
        if not blocks or one.width + GAP > free:
            blocks.append([])
            free = limit
        blocks[-1].append(one)
        free -= one.width + GAP
    return blocks


def _keys(sheet: Sheet, columns: Sequence[Laid]) -> int:
    """Return how many of the first columns tell the rows apart; one if half of them do not."""
    for count in range(1, len(columns) // 2 + 1):
        said = {tuple(row[one.place].text for one in columns[:count]) for row in sheet.rows}
        if len(said) == len(sheet.rows):
            return count
    return 1


def _table(sheet: Sheet, block: Sequence[Laid], marks: Sequence[str]) -> list[str]:
    heads = [
        _braced(one, _stacked(_head(sheet.columns[one.place], [r[one.place] for r in sheet.rows])))
        for one in block
    ]
    head = [r"\toprule", rf"{' & '.join(heads)} \\", r"\midrule"]
    rows = zip(sheet.rows, marks, strict=True)
    body = [line for row, mark in rows for line in _row(block, row, mark)]
    form = "".join(one.form for one in block)
    if sum(_lines(sheet, row, block) for row in sheet.rows) <= LINES:
        begin, end = rf"{{\centering\begin{{tabular}}{{{form}}}", r"\end{tabular}\par}"
        return [begin, *head, *body, r"\bottomrule", end]
    # A longtable counts as a table of its own, which the text does not know of.
    begin, end = rf"\begin{{longtable}}{{{form}}}", r"\end{longtable}\addtocounter{table}{-1}"
    again = [r"\endhead", r"\bottomrule", r"\endfoot"]
    return [begin, *head, *again, *body, end]


def _lines(sheet: Sheet, row: Sequence[Cell], block: Sequence[Laid]) -> int:
    """Count the lines that a row takes, with its small print."""
    texts = max(math.ceil(LETTER * len(row[one.place].text) / one.width) or 1 for one in block)
    return texts + any(row[one.place].detail for one in block)


def _row(block: Sequence[Laid], row: Sequence[Cell], mark: str) -> Iterator[str]:
    """Write a row, which a page does not part from its small print."""
    small = [row[one.place].detail for one in block]
    cells = [_shown(one, row[one.place].text) for one in block]
    cells[0] += mark
    yield rf"{' & '.join(cells)} \\" + "*" * any(small)
    if any(small):
        prints = [
            _braced(one, rf"{{\scriptsize {latex_text(text)}}}") if text else ""
            for one, text in zip(block, small, strict=True)
        ]
        yield rf"{' & '.join(prints)} \\"


def _shown(column: Laid, text: str) -> str:
    """Write a text, or a number for siunitx to align."""
    if column.aligned and SPREAD.fullmatch(text):
        return text.replace("−", "-").replace("±", r"\pm")
    # A bracket or a star after the end of a row would be its option.
    written = latex_text(text)
    return _braced(column, f"{{}}{written}" if written[:1] in ("[", "*") else written)


def _braced(column: Laid, text: str) -> str:
    return f"{{{text}}}" if column.aligned and text else text


def _head(column: Column, cells: Sequence[Cell]) -> list[str]:
    """Break a head into lines that are not longer than what stands below, or than 11 letters."""
    width = max([11, *(len(cell.text) for cell in cells)])
    return textwrap.wrap(column.title, min(width, WORDS), break_long_words=False) or [""]


def _stacked(lines: Sequence[str]) -> str:
    if len(lines) == 1:
        return latex_text(lines[0])
    stacked = r"\\".join(map(latex_text, lines))
    return rf"\begin{{tabular}}[b]{{@{{}}c@{{}}}}{stacked}\end{{tabular}}"


def _marks(sheet: Sheet) -> tuple[list[str], list[str]]:
    """Letter the notes: what to set beside the name of each row, and each note once."""
    notes: dict[str, str] = {}
    marks = []
    for row in sheet.rows:
        said = [note for cell in row for note in cell.notes]
        for note in said:
            notes.setdefault(note, _letter(len(notes)))
        letters = ",".join(notes[note] for note in said)
        marks.append(rf"\textsuperscript{{{letters}}}" if letters else "")
    return marks, list(notes)


def _letter(place: int) -> str:
    """Count a, b, ..., z, aa, ab, ..."""
    text = ""
    place += 1
    while place:
        place, rest = divmod(place - 1, 26)
        text = chr(ord("a") + rest) + text
    return text
