"""The page and the metrics of all studies of the run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from advtrain.reporting.html import write_report
from advtrain.reporting.metrics import write_metrics
from advtrain.reporting.study import StudyReport
from pipeline.study_info import study_info

if TYPE_CHECKING:
    from pipeline.job import Job


def run(job: Job) -> None:
    """Write `index.html` and `metrics.json`."""
    studies = [
        StudyReport(
            info=study_info(shown, job.root / "data/prepared" / shown["dataset"]),
            collected=job.root / "results/collect" / shown["name"],
            figures=job.root / "reports/figures" / shown["name"],
        )
        for shown in job.params["studies"]
    ]
    write_report(studies, job.output("index.html"))
    write_metrics(studies, job.output("metrics.json"))
