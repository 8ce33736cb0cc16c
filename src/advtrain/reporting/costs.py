"""The costs: measured seconds and counted passes."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

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
    training: dict[str, float] = {}
    evaluations: dict[tuple[str, str], list[float | None]] = {}
    devices: dict[str, set[str]] = {}
    for row in costs.to_pylist():
        if row["stage"] != "train":
            evaluations.setdefault((row["stage"], row["cell"]), []).append(row["seconds"])
        elif row["seconds"] is not None:
            training[row["cell"]] = row["seconds"]
        if row["device"]:
            devices.setdefault(row["cell"], set()).add(row["device"])
    natural = [_training(unit, training)[0] for unit in units if unit.norm is None]
    reference = natural[0] if natural else None
    rows = []
    for unit in units:
        mean, spread, seeds = _training(unit, training)
        attack, certify = (
            _total([evaluations.get((stage, cell.cell), []) for cell in unit.cells])
            for stage in ("attack", "certify")
        )
        rows.append(
            CostRow(
                unit=unit,
                seeds=seeds,
                seconds=mean,
                spread=spread,
                ratio=mean / reference if mean is not None and reference else None,
                forward=mean_of_all([cell.forward for cell in unit.cells]),
                backward=mean_of_all([cell.backward for cell in unit.cells]),
                attack=attack,
                certify=certify,
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


def _training(unit: Unit, seconds: dict[str, float]) -> tuple[float | None, float | None, int]:
    known = [seconds[cell.cell] for cell in unit.cells if cell.cell in seconds]
    if not known:
        return None, None, 0
    return *mean_and_spread(known), len(known)
