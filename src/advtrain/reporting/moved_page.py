"""What moved, as a text for the terminal and as a page of its own."""

from collections.abc import Sequence
from pathlib import Path

import jinja2
from markupsafe import Markup

from advtrain.reporting.sheet import Sheet

TEMPLATES = Path(__file__).parent / "templates"


def page(sheets: Sequence[Sheet]) -> str:
    """Write tables as one HTML page, which loads nothing from anywhere."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("moved.html").render(
        sheets=sheets, style=Markup((TEMPLATES / "style.css").read_text(encoding="utf-8"))
    )


def terminal(sheet: Sheet) -> str:
    """Write a table in columns of equal width; notes stand below the rows that they are of.

    The notes of rows that follow each other and have the same ones are said once.
    """
    shown = [place for place, column in enumerate(sheet.columns) if column.kind != "notes"]
    lines = [[sheet.columns[place].title for place in shown]]
    for row in sheet.rows:
        cells = [row[place] for place in shown]
        lines.append([" ".join(filter(None, (cell.text, cell.detail))) for cell in cells])
    widths = [max(len(line[place]) for line in lines) for place in range(len(shown))]
    head, *body = (
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
    notes = [tuple(note for cell in row for note in cell.notes) for row in sheet.rows]
    texts = [sheet.title, "", *([head] if body else [])]
    for place, line in enumerate(body):
        texts.append(line)
        if place + 1 == len(body) or notes[place + 1] != notes[place]:
            texts += [f"    {note}" for note in notes[place]]
    return "\n".join([*texts, "", sheet.reading, ""])
