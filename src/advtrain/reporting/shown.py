"""A study as its tables, figures and pages take it: what several of them need is computed once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa

from advtrain.reporting.audits import AuditRow, audit_rows
from advtrain.reporting.certified import CertifiedRow, certified_rows
from advtrain.reporting.costs import CostRow, cost_rows
from advtrain.reporting.curve import CurvePoint, curve_points
from advtrain.reporting.examples import Gallery, gallery
from advtrain.reporting.measure import Unit, measure, units
from advtrain.reporting.results import ResultRow, result_rows
from advtrain.reporting.study import StudyInfo
from advtrain.results.collect import Collected
from advtrain.results.schema import ADVERSARIAL, CELLS, CERTIFIED, COSTS, OUTCOMES, PROBES

Line = tuple[tuple[int, float], ...]
"""Epochs with the accuracy at each."""


@dataclass(frozen=True)
class Course:
    """The validation accuracies of one cell by epoch."""

    seed: int
    clean: Line
    robust: Line
    best_epoch: int | None

    @property
    def best(self) -> tuple[int, float] | None:
        """The epoch whose weights were kept as the best, with what it was chosen by."""
        found = dict(self.robust or self.clean).get(self.best_epoch or 0)
        return None if self.best_epoch is None or found is None else (self.best_epoch, found)

    @property
    def last(self) -> tuple[int, float] | None:
        """The last epoch, with its value of what the best was chosen by."""
        line = self.robust or self.clean
        return line[-1] if line else None


@dataclass(frozen=True)
class Shown:
    """A study, and the rows of its tables that a figure or another table shows, too.

    Attributes:
        collected: the study's rows.
        info: the study in words.
        units: its cells, grouped.
    """

    collected: Collected
    info: StudyInfo
    units: tuple[Unit, ...]

    @cached_property
    def results(self) -> list[ResultRow]:
        """The rows of the results."""
        return result_rows(self.units, self.info)

    @cached_property
    def rows(self) -> tuple[ResultRow, ...]:
        """Those at the training budget, and natural training's at each; of the shown weights."""
        return tuple(
            row for row in self.results if row.own_budget and row.shown and row.clean and row.worst
        )

    @cached_property
    def audits(self) -> list[AuditRow]:
        """What the audits found of each cell."""
        return audit_rows(self.units, self.info)

    @cached_property
    def certified(self) -> list[CertifiedRow]:
        """The certified accuracies."""
        return certified_rows(self.units, self.info)

    @cached_property
    def costs(self) -> list[CostRow]:
        """What each unit cost."""
        return cost_rows(self.units, self.collected.costs)

    @cached_property
    def points(self) -> list[CurvePoint]:
        """The accuracies against the budget."""
        return curve_points(self.units, self.info)

    @cached_property
    def curves(self) -> tuple[tuple[Unit, tuple[CurvePoint, ...]], ...]:
        """One line of points per unit, of its first weights."""
        return _curves(self.points)

    @cached_property
    def courses(self) -> tuple[tuple[Unit, tuple[Course, ...]], ...]:
        """The trainings of each unit that recorded their validation."""
        return _courses(self.collected, self.units)

    @cached_property
    def gallery(self) -> Gallery | None:
        """Attacked images; None if none were kept."""
        return gallery(self.collected, self.units, self.info)

    @property
    def several_weights(self) -> bool:
        """The study has results for other weights too, which are not drawn."""
        return any(len(unit.weights) > 1 for unit in self.units)


def select(collected: Collected, info: StudyInfo) -> Shown:
    """Make a study ready for its tables and figures.

    Args:
        collected: the study's rows.
        info: the study in words.
    """
    return Shown(collected, info, tuple(units(measure(collected), info)))


def nothing_collected() -> Collected:
    """Stand in for a study of which nothing was collected."""
    return Collected(
        outcomes=OUTCOMES.empty_table(),
        cells=CELLS.empty_table(),
        histories=pa.table({"cell": pa.array([], pa.string())}),
        costs=COSTS.empty_table(),
        certified=CERTIFIED.empty_table(),
        probes=PROBES.empty_table(),
        adversarial=ADVERSARIAL.empty_table(),
    )


def _curves(points: Sequence[CurvePoint]) -> tuple[tuple[Unit, tuple[CurvePoint, ...]], ...]:
    lines: dict[str, list[CurvePoint]] = {}
    for point in points:
        line = lines.setdefault(point.unit.name, [])
        same = not line or (line[0].norm, line[0].weights) == (point.norm, point.weights)
        if point.accuracy and same:
            line.append(point)
    return tuple((line[0].unit, tuple(line)) for line in lines.values() if line)


def _courses(
    collected: Collected, grouped: Sequence[Unit]
) -> tuple[tuple[Unit, tuple[Course, ...]], ...]:
    histories: dict[str, list[dict[str, Any]]] = {}
    for row in collected.histories.to_pylist():
        histories.setdefault(row["cell"], []).append(row)
    best = {row["cell"]: row["best_epoch"] for row in collected.cells.to_pylist()}
    found = []
    for unit in grouped:
        courses = tuple(
            Course(
                seed=cell.name.seed,
                clean=_line(histories.get(cell.cell, []), "validation_clean_accuracy"),
                robust=_line(histories.get(cell.cell, []), "validation_robust_accuracy"),
                best_epoch=best.get(cell.cell),
            )
            for cell in unit.cells
        )
        if any(course.clean or course.robust for course in courses):
            found.append((unit, courses))
    return tuple(found)


def _line(rows: Sequence[Mapping[str, Any]], name: str) -> Line:
    return tuple((row["epoch"], row[name]) for row in rows if row.get(name) is not None)
