"""Cost against robustness: passes of the training against worst-case accuracy."""

from typing import TYPE_CHECKING

from advtrain.reporting import wording
from advtrain.reporting.captions import Caption, flag_words, unit_text, weights_words
from advtrain.reporting.scatter import (
    Panels,
    draw_panels,
    front_words,
    points,
    size_axis,
)
from advtrain.reporting.shown import Shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def caption(shown: Shown) -> Caption:
    """Say what the figure shows, and its main numbers."""
    found = _points(shown)
    if not found:
        return Caption.of_nothing(
            "No training of this study has both its passes counted and a worst-case accuracy."
        )
    there = [point for panel in found.values() for point in panel]
    described = [
        f"{unit_text(point.row.unit)}, attacked at {wording.budget(point.row.epsilon)}: "
        f"{wording.passes(point.x)} passes, worst case {wording.percent_words(point.y.mean)}."
        for point in there
    ]
    front = front_words(found, wording.passes)
    return Caption(
        "What robustness costs: forward and backward passes of the whole training, per training "
        "example (logarithmic), against accuracy in the worst case over all attacks at the budget "
        "of the panel. Means over seeds, bars are 95 % Wilson intervals; up and to the left is "
        "better. The line is the Pareto front: no method with as few passes or fewer than one of "
        f"its filled markers withstands more, by the means alone. {front}"
        + flag_words(point.row for point in there)
        + weights_words(shown),
        f"Scatter charts, one per budget. {' '.join(described)} {front}",
    )


def draw(shown: Shown) -> "Figure":
    """Draw the figure."""
    found = _points(shown)
    return draw_panels(
        found,
        shown.info["methods"],
        lambda panel: size_axis(panel, found, "passes per training example"),
        less=True,
    )


def _points(shown: Shown) -> Panels:
    return points(
        [
            (row, row.forward + row.backward, None)
            for row in shown.rows
            # What was given, and not trained here, has no passes.
            if row.forward is not None and row.backward is not None and row.forward > 0
        ],
        less=True,
    )
