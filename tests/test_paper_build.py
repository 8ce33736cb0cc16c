"""The paper is set by what TeX there is; without one, the .tex is enough."""

import os
from pathlib import Path

import pytest

from pipeline.paper import PaperError, build_paper, main, sources


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    found = tmp_path / "reports"
    for name in ("paper.tex", "numbers/a.tex", "tables/a/results.tex", "figures/a/curve.pdf"):
        (found / name).parent.mkdir(parents=True, exist_ok=True)
        (found / name).write_text(name)
    return found


def program(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir(exist_ok=True)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/nowhere")


SETS = 'for one in "$@"; do case $one in -outdir=*) out=${one#-outdir=};; esac; done'


def test_without_a_tex_there_is_a_note_and_no_error(
    reports: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    only(reports.parent / "bin", monkeypatch)
    monkeypatch.chdir(reports.parent)
    assert build_paper(reports) is None
    main()
    said = capsys.readouterr().out
    assert "reports/paper.tex is there, no TeX to set it is" in said
    assert "apt-get install latexmk" in said


def test_latexmk_sets_it_at_no_moment_and_leaves_the_pdf_alone(
    reports: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(reports.parent / "bin", monkeypatch)
    program(reports.parent / "bin", "pdflatex", "")
    script = f'{SETS}; echo "$SOURCE_DATE_EPOCH" > "$out/paper.pdf"; echo x > "$out/paper.aux"'
    program(reports.parent / "bin", "latexmk", script)
    before = {path.name for path in reports.iterdir()}
    assert build_paper(reports) == reports / "paper.pdf"
    assert (reports / "paper.pdf").read_text() == "0\n"
    assert {path.name for path in reports.iterdir()} == before | {"paper.pdf"}


def test_tectonic_sets_it_where_there_is_no_latexmk(
    reports: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(reports.parent / "bin", monkeypatch)
    program(reports.parent / "bin", "tectonic", 'echo "$3" > "$2/paper.pdf"')
    assert build_paper(reports) == reports / "paper.pdf"
    assert (reports / "paper.pdf").read_text() == "paper.tex\n"


def test_an_error_of_tex_is_shown(reports: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only(reports.parent / "bin", monkeypatch)
    program(reports.parent / "bin", "tectonic", "echo much; echo '! There is no x.'; exit 3")
    with pytest.raises(PaperError, match=r"tectonic could not set .*paper.tex:\n! There is no x."):
        build_paper(reports)


def test_no_paper_is_an_error_that_says_what_writes_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="make reproduce"):
        build_paper(tmp_path)


def test_a_paper_is_set_again_only_if_its_sources_changed(
    reports: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(reports.parent / "bin", monkeypatch)
    monkeypatch.chdir(reports.parent)
    program(reports.parent / "bin", "tectonic", 'echo set >> ../runs; echo pdf > "$2/paper.pdf"')
    main()
    main()
    assert (reports.parent / "runs").read_text() == "set\n"
    before = sources(reports)
    (reports / "tables/a/results.tex").write_text("other")
    assert sources(reports) != before
    main()
    assert (reports.parent / "runs").read_text() == "set\nset\n"
