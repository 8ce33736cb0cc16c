"""Accuracy against epsilon: how each method gives way as the attack's budget grows."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from advtrain.reporting import wording
from advtrain.reporting.captions import Caption, flag_words, unit_text, weights_words
from advtrain.reporting.curve import CurvePoint
from advtrain.reporting.measure import Unit
from advtrain.reporting.panels import INK, bars, legend, look, panels, share_axis
from advtrain.reporting.shown import Shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_LINES = 9
"""How many lines of one panel can be followed."""

MOST_PANELS = 12
"""How many panels a page can show."""

Lines = Sequence[tuple[Unit, tuple[CurvePoint, ...]]]


@dataclass(frozen=True)
class Panel:
    """Lines that are drawn together.

    Attributes:
        budget: that they were trained at, but for those without one; None if no method has one.
        lines: the units with their points.
        place: which of the budget's panels it is, from 1.
        places: how many panels the budget has.
    """

    budget: float | None
    lines: Lines
    place: int
    places: int

    @property
    def title(self) -> str:
        """Say what was trained how."""
        part = f" ({self.place} of {self.places})" if self.places > 1 else ""
        if self.budget is None:
            return f"trained without a budget{part}"
        return f"trained at ε = {wording.budget(self.budget)}{part}"


def caption(shown: Shown) -> Caption:
    """Say what the figure shows, and its main numbers."""
    attack = shown.info["curve_attack"]
    if not shown.curves:
        text = "This study has no attack for the accuracy against the budget."
        if attack:
            text = f"No cell of this study has been attacked by {attack}."
        return Caption.of_nothing(text)
    described = []
    for unit, points in shown.curves:
        values = [
            f"{wording.percent_words(point.accuracy.mean)} at {wording.budget(point.epsilon)}"
            for point in points
            if point.accuracy
        ]
        described.append(f"{unit_text(unit)}: {', '.join(values)}.")
    first = next((unit.method for unit, _ in shown.curves if unit.epsilon is None), None)
    repeated = f" {first}, which trains without a budget, is repeated in each." if first else ""
    panels = _panels(shown)
    some = ""
    if len(panels) > MOST_PANELS:
        some = f" Of {len(panels)} panels, the {MOST_PANELS} of the largest budgets are drawn."
    roots = " The axis of ε is stretched towards 0: square roots." if _stretched(shown) else ""
    return Caption(
        f"Accuracy under {attack} against its budget ε, by training budget (the upright line); at "
        f"ε = 0, on clean images.{repeated}{roots} Means over seeds, bars are 95 % Wilson "
        f"intervals.{_own_words(shown)}{some}"
        + flag_words(shown.rows, mark="Flagged:")
        + weights_words(shown),
        f"Line charts of accuracy against ε. {' '.join(described)}",
    )


def draw(shown: Shown) -> "Figure":
    """Draw the figure."""
    found = _panels(shown)[-MOST_PANELS:]
    # One line of panels for each budget, where they fit.
    two = found[0].places == 2 or len(found) == 4
    figure, drawn = panels(len(found), across=2 if two else 3, height=2.2)
    for panel, one in zip(drawn, found, strict=True):
        for unit, points in one.lines:
            known = [(p.epsilon, p.accuracy) for p in points if p.accuracy]
            panel.errorbar(
                [epsilon or 0.0 for epsilon, _ in known],
                [accuracy.mean for _, accuracy in known],
                yerr=bars([accuracy for _, accuracy in known]),
                elinewidth=0.7,
                label=unit.method,
                **look(unit, shown.info["methods"]),
            )
        if one.budget is not None:
            panel.axvline(one.budget, color=INK, linewidth=0.8, linestyle=(0, (2, 2)), zorder=0.5)
        panel.set_title(one.title)
        panel.set_xlabel(f"ε of {shown.info['curve_attack']}")
        _budget_axis(panel, shown)
        share_axis(panel, "y", "accuracy")
    legend(figure, drawn)
    return figure


def _own_words(shown: Shown) -> str:
    """Say of which methods most and least is left at the budget that they were trained at."""
    own: dict[float, list[tuple[float, str]]] = {}
    for unit, points in shown.curves:
        for point in points:
            if unit.epsilon and point.epsilon == unit.epsilon and point.accuracy:
                own.setdefault(unit.epsilon, []).append((point.accuracy.mean, unit.method))
    said = []
    for budget, found in sorted(own.items()):
        (most, best), (least, worst) = max(found), min(found)
        text = f"{wording.percent_words(most)} ({best})"
        if best != worst:
            text += f" to {wording.percent_words(least)} ({worst})"
        said.append(f"{text} at {wording.budget(budget)}")
    return f" At the budget of the training: {'; '.join(said)}." if said else ""


def _panels(shown: Shown) -> list[Panel]:
    """Sort the lines by training budget, in as few panels as can be read."""
    trained: list[float | None] = []
    trained += sorted({unit.epsilon for unit, _ in shown.curves if unit.epsilon is not None})
    free = [line for line in shown.curves if line[0].epsilon is None]
    found = []
    for budget in trained or [None]:
        lines = [line for line in shown.curves if line[0].epsilon == budget] if trained else []
        # One method without a budget is what the others are seen beside; further ones are others.
        always, rest = free[:1], [*free[1:], *lines]
        parts = max(1, math.ceil(len(rest) / (MOST_LINES - len(always))))
        size = math.ceil(len(rest) / parts)
        for part in range(parts):
            there = [*always, *rest[part * size : (part + 1) * size]]
            found.append(Panel(budget, there, part + 1, parts))
    return found


def _budgets(shown: Shown) -> list[float]:
    return sorted({p.epsilon for _, line in shown.curves for p in line if p.epsilon is not None})


def _stretched(shown: Shown) -> bool:
    """Say whether one budget is so far from the others that these would lie on one another."""
    positive = [epsilon for epsilon in _budgets(shown) if epsilon > 0]
    return len(positive) > 2 and positive[-1] > 2.5 * positive[-2]


def _root(value: NDArray[np.float64]) -> NDArray[np.float64]:
    # The axis begins a little below 0.
    return np.asarray(np.sign(value) * np.sqrt(np.abs(value)))


def _square(value: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.sign(value) * np.square(value))


def _budget_axis(panel: "Axes", shown: Shown) -> None:
    """Mark the budgets that were run, as many as can be told apart."""
    budgets = _budgets(shown)
    stretched = _stretched(shown)
    largest = budgets[-1] or 1.0
    if stretched:
        panel.set_xscale("function", functions=(_root, _square))
        panel.set_xlim(-(0.04**2) * largest, 1.04**2 * largest)
    marked: list[tuple[float, float]] = []
    for epsilon in budgets:
        place = math.sqrt(epsilon / largest) if stretched else epsilon / largest
        if not marked or place - marked[-1][0] >= 1 / 14:
            marked.append((place, epsilon))
    names = [wording.budget(epsilon) for _, epsilon in marked]
    panel.set_xticks([epsilon for _, epsilon in marked], names)
    apart = min((b - a for (a, _), (b, _) in itertools.pairwise(marked)), default=1)
    # Upright names take their height, others their length, of an axis of two inches.
    if 2 * apart < 0.1 + 0.07 * max(len(name) for name in names):
        panel.tick_params(axis="x", labelrotation=90)
