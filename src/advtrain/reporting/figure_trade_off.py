"""The trade-off: clean accuracy against worst-case accuracy, and the front of the best."""

import math
from typing import TYPE_CHECKING

from advtrain.reporting import wording
from advtrain.reporting.captions import Caption, flag_words, unit_text, weights_words
from advtrain.reporting.panels import share_axis
from advtrain.reporting.scatter import (
    Panels,
    draw_panels,
    front_words,
    points,
)
from advtrain.reporting.shown import Shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def caption(shown: Shown) -> Caption:
    """Say what the figure shows, and its main numbers."""
    found = _points(shown)
    if not found:
        return Caption.of_nothing(
            "No cell of this study has both a clean and a worst-case accuracy."
        )
    there = [point for panel in found.values() for point in panel]
    described = [
        f"{unit_text(point.row.unit)}, attacked at {wording.budget(point.row.epsilon)}: clean "
        f"{wording.percent_words(point.x)}, worst case {wording.percent_words(point.y.mean)}."
        for point in there
    ]
    front = front_words(found, wording.percent_words)
    return Caption(
        "Accuracy on clean images against accuracy in the worst case over all attacks, at the "
        "budget of the panel. Models are trained at that budget, or without one (grey). Means over "
        "seeds, bars are 95 % Wilson intervals; up and to the right is better. The line is the "
        "Pareto front: a filled marker is exceeded by none in one accuracy without loss in the "
        f"other, by the means alone. {front}"
        + flag_words(point.row for point in there)
        + weights_words(shown),
        f"Scatter charts, one per budget. {' '.join(described)} {front}",
    )


def draw(shown: Shown) -> "Figure":
    """Draw the figure."""
    found = _points(shown)
    # Clean accuracies lie close together: their axis begins below the lowest.
    lowest = min(point.x - point.spread[0] for of in found.values() for point in of if point.spread)
    low = max(0.0, math.floor(20 * lowest - 0.2) / 20)
    tick = 0.2 if low < 0.4 else 0.1 if low < 0.75 else 0.05
    return draw_panels(
        found,
        shown.info["methods"],
        lambda panel: share_axis(panel, "x", "clean accuracy", low, tick),
        less=False,
    )


def _points(shown: Shown) -> Panels:
    return points(
        [
            (row, row.clean.mean, (row.clean.mean - row.clean.low, row.clean.high - row.clean.mean))
            for row in shown.rows
            if row.clean
        ],
        less=False,
    )
