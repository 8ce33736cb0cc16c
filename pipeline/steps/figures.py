"""Figures of a study, as vector and pixels, from its rows alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from advtrain.reporting.figures import write_figures
from pipeline.study_info import study_info

if TYPE_CHECKING:
    from pipeline.job import Job


def run(job: Job) -> None:
    """Draw the figures."""
    info = study_info(job.params, job.root)
    write_figures(job.input_folder("collect"), info, job.output_folder())
