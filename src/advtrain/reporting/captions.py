"""What each figure shows, in words: the caption, and the same for those who do not see it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from advtrain.reporting import wording
from advtrain.reporting.certified import CertifiedRow
from advtrain.reporting.curve import CurvePoint, curve_points
from advtrain.reporting.examples import Gallery, gallery
from advtrain.reporting.measure import Measured, Unit, measure, units
from advtrain.reporting.results import ResultRow, result_rows
from advtrain.reporting.study import StudyInfo
from advtrain.results.collect import Collected

Line = tuple[tuple[int, float], ...]
"""Epochs with the accuracy at each."""


MARKED = ("collapsed", "catastrophic overfitting", "unsound")
"""The flags that a figure shows: such a row is not what its method can do."""

DAGGER = "†"

Budget = tuple[str, float]
"""The norm and the epsilon of an evaluation."""


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
class Caption:
    """A figure in words.

    Attributes:
        text: what it shows and how to read it.
        alt: the same with the main numbers.
        empty: there is nothing to draw; the figure is this text.
    """

    text: str
    alt: str
    empty: bool = False

    @classmethod
    def of_nothing(cls, text: str) -> "Caption":
        """Say why there is nothing to draw."""
        return cls(text, text, empty=True)


@dataclass(frozen=True)
class Shown:
    """A study, as its figures take from it what they show; what several need is computed once.

    Attributes:
        collected: the study's rows.
        info: the study in words.
        units: its cells, grouped.
    """

    collected: Collected
    info: StudyInfo
    units: tuple[Unit, ...]

    @cached_property
    def results(self) -> tuple[ResultRow, ...]:
        """The rows of the results."""
        return tuple(result_rows(self.units, self.info))

    @cached_property
    def rows(self) -> tuple[ResultRow, ...]:
        """Those at the training budget, and natural training's at each; of the shown weights."""
        return tuple(
            row for row in self.results if row.own_budget and row.shown and row.clean and row.worst
        )

    @cached_property
    def curves(self) -> tuple[tuple[Unit, tuple[CurvePoint, ...]], ...]:
        """One line of points per unit, of its first weights."""
        return _curves(curve_points(self.units, self.info))

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


def select(collected: Collected, info: StudyInfo, grouped: Sequence[Unit] | None = None) -> Shown:
    """Make a study ready for its figures.

    Args:
        collected: the study's rows.
        info: the study in words.
        grouped: its cells as `measure.units` groups them, where the caller has them already.
    """
    return Shown(
        collected, info, tuple(units(measure(collected), info) if grouped is None else grouped)
    )


def unit_text(unit: Unit) -> str:
    """Name a unit as a figure does: `trades, ε = 0.2`."""
    if unit.epsilon is None:
        return unit.method
    return f"{unit.method}, ε = {wording.budget(unit.epsilon)}"


def cell_text(unit: Unit, cell: Measured) -> str:
    """Name a unit of which one cell is shown, and say how that one ended if it did not finish."""
    return unit_text(unit) + ("" if cell.status == "finished" else f", {cell.status}")


def budget_text(budget: Budget) -> str:
    """Write a budget as the head of a panel: `linf, ε = 8/255`."""
    return f"{budget[0]}, ε = {wording.budget(budget[1])}"


def flag_words(rows: Iterable[ResultRow | CertifiedRow], mark: str = DAGGER) -> str:
    """Say what is wrong with the rows that a figure marks; nothing if it marks none."""
    said = [
        f"{unit_text(row.unit)}, at {wording.budget(row.epsilon)}: "
        f"{flag.words(wording.percent_words)}"
        for row in rows
        for flag in row.flags
        if flag.kind in MARKED
    ]
    return f" {mark} {'; '.join(dict.fromkeys(said))}." if said else ""


def flagged(row: ResultRow | CertifiedRow) -> bool:
    """Say whether a row carries a flag that a figure shows."""
    return any(flag.kind in MARKED for flag in row.flags)


def weights_words(shown: Shown) -> str:
    """Say which weights are shown, where the study has others too."""
    return " Shown are the weights of the last epoch." if shown.several_weights else ""


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
