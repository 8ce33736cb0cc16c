import csv
import io

import pyarrow as pa
import pytest

from advtrain.reporting.sheet import Cell, Column, Sheet, comma_separated, markdown


def sheet(*rows: tuple[Cell, ...]) -> Sheet:
    columns = (Column("method", "name"), Column("clean, %"), Column("flags", "notes"))
    return Sheet("A title", "How to read 100 %.", columns, rows, pa.table({"a": [1]}))


def row(name: str, *notes: str) -> tuple[Cell, ...]:
    return Cell(name), Cell("80.0 ± 1.0", "[70.0, 90.0]"), Cell(notes=notes)


def test_markdown_is_a_table_that_reads_as_text() -> None:
    assert markdown(sheet(row("pgd_at"), row("free_8", "failed: a|b", "x"))) == (
        "**A title**\n"
        "\n"
        "| method | clean, % | flags |\n"
        "| :--- | ---: | :--- |\n"
        "| pgd_at | 80.0 ± 1.0 [70.0, 90.0] |  |\n"
        "| free_8 | 80.0 ± 1.0 [70.0, 90.0] | failed: a\\|b; x |\n"
        "\n"
        "How to read 100 %.\n"
    )


@pytest.mark.parametrize(
    ("text", "escaped"),
    [("_a_", "\\_a\\_"), ("*a*", "\\*a\\*"), ("a\nb", "a b"), ("<b>", "\\<b\\>")],
)
def test_markdown_shows_what_would_have_a_meaning(text: str, escaped: str) -> None:
    assert f"| {escaped} |" in markdown(sheet(row(text)))


def test_csv_leaves_null_empty_and_joins_lists() -> None:
    data = pa.table(
        {
            "method": ["a,b", "c"],
            "epsilon": pa.array([0.1, None], pa.float64()),
            "flags": pa.array([["x", "y"], []], pa.list_(pa.string())),
        }
    )
    text = comma_separated(data)
    assert text == 'method,epsilon,flags\n"a,b",0.1,x; y\nc,,\n'
    assert comma_separated(pa.table({"epochs": [[3, 4], []]})) == 'epochs\n3; 4\n""\n'
    assert next(csv.DictReader(io.StringIO(text)))["method"] == "a,b"
