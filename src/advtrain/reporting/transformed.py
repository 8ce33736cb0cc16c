"""Transformed images: rotations, translations, corruptions, which no norm bounds."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from advtrain.reporting.columns import estimate_columns
from advtrain.reporting.measure import Evaluated, Measured, Unit, clean_runs, robust_runs
from advtrain.reporting.statistics import Estimate, estimate


@dataclass(frozen=True)
class TransformedRow:
    """One unit under the transformations of a study.

    Attributes:
        unit: the cells that the row is about.
        cells: those with numbers.
        clean: accuracy on clean images.
        accuracy: by attack, on what it made of the images; None where it was not run.
    """

    unit: Unit
    cells: tuple[Measured, ...]
    clean: Estimate | None
    accuracy: dict[str, Estimate | None]


def transformed_rows(units: Sequence[Unit]) -> list[TransformedRow]:
    """Compute the accuracies on transformed images, of the weights that a reader is shown.

    Args:
        units: the study's cells, grouped.

    Returns:
        A row for each unit that met one; none if the study has no transformation.
    """
    rows = []
    names = transformations(units)
    for unit in units:
        found = [(cell, [e for e in cell.evaluations if e.epsilon is None]) for cell in unit.cells]
        made = [
            (cell, [e for e in evaluations if e.weights == unit.weights[0]])
            for cell, evaluations in found
        ]
        made = [(cell, evaluations) for cell, evaluations in made if evaluations]
        if made:
            rows.append(
                TransformedRow(
                    unit=unit,
                    cells=tuple(cell for cell, _ in made),
                    clean=estimate(clean_runs(_widest(evaluations) for _, evaluations in made)),
                    accuracy={
                        name: estimate(
                            robust_runs(
                                e
                                for _, evaluations in made
                                for e in evaluations
                                if e.attack == name
                            )
                        )
                        for name in names
                    },
                )
            )
    return rows


def _widest(evaluations: Sequence[Evaluated]) -> Evaluated:
    return max(evaluations, key=lambda one: len(one.example))


def transformations(units: Sequence[Unit]) -> tuple[str, ...]:
    """List the attacks without a budget that any cell met, in the order of appearance."""
    found = (e for unit in units for cell in unit.cells for e in cell.evaluations)
    return tuple(dict.fromkeys(e.attack for e in found if e.epsilon is None))


def transformed_data(rows: Sequence[TransformedRow]) -> pa.Table:
    """Write the rows as columns: accuracies are shares."""
    columns: dict[str, pa.Array] = {
        "method": pa.array([row.unit.method for row in rows], pa.string()),
        "training_norm": pa.array([row.unit.norm for row in rows], pa.string()),
        "training_epsilon": pa.array([row.unit.epsilon for row in rows], pa.float64()),
    }
    columns |= estimate_columns("clean_accuracy", [row.clean for row in rows])
    for name in rows[0].accuracy if rows else ():
        columns |= estimate_columns(f"{name}_accuracy", [row.accuracy[name] for row in rows])
    columns["seeds"] = pa.array([len(row.cells) for row in rows], pa.int64())
    return pa.table(columns)
