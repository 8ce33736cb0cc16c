"""Tables of a study, in every format, and its model cards, from its rows alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from advtrain.reporting.card import write_cards
from advtrain.reporting.tables import write_tables
from pipeline.study_info import study_info

if TYPE_CHECKING:
    from pipeline.job import Job


def run(job: Job) -> None:
    """Write the tables, and the cards of the cells that were trained here."""
    info = study_info(job.params, job.root)
    write_tables(job.input_folder("collect"), info, job.output_folder())
    if "reference" not in job.params:
        write_cards(job.input_folder("collect"), info, job.output_folder() / "cards")
