"""Whether this machine can set what the tests would look at."""

import shutil
import subprocess

import pytest

FILES = ("booktabs.sty", "siunitx.sty", "longtable.sty", "caption.sty", "placeins.sty", "lmr10.pfb")


def _can_typeset() -> bool:
    if not all(shutil.which(name) for name in ("latexmk", "pdflatex", "kpsewhich")):
        return False
    return subprocess.run(["kpsewhich", *FILES], capture_output=True, check=False).returncode == 0


needs_typesetting = pytest.mark.skipif(
    not _can_typeset(),
    reason="needs latexmk, texlive-latex-extra, texlive-science and texlive-fonts-recommended",
)
