"""The page, the paper, and what DVC shows: the metrics and the plots of all studies of the run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from advtrain.graph.references import study_of
from advtrain.reporting.html import write_report
from advtrain.reporting.metrics import write_metrics
from advtrain.reporting.paper import write_paper
from advtrain.reporting.plots import write_plots
from advtrain.reporting.study_report import ReferenceRun, StudyReport
from pipeline.study_info import study_info

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from pipeline.job import Job


def run(job: Job) -> None:
    """Write `index.html`, `paper.tex` with its numbers, `metrics.json` and the plots.

    The page shows the reference runs of other studies too, the rest does not.
    """
    here = [_report(job, shown) for shown in job.params["studies"]]
    ran = {shown["name"] for shown in job.params["studies"]}
    elsewhere = [
        _report(job, shown)
        for shown in job.params["references"]
        if study_of(shown["name"]) not in ran
    ]
    write_report([*here, *elsewhere], job.output("index.html"))
    write_paper(here, job.output_folder())
    write_metrics(here, job.output("metrics.json"))
    write_plots(here, job.output_folder() / "plots")


def _report(job: Job, shown: Mapping[str, Any]) -> StudyReport:
    name = shown["name"]
    return StudyReport(
        info=study_info(shown, job.root),
        collected=job.root / "results/collect" / name,
        figures=job.root / "reports/figures" / name,
        reference=shown.get("reference"),
        beside=tuple(
            ReferenceRun(
                name=one["name"],
                words=one["reference"],
                environment=one["environment"],
                collected=job.root / "results/collect" / one["name"],
            )
            for one in job.params["references"]
            if study_of(one["name"]) == name
        ),
    )
