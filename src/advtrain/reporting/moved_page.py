"""What moved, as a text for the terminal and as a page of its own."""

from collections.abc import Sequence

from advtrain.reporting.pages import TEMPLATES, inlined, render
from advtrain.reporting.sheet import Sheet


def page(sheets: Sequence[Sheet]) -> str:
    """Write tables as one HTML page, which loads nothing from anywhere."""
    return render(TEMPLATES / "moved.html", sheets=sheets, style=inlined("style.css"))


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
