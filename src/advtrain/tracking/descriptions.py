"""What a run says of itself in words: where its lineage stands, and how to make it again."""

from advtrain.reporting.study import StudyInfo


def of_result(stage: str, study: str, cell: str, name: str, status: str, cause: str) -> str:
    """Describe a training or an evaluation, in Markdown.

    Args:
        stage: `train`, `attack` or `certify`.
        study: its study.
        cell: the cell that it is of.
        name: the evaluation; for a training, the cell.
        status: how it went.
        cause: why, where it did not go well.
    """
    place = f"{study}/{cell}" if stage == "train" else f"{study}/{cell}/{name}"
    lines = [
        f"**{status}**: {cause}" if cause else f"**{status}**",
        f"- lineage of the cell, in the report: `reports/index.html#lineage-{study}-{cell}`",
        f"- recompute: `snakemake --cores all -- .pipeline/fresh/{stage}/{place}` "
        "(with `--force` also if nothing has changed)",
        f"- files: `results/{stage}/{place}`",
    ]
    if stage == "train":
        lines.append(f"- weights: `checkpoints/{place}`")
    return "\n".join((lines[0], "", *lines[1:]))


def of_study(info: StudyInfo) -> str:
    """Describe a study's summary, in Markdown."""
    name = info["name"]
    return "\n".join(
        (
            info["description"] or info["title"],
            "",
            "- the study's tables, figures and report: this run's artifacts",
            "- the runs that they are made of: the view `results` of the experiment",
            f"- on disk: `reports/index.html#study-{name}`, `reports/tables/{name}`, "
            f"`reports/figures/{name}`",
            "- recompute: `snakemake --cores all`",
        )
    )
