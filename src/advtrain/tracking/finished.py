"""Finished results read from their folders: a manifest, a timing, and the numbers."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from advtrain.graph.timings import as_metrics, peak_memory
from advtrain.results.certified import read_certified
from advtrain.results.history import read_history
from advtrain.results.outcomes import read_outcomes, table_stamps
from advtrain.tracking.sources import Finished
from advtrain.tracking.tracker import Metric

# Columns of a history that say where a row stands, not what was measured.
POSITION = ("epoch", "time")

PLACES = 6

# `seconds` is the whole training's.
CURVES = {"seconds": "epoch_seconds"}


@dataclass(frozen=True)
class Result:
    """A finished training or evaluation.

    Attributes:
        metrics: curves, and numbers of the whole run at step 0.
        checkpoints: the hash of the weights that were made, or attacked, by name.
        state: `finished`, or `collapsed` or `stopped` with a cause.
    """

    manifest: Mapping[str, Any]
    timing: Mapping[str, Any]
    metrics: tuple[Metric, ...]
    checkpoints: Mapping[str, str]
    state: str = "finished"
    cause: str = ""

    @property
    def key(self) -> str:
        """The content key."""
        return str(self.manifest["key"])

    @property
    def name(self) -> str:
        """The cell, or the evaluation."""
        return str(self.manifest["name"]).rpartition("/")[2]

    @property
    def trained(self) -> str:
        """The key of the training that an evaluation judges; empty for a training."""
        inputs = self.manifest["inputs"] if self.manifest["stage"] != "train" else {}
        return next((str(inputs[one]["key"]) for one in inputs if one.startswith("train:")), "")


def training(found: Finished) -> Result:
    """Read a finished training: its history and summary.

    Raises:
        FileNotFoundError: if a file is not there (yet).
        ValueError, KeyError, TypeError: if one is damaged.
    """
    manifest, timing = read_object(found.manifest), read_object(found.folder / "timing.json")
    summary = read_object(found.folder / "summary.json")
    rows = read_history(found.folder / "history.parquet")
    clock = {entry["epoch"]: entry for entry in timing["epochs"]}
    metrics = curves(
        {"time": timing["finished"], **row, **clock.get(row["epoch"], {})} for row in rows
    )
    # A total that is also a curve is that curve's last value already.
    known = {metric.name for metric in metrics}
    totals = {name: value for name, value in summary.items() if name not in known}
    return Result(
        manifest,
        timing,
        (*metrics, *numbers({**totals, "seconds": timing["seconds"]}, timing["finished"])),
        {
            Path(path).stem: facts["sha256"]
            for path, facts in manifest["outputs"].items()
            if path.endswith(".safetensors")
        },
        str(summary["status"]),
        str(summary.get("cause") or ""),
    )


def evaluation(found: Finished) -> Result:
    """Read a finished attack or certificate: its rows, one per example.

    Raises:
        FileNotFoundError: if a file is not there (yet).
        ValueError, KeyError, TypeError: if one is damaged.
    """
    manifest, timing = read_object(found.manifest), read_object(found.folder / "timing.json")
    if manifest["stage"] == "certify":
        path = found.folder / "certified.parquet"
        rows = read_certified(path)
        measured = _certified(rows)
    else:
        path = found.folder / "outcomes.parquet"
        rows = read_outcomes(path)
        measured = {
            "clean_accuracy": pc.equal(rows["clean_prediction"], rows["label"]),
            "robust_accuracy": pc.equal(rows["adversarial_prediction"], rows["label"]),
        }
    measured |= {"mean_forward_passes": rows["forward"], "mean_backward_passes": rows["backward"]}
    values = {name: rounded(pc.mean(column).as_py()) for name, column in measured.items()}
    metrics = numbers({**values, **_spent(timing, len(rows))}, timing["finished"])
    weights = {str(manifest["params"]["weights"]): table_stamps(rows, path)["checkpoint"]}
    return Result(manifest, timing, metrics, weights)


def _spent(timing: Mapping[str, Any], examples: int) -> dict[str, float | None]:
    """Return what an evaluation took; its seconds include the loading of weights and data."""
    seconds = timing["seconds"]
    return {
        "seconds": seconds,
        "time/examples_per_second": examples / seconds if seconds else None,
        "memory/peak_bytes": peak_memory(timing),
    }


def _certified(rows: pa.Table) -> dict[str, pa.ChunkedArray]:
    """Return what counts of each example: at the budget, or (without one) at any radius."""
    correct = pc.equal(rows["prediction"], rows["label"])
    reached = pc.greater_equal(rows["radius"], pc.fill_null(rows["epsilon"], 0.0))
    return {
        "certified_accuracy": pc.and_(correct, reached),
        # The area below the curve of certified accuracy over the radius.
        "mean_certified_radius": pc.if_else(correct, rows["radius"], 0.0),
    }


def curves(rows: Iterable[Mapping[str, Any]]) -> tuple[Metric, ...]:
    """Turn a history into curves over the epochs.

    Args:
        rows: one per epoch with `epoch`, `time` (Unix seconds), `seconds` (that it took), the
            metrics, and `measured` (seconds of its sections, memory) where a device was watched;
            of two rows of one epoch the later counts.
    """
    by_epoch = {int(row["epoch"]): dict(row) for row in rows}
    return tuple(
        Metric(CURVES.get(name, name), float(value), epoch, float(row["time"]))
        for epoch, row in sorted(by_epoch.items())
        for name, value in (row | as_metrics(row.get("measured"))).items()
        if name not in POSITION and _is_number(value)
    )


def numbers(values: Mapping[str, Any], time: float) -> tuple[Metric, ...]:
    """Turn numbers of a whole run into metrics; what is no number is left out."""
    return tuple(
        Metric(name, float(value), 0, float(time))
        for name, value in values.items()
        if _is_number(value)
    )


def rounded(value: float) -> float:
    """Round a mean as the metrics of the report are, so that a column of them can be read."""
    return round(value, PLACES)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def read_object(path: Path) -> dict[str, Any]:
    """Read a file of one JSON object.

    Raises:
        FileNotFoundError: if it is not there (yet).
        ValueError: if it is damaged, or holds something else.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} holds {type(content).__name__}, not an object")
    return content
