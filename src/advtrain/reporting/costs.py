"""The costs: measured seconds and counted passes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from advtrain.graph.timings import SECTIONS
from advtrain.reporting.measure import Unit
from advtrain.reporting.statistics import mean_and_spread, mean_of_all


@dataclass(frozen=True)
class CostRow:
    """What one unit cost.

    Attributes:
        unit: the cells that the row is about.
        seeds: how many of them were timed.
        seconds: of training, the mean over seeds; None where no time was recorded.
        spread: its sample standard deviation; None for one seed.
        ratio: to the mean seconds of the first method without a budget (natural training); None
            without one.
        forward: forward passes of the whole training per training example.
        backward: backward passes likewise.
        attack: seconds of all attacks on a cell, the mean over seeds.
        certify: seconds of all certificates on a cell, the mean over seeds.
        shares: of the time in all sections of a training that each of `SECTIONS` took, the mean
            over seeds; None where it was not measured.
        images: rows trained on per second of training, the mean over seeds; None likewise.
        memory: the most bytes in use at once in a training, over seeds; None likewise.
        devices: where it was timed.
        causes: why cells of it have no times.
    """

    unit: Unit
    seeds: int
    seconds: float | None
    spread: float | None
    ratio: float | None
    forward: float | None
    backward: float | None
    attack: float | None
    certify: float | None
    shares: Mapping[str, float | None]
    images: float | None
    memory: int | None
    devices: tuple[str, ...]
    causes: tuple[str, ...]


def cost_rows(units: Sequence[Unit], costs: pa.Table) -> list[CostRow]:
    """Compute the rows of the costs table.

    Args:
        units: the study's cells, grouped.
        costs: the times, as collected.

    Returns:
        One row per unit, in their order.
    """
    training: dict[str, Mapping[str, Any]] = {}
    evaluations: dict[tuple[str, str], list[float | None]] = {}
    devices: dict[str, set[str]] = {}
    for row in costs.to_pylist():
        if row["stage"] != "train":
            evaluations.setdefault((row["stage"], row["cell"]), []).append(row["seconds"])
        elif row["seconds"] is not None:
            training[row["cell"]] = row
        if row["device"]:
            devices.setdefault(row["cell"], set()).add(row["device"])
    natural = [_seconds(_timed(unit, training))[0] for unit in units if unit.norm is None]
    reference = natural[0] if natural else None
    rows = []
    for unit in units:
        timed = _timed(unit, training)
        mean, spread = _seconds(timed)
        attack, certify = (
            _total([evaluations.get((stage, cell.cell), []) for cell in unit.cells])
            for stage in ("attack", "certify")
        )
        rows.append(
            CostRow(
                unit=unit,
                seeds=len(timed),
                seconds=mean,
                spread=spread,
                ratio=mean / reference if mean is not None and reference else None,
                forward=mean_of_all([cell.forward for cell in unit.cells]),
                backward=mean_of_all([cell.backward for cell in unit.cells]),
                attack=attack,
                certify=certify,
                shares={section: _mean(timed, f"{section}_share") for section in SECTIONS},
                images=_mean(timed, "images_per_second"),
                memory=max(_known(timed, "peak_memory_bytes"), default=None),
                devices=tuple(sorted({d for c in unit.cells for d in devices.get(c.cell, ())})),
                causes=tuple(
                    dict.fromkeys(f"{a.state}: {a.cause}" for a in unit.absent if a.of_the_cell)
                ),
            )
        )
    return rows


def costs_data(rows: Sequence[CostRow]) -> pa.Table:
    """Write the rows as columns."""
    return pa.table(
        {
            "method": pa.array([row.unit.method for row in rows], pa.string()),
            "training_norm": pa.array([row.unit.norm for row in rows], pa.string()),
            "training_epsilon": pa.array([row.unit.epsilon for row in rows], pa.float64()),
            "training_seconds": pa.array([row.seconds for row in rows], pa.float64()),
            "training_seconds_spread": pa.array([row.spread for row in rows], pa.float64()),
            "ratio_to_natural": pa.array([row.ratio for row in rows], pa.float64()),
            "forward_passes": pa.array([row.forward for row in rows], pa.float64()),
            "backward_passes": pa.array([row.backward for row in rows], pa.float64()),
            "attack_seconds": pa.array([row.attack for row in rows], pa.float64()),
            "certify_seconds": pa.array([row.certify for row in rows], pa.float64()),
            **{
                f"{section}_share": pa.array([row.shares[section] for row in rows], pa.float64())
                for section in SECTIONS
            },
            "images_per_second": pa.array([row.images for row in rows], pa.float64()),
            "peak_memory_bytes": pa.array([row.memory for row in rows], pa.int64()),
            "seeds": pa.array([row.seeds for row in rows], pa.int64()),
            "seeds_planned": pa.array([len(row.unit.seeds) for row in rows], pa.int64()),
            "devices": pa.array([list(row.devices) for row in rows], pa.list_(pa.string())),
            "flags": pa.array([list(row.causes) for row in rows], pa.list_(pa.string())),
        }
    )


def _total(seconds: Sequence[Sequence[float | None]]) -> float | None:
    """Add up the times of each cell's evaluations; one that was not timed leaves no total."""
    totals = [sum(s for s in one if s is not None) for one in seconds if one and None not in one]
    return mean_and_spread(totals)[0] if totals else None


def _timed(unit: Unit, training: Mapping[str, Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [training[cell.cell] for cell in unit.cells if cell.cell in training]


def _seconds(timed: Sequence[Mapping[str, Any]]) -> tuple[float | None, float | None]:
    return mean_and_spread(_known(timed, "seconds")) if timed else (None, None)


def _mean(timed: Sequence[Mapping[str, Any]], column: str) -> float | None:
    known = _known(timed, column)
    return mean_and_spread(known)[0] if known else None


def _known(timed: Sequence[Mapping[str, Any]], column: str) -> list[Any]:
    return [row[column] for row in timed if row[column] is not None]
