"""A study's summary: a run with its tables, figures and report, and what they say of each cell."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from advtrain.reporting.measure import measure, units
from advtrain.reporting.study import StudyInfo
from advtrain.results.collect import read_collected
from advtrain.tracking import descriptions
from advtrain.tracking.columns import Columns, cell_columns, result_means
from advtrain.tracking.finished import read_object
from advtrain.tracking.sources import DEPTH
from advtrain.tracking.tracker import Artifact, Metric, RunRecord
from advtrain.tracking.views import experiment_tags


@dataclass(frozen=True)
class Summary:
    """A study's summary.

    Attributes:
        record: the run that shows it.
        columns: what its tables say of each cell, by the cell's name.
    """

    record: RunRecord
    columns: dict[str, Columns]


def read(root: Path, study: str) -> Summary:
    """Read the summary of a study.

    Args:
        root: the repository's top folder.
        study: one that has tables.

    Raises:
        FileNotFoundError: if the rows are not (yet) those that the tables are made of, or a file
            is not there (yet).
        ValueError, KeyError, TypeError: if one is damaged.
    """
    tables = read_object(root / f"reports/tables/{study}/manifest.json")
    rows = read_object(root / f"results/collect/{study}/manifest.json")
    if tables["inputs"][f"collect:{study}"]["key"] != rows["key"]:
        raise FileNotFoundError(f"the tables of {study} are not made of its rows")
    finished = _latest(root, study)
    info = cast(StudyInfo, {**tables["params"], "failures": []})
    grouped = units(measure(read_collected(root / f"results/collect/{study}")), info)
    columns = {
        cell: Columns(rows["inputs"][f"train:{study}/{cell}"]["key"], values)
        for cell, values in cell_columns(grouped, info).items()
    }
    return Summary(_record(root, info, tables, finished, columns), columns)


def _record(
    root: Path,
    info: StudyInfo,
    tables: Mapping[str, Any],
    finished: float,
    columns: Mapping[str, Columns],
) -> RunRecord:
    study, key = info["name"], str(tables["key"])
    results = root / f"reports/tables/{study}/results.parquet"
    return RunRecord(
        study=study,
        name=f"{study}: tables, figures, report",
        key=key,
        status="FINISHED",
        started=finished,
        finished=finished,
        description=descriptions.of_study(info),
        params=_params(tables["params"]),
        tags={
            "advtrain.stage": "summary",
            "advtrain.key": key,
            "advtrain.study": study,
            "advtrain.status": "finished",
            "advtrain.code_digest": str(tables["code_digest"]),
        },
        metrics=tuple(Metric(name, value, 0, finished) for name, value in result_means(results)),
        artifacts=tuple(_artifacts(root, study, tables)),
        experiment_tags=experiment_tags(
            info["description"] or info["title"],
            sorted({name for one in columns.values() for name in one.values}),
            info["attacks"],
        ),
    )


def _latest(root: Path, study: str) -> float:
    """Return when the last of a study's trainings and evaluations was finished, Unix seconds."""
    timings = [
        path
        for stage, depth in DEPTH.items()
        for path in (root / "results" / stage / study).glob("*/" * (depth - 1) + "timing.json")
    ]
    if not timings:
        raise FileNotFoundError(f"the trainings of {study} are not here")
    return max(float(read_object(path)["finished"]) for path in timings)


def _params(shown: Mapping[str, Any]) -> dict[str, str]:
    """Return what sets a study apart from others."""
    return {
        "dataset": shown["dataset"],
        "model": shown["model"],
        "norm": shown["norm"],
        "epsilons": ", ".join(one["text"] for one in shown["epsilons"]),
        "methods": ", ".join(shown["methods"]),
        "attacks": ", ".join(shown["attacks"]),
        "certificates": ", ".join(shown["certificates"]),
    }


def _artifacts(root: Path, study: str, tables: Mapping[str, Any]) -> Iterator[Artifact]:
    """Yield the files of the tables, and of the figures and the report of the same results."""
    rows = f"collect:{study}"
    figures = root / f"reports/figures/{study}/manifest.json"
    yield from _files(root, tables)
    yield from _files(root, _made_from(figures, rows, tables["inputs"][rows]["key"]))
    yield from _files(
        root, _made_from(root / "reports/manifest.json", f"tables:{study}", tables["key"])
    )


def _made_from(path: Path, name: str, key: str) -> Mapping[str, Any]:
    """Return a manifest, if what it describes was made from an input of that name and key."""
    manifest = read_object(path) if path.exists() else {"inputs": {}}
    made = manifest["inputs"].get(name, {}).get("key") == key
    return manifest if made else {"outputs": {}, "volatile": []}


def _files(root: Path, manifest: Mapping[str, Any]) -> Iterator[Artifact]:
    """Yield the files of a manifest, named as below `reports`."""
    described = {path: str(facts["sha256"]) for path, facts in manifest["outputs"].items()}
    for path, digest in {**described, **dict.fromkeys(manifest["volatile"], "")}.items():
        yield Artifact(Path(path).relative_to("reports").as_posix(), digest, root / path)
