"""Build `reports/paper.pdf` where there is a TeX: `make paper`.

The PDF is the same bytes for the same sources and the same TeX, and is no output of the graph: who
has no TeX misses the PDF alone.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from advtrain.provenance import hash_file

ADVICE = (
    "apt-get install latexmk texlive-latex-extra texlive-science texlive-fonts-recommended, or "
    "https://tectonic-typesetting.github.io"
)
LATEXMK = ("-norc", "-pdf", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape")
EPOCH = "0"
"""The moment that the PDF says it was made at, in seconds since 1970."""


class PaperError(RuntimeError):
    """TeX is there, and could not set the paper."""


def build_paper(reports: Path) -> Path | None:
    """Set the paper.

    Args:
        reports: the folder of `paper.tex` and of what it reads.

    Returns:
        The PDF; None where no TeX is installed.

    Raises:
        FileNotFoundError: if there is no `paper.tex`.
        PaperError: with the end of what TeX says.
    """
    source = _source(reports)
    with tempfile.TemporaryDirectory() as scratch:
        command = _command(scratch)
        if command is None:
            return None
        environment = {**os.environ, "SOURCE_DATE_EPOCH": EPOCH, "FORCE_SOURCE_DATE": "1"}
        done = subprocess.run(
            [*command, source.name],
            cwd=reports,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
        if done.returncode:
            raise PaperError(f"{command[0]} could not set {source}:\n{_end(done.stdout)}")
        return Path(shutil.move(Path(scratch) / "paper.pdf", reports / "paper.pdf"))


def _source(reports: Path) -> Path:
    source = reports / "paper.tex"
    if not source.is_file():
        raise FileNotFoundError(f"{source}: not there; `make reproduce` writes it")
    return source


def _command(scratch: str) -> list[str] | None:
    """Return what sets a paper here, but for its name."""
    if shutil.which("latexmk") and shutil.which("pdflatex"):
        return ["latexmk", *LATEXMK, f"-outdir={scratch}"]
    if shutil.which("tectonic"):
        return ["tectonic", "--outdir", scratch]
    return None


def _end(said: str) -> str:
    """Return TeX's errors, or its last lines where it names none."""
    lines = said.splitlines()
    errors = [place for place, line in enumerate(lines) if line.startswith(("!", "error"))]
    return "\n".join(lines[errors[0] : errors[0] + 20] if errors else lines[-20:])


def sources(reports: Path) -> str:
    """Hash what the paper is set from.

    Raises:
        FileNotFoundError: if there is no `paper.tex`.
    """
    source = _source(reports)
    folders = ("numbers", "tables", "figures")
    found = [
        path
        for folder in folders
        for path in (reports / folder).rglob("*")
        if path.suffix in (".tex", ".pdf")
    ]
    digest = hashlib.sha256()
    for path in [*sorted(found), source]:
        digest.update(hash_file(path).encode())
    return digest.hexdigest()


def main() -> None:
    """Build the paper of this repository where it is not built, and say what came of it."""
    reports, record = Path("reports"), Path(".pipeline/paper.sha256")
    try:
        digest = sources(reports)
        if (reports / "paper.pdf").is_file() and record.is_file() and record.read_text() == digest:
            print(f"paper: {reports / 'paper.pdf'}")
            return
        made = build_paper(reports)
    except (FileNotFoundError, PaperError) as error:
        sys.exit(str(error))
    if made is None:
        print(f"paper: reports/paper.tex is there, no TeX to set it is; {ADVICE}")
        return
    record.parent.mkdir(exist_ok=True)
    record.write_text(digest)
    print(f"paper: {made}")


if __name__ == "__main__":
    main()
