"""Tables of a study, in every format, from its rows alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from advtrain.reporting.tables import write_tables
from pipeline.study_info import study_info

if TYPE_CHECKING:
    from pipeline.job import Job


def run(job: Job) -> None:
    """Write the tables."""
    info = study_info(job.params, job.input_folder("prepare"))
    write_tables(job.input_folder("collect"), info, job.output_folder())
