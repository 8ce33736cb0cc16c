import csv
import io
import shutil
import subprocess
from pathlib import Path

import pyarrow as pa
import pytest

from advtrain.reporting.sheet import (
    LATEX,
    Cell,
    Column,
    Sheet,
    comma_separated,
    latex,
    latex_text,
    markdown,
)

NASTY = r"100 % of $x_i$ & #1 ~ ^ {a} \b <c> |d| `e` ε ± – 漢"


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


def test_latex_is_a_booktabs_table_with_its_notes_below() -> None:
    text = latex(sheet(row("pgd_at"), row("free_8", "collapsed: 9.8 %", "failed: x")))
    assert text == (
        "% A title\n"
        "\\begingroup\\footnotesize\n"
        "\\begin{tabular}{lr}\n"
        "\\toprule\n"
        "method & clean, \\% \\\\\n"
        "\\midrule\n"
        "pgd\\_at & 80.0 $\\pm$ 1.0 \\\\\n"
        " & {\\scriptsize [70.0, 90.0]} \\\\\n"
        "free\\_8\\textsuperscript{a,b} & 80.0 $\\pm$ 1.0 \\\\\n"
        " & {\\scriptsize [70.0, 90.0]} \\\\\n"
        "\\bottomrule\n"
        "\\end{tabular}\n"
        "\\par\\noindent\\textsuperscript{a}~collapsed: 9.8 \\%\n"
        "\\par\\noindent\\textsuperscript{b}~failed: x\n"
        "\\par\\noindent How to read 100 \\%.\n"
        "\\endgroup\n"
    )


def test_a_note_of_several_rows_stands_once() -> None:
    text = latex(sheet(row("a", "same"), row("b", "same")))
    assert text.count("~same") == 1
    assert text.count("\\textsuperscript{a}") == 3


def test_every_character_with_a_meaning_in_latex_is_escaped() -> None:
    assert latex_text(NASTY) == (
        r"100 \% of \$x\_i\$ \& \#1 \textasciitilde{} \textasciicircum{} \{a\} "
        r"\textbackslash{}b \textless{}c\textgreater{} \textbar{}d\textbar{} "
        r"\textasciigrave{}e\textasciigrave{} $\varepsilon$ $\pm$ -- ?"
    )


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_latex_typesets_what_it_escaped(tmp_path: Path) -> None:
    rules = "".join(rf"\let\{rule}\hline" for rule in ("toprule", "midrule", "bottomrule"))
    body = latex(sheet(row(NASTY, NASTY), row("".join(LATEX))))
    document = rf"\documentclass{{article}}{rules}\begin{{document}}{body}\end{{document}}"
    (tmp_path / "table.tex").write_text(document, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "table.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-2000:]


def test_notes_are_lettered_beyond_z() -> None:
    text = latex(sheet(row("a", *(f"note {n}" for n in range(28)))))
    assert "\\textsuperscript{z}~note 25" in text
    assert "\\textsuperscript{aa}~note 26" in text
    assert "\\textsuperscript{ab}~note 27" in text


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
