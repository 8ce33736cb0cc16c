"""The accuracy against the budget: what one attack leaves of it as epsilon grows."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from advtrain.reporting.columns import estimate_columns
from advtrain.reporting.measure import Evaluated, Unit, clean_runs, robust_runs
from advtrain.reporting.statistics import Estimate, estimate
from advtrain.reporting.study import StudyInfo


@dataclass(frozen=True)
class CurvePoint:
    """One point of the curve.

    Attributes:
        unit: the cells that the point is about.
        norm: of the budget; None in a row without numbers.
        epsilon: the budget, 0 for clean images; None in a row without numbers.
        weights: which weights were attacked.
        accuracy: at the points that the attack returned; None in a row without numbers.
        causes: why cells of it have no numbers.
    """

    unit: Unit
    norm: str | None
    epsilon: float | None
    weights: str
    accuracy: Estimate | None
    causes: tuple[str, ...]

    @property
    def shown(self) -> bool:
        """The point is of the weights that a reader is shown: the last, where attacked."""
        return self.weights == self.unit.weights[0]


def curve_points(units: Sequence[Unit], info: StudyInfo) -> list[CurvePoint]:
    """Compute the points: every budget at which the curve's attack was run, and clean images at 0.

    Args:
        units: the study's cells, grouped.
        info: the study; without a curve's attack there are no points.

    Returns:
        In the order of the units, then by budget. A unit without numbers has one row.
    """
    points: list[CurvePoint] = []
    for unit in units if info["curve_attack"] else ():
        causes = tuple(
            dict.fromkeys(f"{one.state}: {one.cause}" for one in unit.absent if not one.certificate)
        )
        before = len(points)
        for weights in unit.weights:
            found: dict[tuple[str, float], list[Evaluated]] = {}
            clean: dict[str, list[Evaluated]] = {}
            for cell in unit.cells:
                made = [
                    one
                    for one in cell.evaluations
                    if one.attack == info["curve_attack"] and one.weights == weights
                    if one.epsilon is not None
                ]
                for one in made:
                    found.setdefault((one.norm, one.epsilon or 0.0), []).append(one)
                for norm in {one.norm for one in made}:
                    clean.setdefault(norm, []).append(next(e for e in made if e.norm == norm))
            for norm, seeds in sorted(clean.items()):
                accuracy = estimate(clean_runs(seeds))
                points.append(CurvePoint(unit, norm, 0.0, weights, accuracy, causes))
                for (other, epsilon), attacked in sorted(found.items(), key=lambda item: item[0]):
                    if other == norm and epsilon > 0:
                        accuracy = estimate(robust_runs(attacked))
                        points.append(CurvePoint(unit, norm, epsilon, weights, accuracy, causes))
        if len(points) == before:
            points.append(CurvePoint(unit, None, None, unit.weights[0], None, causes))
    return points


def curve_data(points: Sequence[CurvePoint], attack: str | None) -> pa.Table:
    """Write the points as columns."""
    estimates = [point.accuracy for point in points]
    columns = {
        "method": pa.array([point.unit.method for point in points], pa.string()),
        "training_epsilon": pa.array([point.unit.epsilon for point in points], pa.float64()),
        "attack": pa.array([attack for _ in points], pa.string()),
        "norm": pa.array([point.norm for point in points], pa.string()),
        "epsilon": pa.array([point.epsilon for point in points], pa.float64()),
        "weights": pa.array([point.weights for point in points], pa.string()),
    }
    columns |= estimate_columns("accuracy", estimates)
    columns["examples"] = pa.array([e.examples if e else None for e in estimates], pa.int64())
    columns["seeds"] = pa.array([e.seeds if e else 0 for e in estimates], pa.int64())
    columns["seeds_planned"] = pa.array([len(p.unit.seeds) for p in points], pa.int64())
    columns["flags"] = pa.array([list(point.causes) for point in points], pa.list_(pa.string()))
    return pa.table(columns)
