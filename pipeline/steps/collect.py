"""Collect a study: the rows of all its cells, refused if they do not belong together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from advtrain.results.collect import collect, read_cell, write_collected

if TYPE_CHECKING:
    from pipeline.job import Job


def run(job: Job) -> None:
    """Read every cell that the parameters name and write the study's tables of rows."""
    records = [
        read_cell(
            job.root,
            job.study,
            cell,
            evaluations,
            job.params["certificates"][cell],
            job.params["probes"][cell],
        )
        for cell, evaluations in job.params["cells"].items()
    ]
    collected = collect(job.study, records, prepared=job.input_folder("prepare"))
    write_collected(collected, job.output_folder())
