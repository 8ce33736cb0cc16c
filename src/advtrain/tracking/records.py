"""From the files of a cell to what its runs are."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from advtrain.results.names import parse_cell, parse_evaluation
from advtrain.tracking import descriptions, finished, unfinished
from advtrain.tracking.columns import Columns
from advtrain.tracking.finished import Result
from advtrain.tracking.ledger import Shown
from advtrain.tracking.params import flatten
from advtrain.tracking.sources import Cell, Finished
from advtrain.tracking.tracker import DatasetRead, Metric, RunRecord, Status

STATUS: dict[str, Status] = {"running": "RUNNING", "failed": "FAILED", "killed": "KILLED"}

DAMAGE = (OSError, ValueError, KeyError, TypeError, AttributeError)


@dataclass
class Contents:
    """What the files of a cell say.

    Attributes:
        records: its runs, trainings first.
        troubles: what could not be read and the likely mend, one line each.
        settled: False while there may be more to say without any file changing: a job runs, or
            a result lacks a file.
        waiting: identities of the runs whose job is done and whose result is not there yet.
    """

    records: list[RunRecord] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)
    settled: bool = True
    waiting: set[str] = field(default_factory=set)


def read(root: Path, cell: Cell, columns: Columns | None = None) -> Contents:
    """Read the runs of a cell.

    Args:
        root: the repository's top folder.
        cell: where its files lie.
        columns: what the study's tables say of it, if there are any.
    """
    contents = Contents()
    trainings = _results(root, cell.trained, finished.training, contents)
    evaluations = _results(root, cell.evaluated, finished.evaluation, contents)
    contents.records += [
        _trained(cell, one, evaluations.values(), columns) for one in trainings.values()
    ]
    evaluated = [_evaluated(cell, one) for one in evaluations.values()]
    open_jobs = _open_jobs(root, cell, trainings, evaluations, contents)
    contents.records += [record for record in open_jobs if not record.parent]
    contents.records += evaluated
    contents.records += [record for record in open_jobs if record.parent]
    contents.settled &= all(record.status != "RUNNING" for record in contents.records)
    return contents


def vanished(running: Shown) -> RunRecord:
    """Describe a run that was shown as running and that no file speaks of any more.

    Args:
        running: what the ledger noted of it.
    """
    tags = _tags(stage=running.stage, cell=running.cell, status="killed")
    return RunRecord(
        study=running.study,
        name=running.name,
        key=running.key,
        parent=running.parent,
        status="KILLED",
        tags=tags,
    )


def _results(
    root: Path,
    places: Iterable[Finished],
    read: Callable[[Finished], Result],
    contents: Contents,
) -> dict[str, Result]:
    """Read finished results by key; what `results/` shows comes before the store."""
    found: dict[str, Result] = {}
    for place in places:
        try:
            result = read(place)
            found.setdefault(result.key, result)
        except FileNotFoundError:
            # Snakemake removes a job's old files before the job replaces the old manifest.
            contents.settled = False
        except DAMAGE as error:
            contents.troubles.append(trouble(root, place.folder, error))
    return found


def _open_jobs(
    root: Path,
    cell: Cell,
    trainings: Mapping[str, Result],
    evaluations: Mapping[str, Result],
    contents: Contents,
) -> list[RunRecord]:
    records = []
    for path in cell.progress:
        try:
            job = unfinished.progress(path)
            if job["key"] in (trainings if job["stage"] == "train" else evaluations):
                continue
            if job["state"] == "done":
                contents.waiting.add(f"{cell.study}/{job['key']}")
            else:
                records.append(_open_job(cell, job, next(iter(trainings), "")))
        except FileNotFoundError:
            contents.settled = False
        except DAMAGE as error:
            contents.troubles.append(trouble(root, path, error))
    return records


def _trained(
    cell: Cell, result: Result, evaluations: Collection[Result], tables: Columns | None
) -> RunRecord:
    """Describe a finished training, with a column per evaluation and those of the tables."""
    columns: dict[str, Metric] = {}
    latest = result.timing["finished"]
    for evaluation in evaluations:
        if evaluation.trained == result.key:
            latest = max(latest, evaluation.timing["finished"])
            for metric in evaluation.metrics:
                if metric.name in ("robust_accuracy", "certified_accuracy"):
                    name = f"{metric.name}/{_column(cell.cell, evaluation.name)}"
                    columns.setdefault(name, replace(metric, name=name))
    if tables and tables.key == result.key:
        for metric in finished.numbers(tables.values, latest):
            columns.setdefault(metric.name, metric)
    record = _finished(cell, "train", result)
    tags = _tags(
        checkpoint_hash=result.checkpoints["last"], best_checkpoint_hash=result.checkpoints["best"]
    )
    metrics = (*record.metrics, *columns.values())
    return replace(record, tags={**record.tags, **tags}, metrics=metrics)


def _column(cell: str, evaluation: str) -> str:
    """Name an evaluation among a cell's columns: at the cell's own budget, the attack alone.

    So the cells of two budgets have their numbers in one column, `pgd_20` (of the best weights
    `pgd_20-best`), and `pgd_20-linf-0.1` is at a budget that the cell was not trained at. What has
    no budget (`rotations-spatial`, `smoothing_025-l2`) needs none in its name.
    """
    trained, met = parse_cell(cell), parse_evaluation(evaluation)
    if met.epsilon is not None and (met.norm, met.epsilon) != (trained.norm, trained.epsilon):
        return evaluation
    return met.attack if met.weights == "last" else f"{met.attack}-{met.weights}"


def _evaluated(cell: Cell, result: Result) -> RunRecord:
    record = _finished(cell, str(result.manifest["stage"]), result)
    (checkpoint,) = result.checkpoints.values()
    tags = _tags(checkpoint_hash=checkpoint, evaluation=result.name, train_key=result.trained)
    return replace(record, parent=result.trained, tags={**record.tags, **tags})


def _finished(cell: Cell, stage: str, result: Result) -> RunRecord:
    manifest, timing = result.manifest, result.timing
    dataset = _dataset(manifest["inputs"], "train" if stage == "train" else "test")
    return RunRecord(
        study=cell.study,
        name=result.name,
        key=result.key,
        status="FINISHED",
        started=timing["started"],
        finished=timing["finished"],
        description=descriptions.of_result(
            stage, cell.study, cell.cell, result.name, result.state, result.cause
        ),
        params=flatten(manifest["params"]),
        tags=_tags(
            stage=stage,
            key=result.key,
            study=cell.study,
            cell=cell.cell,
            status=result.state,
            cause=result.cause,
            data_hash=dataset.digest if dataset else "",
            code_digest=manifest["code_digest"],
            git_commit=timing.get("git_commit", ""),
        ),
        metrics=result.metrics,
        dataset=dataset,
    )


def _open_job(cell: Cell, job: Mapping[str, Any], current: str) -> RunRecord:
    """Describe a job that runs or has failed.

    Args:
        cell: where its files lie.
        job: its progress file.
        current: the key of the training that `results/` shows, which is what is evaluated.
    """
    evaluates, cause = job["stage"] != "train", str(job.get("cause") or "")
    key, name = str(job["key"]), str(job["name"]).rpartition("/")[2]
    return RunRecord(
        study=cell.study,
        name=name,
        key=key,
        parent=current if evaluates else "",
        status=STATUS[job["state"]],
        started=job["started"],
        finished=job["updated"] if job["state"] != "running" else None,
        description=descriptions.of_result(
            job["stage"], cell.study, cell.cell, name, job["state"], cause
        ),
        params=flatten(job.get("params") or {}),
        tags=_tags(
            stage=job["stage"],
            key=key,
            study=cell.study,
            cell=cell.cell,
            status=job["state"],
            cause=cause,
            evaluation=name if evaluates else "",
            train_key=current if evaluates else "",
        ),
        metrics=() if evaluates else unfinished.live_curves(cell.live, cell.cell, key),
    )


def _tags(**values: str) -> dict[str, str]:
    return {f"advtrain.{name}": str(value) for name, value in values.items() if value}


def _dataset(inputs: Mapping[str, Any], context: str) -> DatasetRead | None:
    for name, facts in inputs.items():
        stage, _, dataset = name.partition(":")
        if stage == "prepare":
            return DatasetRead(dataset, f"data/prepared/{dataset}", str(facts["digest"]), context)
    return None


def trouble(root: Path, path: Path, error: Exception) -> str:
    """Say in one line what could not be read, and the likely mend."""
    reason, _, _ = f"{type(error).__name__}: {error}".partition("\n")
    return (
        f"{path.relative_to(root).as_posix()} cannot be read ({reason}); "
        "if it stays so, remove it and run the pipeline again"
    )
