import re
import subprocess
from pathlib import Path

import pyarrow as pa
import pytest

from advtrain.reporting.latex import LATEX, latex, latex_text
from advtrain.reporting.sheet import Cell, Column, Sheet
from tests.reporting.typesetting import needs_typesetting

NASTY = r"100 % of $x_i$ & #1 ~ ^ {a} \b <c> |d| `e` ε ± – 漢"
PACKAGES = ("array", "booktabs", "longtable", "siunitx")


def sheet(*rows: tuple[Cell, ...]) -> Sheet:
    columns = (Column("method", "name"), Column("clean, %"), Column("flags", "notes"))
    return Sheet("A title", "How to read 100 %.", columns, rows, pa.table({"a": [1]}))


def row(name: str, *notes: str) -> tuple[Cell, ...]:
    return Cell(name), Cell("80.0 ± 1.0", "[70.0, 90.0]"), Cell(notes=notes)


def numbers(*texts: str) -> Sheet:
    rows = tuple((Cell(f"row {place}"), Cell(text)) for place, text in enumerate(texts))
    columns = (Column("method", "name"), Column("clean, %"))
    return Sheet("A title", "", columns, rows, pa.table({}))


def wide(columns: int, rows: int = 2) -> Sheet:
    heads = (Column("method", "name"), *(Column(f"attack_{n}, %") for n in range(columns)))
    body = tuple(
        (Cell(f"method_{place}"), *(Cell("80.0 ± 1.0", "[70.0, 90.0]") for _ in range(columns)))
        for place in range(rows)
    )
    return Sheet("A title", "", heads, body, pa.table({}))


def test_a_table_has_booktabs_rules_siunitx_columns_and_its_notes_below() -> None:
    text = latex(sheet(row("pgd_at"), row("free_8", "collapsed: 9.8 %", "failed: x")))
    assert text == (
        "% A title\n"
        "\\begingroup\\footnotesize\n"
        "\\setlength{\\tabcolsep}{4pt}\n"
        "\\sisetup{separate-uncertainty,table-align-uncertainty=false,group-digits=none}\n"
        "{\\centering\\begin{tabular}{lS[table-format=2.1(2)]}\n"
        "\\toprule\n"
        "method & {clean, \\%} \\\\\n"
        "\\midrule\n"
        "pgd\\_at & 80.0 \\pm 1.0 \\\\*\n"
        " & {{\\scriptsize [70.0, 90.0]}} \\\\\n"
        "free\\_8\\textsuperscript{a,b} & 80.0 \\pm 1.0 \\\\*\n"
        " & {{\\scriptsize [70.0, 90.0]}} \\\\\n"
        "\\bottomrule\n"
        "\\end{tabular}\\par}\n"
        "\\par\\smallskip\n"
        "\\noindent\\textsuperscript{a}~collapsed: 9.8 \\%\\par\n"
        "\\noindent\\textsuperscript{b}~failed: x\\par\n"
        "\\noindent How to read 100 \\%.\\par\n"
        "\\endgroup\n"
    )


@pytest.mark.parametrize(
    ("texts", "form"),
    [
        (("81.3", "–", "9.0"), "S[table-format=2.1]"),
        (("−3.14", "10.00"), "S[table-format=-2.2]"),
        (("3", "2 of 3"), "S[table-format=1]"),
        (("12.5 ± 10.5", "1.5"), "S[table-format=2.1(3)]"),
        (("8/255", "–"), "r"),
        (("natural", "31 of 50"), "r"),
    ],
)
def test_numbers_are_aligned_and_what_is_none_is_not(texts: tuple[str, ...], form: str) -> None:
    assert f"\\begin{{tabular}}{{l{form}}}" in latex(numbers(*texts))


def test_a_text_among_numbers_stands_in_braces_and_a_minus_is_one() -> None:
    text = latex(numbers("−3.1", "–", "2 of 3"))
    assert "& -3.1 \\\\" in text
    assert "& {--} \\\\" in text
    assert "& {2 of 3} \\\\" in text


def test_a_wide_table_stands_in_blocks_that_name_their_rows_and_hold_every_column_once() -> None:
    text = latex(wide(14))
    blocks = text.split("\\begin{tabular}{l")[1:]
    assert len(blocks) == 2
    assert all(block.count("method\\_0") == 1 for block in blocks)
    for place in range(14):
        assert text.count(f"attack\\_{place},") == 1
    shares = [block.count("S[") for block in blocks]
    assert max(shares) - min(shares) <= 1


def test_the_first_columns_that_tell_rows_apart_begin_every_block() -> None:
    columns = (Column("method", "name"), Column("attacked at ε"), *wide(12).columns[1:])
    rows = tuple(
        (Cell("trades"), Cell(epsilon), *wide(12).rows[0][1:]) for epsilon in ("0.1", "0.2")
    )
    text = latex(Sheet("A title", "", columns, rows, pa.table({})))
    assert text.count("trades & 0.2 &") == text.count("\\begin{tabular}{l") == 2


def test_a_long_table_goes_on_on_the_next_page_and_does_not_count_as_one_more() -> None:
    assert "longtable" not in latex(wide(3, rows=12))
    text = latex(wide(3, rows=13))
    assert "\\begin{longtable}" in text
    assert "\\end{longtable}\\addtocounter{table}{-1}" in text


def test_long_texts_break_within_the_line() -> None:
    columns = (Column("method", "name"), Column("better than", "name"))
    rows = ((Cell("trades"), Cell(", ".join(["pgd_at"] * 30))),)
    text = latex(Sheet("A title", "", columns, rows, pa.table({})))
    width = re.search(r"raggedright\\arraybackslash}p{(\d+)pt}", text)
    assert width is not None
    assert 300 < int(width[1]) < 450


def test_a_note_of_several_rows_stands_once() -> None:
    text = latex(sheet(row("a", "same"), row("b", "same")))
    assert text.count("~same") == 1
    assert text.count("\\textsuperscript{a}") == 3


def test_notes_are_lettered_beyond_z() -> None:
    text = latex(sheet(row("a", *(f"note {n}" for n in range(28)))))
    assert "\\textsuperscript{z}~note 25" in text
    assert "\\textsuperscript{aa}~note 26" in text
    assert "\\textsuperscript{ab}~note 27" in text


def test_every_character_with_a_meaning_in_latex_is_escaped() -> None:
    assert latex_text(NASTY) == (
        r"100 \% of \$x\_i\$ \& \#1 \textasciitilde{} \textasciicircum{} \{a\} "
        r"\textbackslash{}b \textless{}c\textgreater{} \textbar{}d\textbar{} "
        r"\textasciigrave{}e\textasciigrave{} $\varepsilon$ $\pm$ -- ?"
    )


@needs_typesetting
def test_latex_typesets_what_it_escaped_and_nothing_sticks_out(tmp_path: Path) -> None:
    tables = (
        sheet(row(NASTY, NASTY), row("".join(LATEX)), row("[bracket]"), row("*")),
        wide(20, rows=25),
        numbers("−3.1", "–", "8/255", "12.5 ± 10.5"),
    )
    body = "\\clearpage\n".join(map(latex, tables))
    document = (
        rf"\documentclass{{article}}\usepackage[a4paper,margin=2.5cm]{{geometry}}"
        rf"\usepackage[T1]{{fontenc}}\usepackage{{{','.join(PACKAGES)}}}"
        rf"\begin{{document}}{body}\end{{document}}"
    )
    (tmp_path / "table.tex").write_text(document, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "table.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    said = done.stdout.decode(errors="replace")
    assert done.returncode == 0, said[-2000:]
    assert "Overfull \\hbox" not in said
