"""A table in between: what Markdown, LaTeX, CSV, Parquet and the page are all written from."""

import csv
import io
import re
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

MARKDOWN = re.compile(r"[\\`*<>|#]|(?<![^\W_])_|_(?![^\W_])")
"""What has a meaning in Markdown; an underscore has none inside a word."""


@dataclass(frozen=True)
class Column:
    """A column's head, and what stands below: a row's name, numbers, or notes in words."""

    title: str
    kind: Literal["name", "number", "notes"] = "number"


@dataclass(frozen=True)
class Cell:
    """One place of a table.

    Attributes:
        text: what stands there; notes have none.
        detail: the small print below it, such as an interval.
        title: what the number means, in words, for the reader who asks.
        origin: the name of the cell or unit whose lineage it has; empty for none.
        notes: warnings, one text each.
    """

    text: str = ""
    detail: str = ""
    title: str = ""
    origin: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sheet:
    """A table.

    Attributes:
        title: what it is, one line.
        reading: how to read it.
        columns: the heads.
        rows: one cell for each column.
        data: the same rows for machines, accuracies as shares in [0, 1].
    """

    title: str
    reading: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    data: pa.Table


def markdown(sheet: Sheet) -> str:
    """Write a table as Markdown (GitHub's tables)."""
    heads = [_markdown(column.title) for column in sheet.columns]
    rules = ["---:" if column.kind == "number" else ":---" for column in sheet.columns]
    lines = [heads, rules]
    for row in sheet.rows:
        lines.append(
            [_markdown(" ".join(p for p in (c.text, c.detail) if p) or _said(c)) for c in row]
        )
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"**{_markdown(sheet.title)}**\n\n{body}\n\n{_markdown(sheet.reading)}\n"


def comma_separated(data: pa.Table) -> str:
    """Write rows as CSV: an empty place for null, `; ` between the texts of a list."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(data.column_names)
    for row in data.to_pylist():
        writer.writerow(
            "; ".join(map(str, value)) if isinstance(value, list) else value
            for value in row.values()
        )
    return out.getvalue()


def _said(cell: Cell) -> str:
    return "; ".join(cell.notes)


def _markdown(text: str) -> str:
    return MARKDOWN.sub(r"\\\g<0>", " ".join(text.split()))
