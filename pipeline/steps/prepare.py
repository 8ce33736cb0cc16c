"""Prepare a data set: raw files -> Arrow files with checksums and a seeded split."""

from __future__ import annotations

from typing import TYPE_CHECKING

from advtrain.data.prepare import prepare
from pipeline.plugins import load

if TYPE_CHECKING:
    from pipeline.job import Job


def run(job: Job) -> None:
    """Read the source where `raw_data` says and write the prepared splits."""
    entry = job.params["dataset"]
    raw = job.root / job.unkeyed["raw_data"]
    source = load("data", entry["module"])(raw, **entry["parameters"])
    prepare(source, job.output_folder(), **entry["split"])
