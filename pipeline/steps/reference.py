"""A reference run: committed rows -> the place where tables, figures and the page look for rows."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from advtrain.provenance import hash_file

if TYPE_CHECKING:
    from pipeline.job import Job


def run(job: Job) -> None:
    """Copy the files.

    Raises:
        ValueError: if one has changed since the run began.
    """
    for output in job.spec["outputs"]:
        name = Path(output).name
        source = job.root / job.params["folder"] / name
        copied = shutil.copyfile(source, job.output(name))
        if hash_file(copied) != job.params["files"].get(name):
            raise ValueError(f"{source} changed while it was read; run snakemake again")
