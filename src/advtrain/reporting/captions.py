"""What each figure shows, in words: the caption, and the same for those who do not see it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from advtrain.reporting import wording
from advtrain.reporting.curve import CurvePoint, curve_points
from advtrain.reporting.examples import Gallery, gallery
from advtrain.reporting.measure import Unit, measure, units
from advtrain.reporting.results import ResultRow, result_rows
from advtrain.reporting.study import StudyInfo
from advtrain.results.collect import Collected

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


@dataclass(frozen=True)
class Shown:
    """What a study's figures are drawn from.

    Attributes:
        curves: one line of points per unit, of its first weights.
        courses: the trainings of each unit that recorded their validation.
        rows: results at the training budget, and natural training's at each budget.
        several_weights: the study has results for other weights too, which are not drawn.
        gallery: attacked images; None if none were kept.
    """

    curves: tuple[tuple[Unit, tuple[CurvePoint, ...]], ...]
    courses: tuple[tuple[Unit, tuple[Course, ...]], ...]
    rows: tuple[ResultRow, ...]
    several_weights: bool
    gallery: Gallery | None


@dataclass(frozen=True)
class Caption:
    """A figure in words.

    Attributes:
        name: the file's name without its ending.
        text: what it shows and how to read it.
        alt: the same with the main numbers.
        empty: there is nothing to draw; the figure is this text.
    """

    name: str
    text: str
    alt: str
    empty: bool


def select(collected: Collected, info: StudyInfo) -> Shown:
    """Choose what the figures show."""
    grouped = units(measure(collected), info)
    return Shown(
        curves=_curves(curve_points(grouped, info)),
        courses=_courses(collected, grouped),
        rows=_own_budget(result_rows(grouped, info)),
        several_weights=any(len(unit.weights) > 1 for unit in grouped),
        gallery=gallery(collected, grouped, info),
    )


def captions(shown: Shown, info: StudyInfo) -> tuple[Caption, ...]:
    """Write the captions of the figures, in the order of the page."""
    return (
        _accuracy_epsilon(shown, info),
        _training_curves(shown),
        _trade_off(shown),
        _adversarial_examples(shown),
    )


def unit_text(unit: Unit) -> str:
    """Name a unit as a figure does: `trades, ε = 0.2`."""
    if unit.epsilon is None:
        return unit.method
    return f"{unit.method}, ε = {wording.budget(unit.epsilon)}"


def _accuracy_epsilon(shown: Shown, info: StudyInfo) -> Caption:
    attack = info["curve_attack"]
    if not shown.curves:
        text = "This study has no attack for the accuracy against the budget."
        if attack:
            text = f"No cell of this study has been attacked by {attack}."
        return Caption("accuracy_epsilon", text, text, empty=True)
    described = []
    for unit, points in shown.curves:
        values = [
            f"{wording.percent_words(point.accuracy.mean)} at {wording.budget(point.epsilon)}"
            for point in points
            if point.accuracy
        ]
        described.append(f"{unit_text(unit)}: {', '.join(values)}.")
    return Caption(
        "accuracy_epsilon",
        f"Accuracy under {attack} against its budget ε, one panel per training budget (the upright "
        f"line); at ε = 0, on clean images. Methods that train without a budget are repeated in "
        f"each panel. Means over seeds, bars are 95 % Wilson intervals." + _weights(shown),
        f"Line charts of accuracy against ε. {' '.join(described)}",
        empty=False,
    )


def _training_curves(shown: Shown) -> Caption:
    if not shown.courses:
        text = "No training of this study recorded its validation accuracy."
        return Caption("training_curves", text, text, empty=True)
    described = []
    for unit, courses in shown.courses:
        ends = []
        for name, lines in (
            ("clean", [course.clean for course in courses]),
            ("under attack", [course.robust for course in courses]),
        ):
            last = [line[-1][1] for line in lines if line]
            if last:
                ends.append(f"{name} {wording.percent_words(sum(last) / len(last))}")
        described.append(f"{unit_text(unit)}, at the end: {', '.join(ends)}.")
    return Caption(
        "training_curves",
        "Validation accuracy by epoch, on clean images (solid) and under the validation's attack "
        "at the training budget (dashed), one line per seed. A ring marks the epoch whose weights "
        "were kept as the best.",
        f"Line charts, one per method and training budget. {' '.join(described)}",
        empty=False,
    )


def _trade_off(shown: Shown) -> Caption:
    if not shown.rows:
        text = "No cell of this study has both a clean and a worst-case accuracy."
        return Caption("trade_off", text, text, empty=True)
    described = [
        f"{unit_text(row.unit)}, attacked at {wording.budget(row.epsilon)}: clean "
        f"{wording.percent_words(row.clean.mean)}, worst case "
        f"{wording.percent_words(row.worst.mean)}."
        for row in shown.rows
        if row.clean and row.worst
    ]
    return Caption(
        "trade_off",
        "Accuracy on clean images against accuracy in the worst case over all attacks, at the "
        "budget of the panel. Models are trained at that budget, or without one (grey). Means over "
        "seeds, bars are 95 % Wilson intervals; up and to the right is better." + _weights(shown),
        f"Scatter charts, one per budget. {' '.join(described)}",
        empty=False,
    )


def _adversarial_examples(shown: Shown) -> Caption:
    found = shown.gallery
    if found is None:
        text = "This study keeps no attacked images of the last weights (keep_adversarial)."
        return Caption("adversarial_examples", text, text, empty=True)
    budget = "" if found.budget is None else f", trained at ε = {wording.budget(found.budget)}"
    some = f" Shown are the study's first {len(found.rows)} methods of {found.methods}."
    pixels = f" Of each image, one pixel in {found.stride} is drawn in each direction."
    described = [
        f"{unit_text(unit)}: "
        + ", ".join(f"{one.label} → {one.said} ({one.verdict})" for one in row)
        + "."
        for unit, row in found.rows
    ]
    return Caption(
        "adversarial_examples",
        f"Test images under {found.attack_text}, one row per method{budget}"
        f"{' or without a budget' if budget else ''}: the image, the attacked image, and "
        f"their difference, times {found.magnification:.3g}, on a scale that is symmetric about "
        f"grey (no change). Below, the label → what the model says of the attacked image. A blue "
        f"frame and ✓: still right; a thick orange frame and ✗: fooled; a dotted grey frame: wrong "
        f"without the attack already. The images are the first of the test split that most cells "
        f"of the study classify right without an attack; what the attack does to them played no "
        f"part in the choice. Shown is each method's lowest seed."
        + _weights(shown)
        + (some if found.methods > len(found.rows) else "")
        + (pixels if found.stride > 1 else ""),
        f"Rows of small images under {found.attack_text}. {' '.join(described)}",
        empty=False,
    )


def _weights(shown: Shown) -> str:
    return " Shown are the weights of the last epoch." if shown.several_weights else ""


def _curves(points: Sequence[CurvePoint]) -> tuple[tuple[Unit, tuple[CurvePoint, ...]], ...]:
    lines: dict[str, list[CurvePoint]] = {}
    for point in points:
        line = lines.setdefault(point.unit.name, [])
        same = not line or (line[0].norm, line[0].weights) == (point.norm, point.weights)
        if point.accuracy and same:
            line.append(point)
    return tuple((line[0].unit, tuple(line)) for line in lines.values() if line)


def _own_budget(rows: Sequence[ResultRow]) -> tuple[ResultRow, ...]:
    kept: dict[tuple[str, str | None, float | None], ResultRow] = {}
    for row in rows:
        if row.own_budget and row.clean and row.worst:
            kept.setdefault((row.unit.name, row.norm, row.epsilon), row)
    return tuple(kept.values())


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
