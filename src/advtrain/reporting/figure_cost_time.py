"""Cost against robustness: measured seconds of the training against worst-case accuracy."""

from typing import TYPE_CHECKING

from advtrain.reporting import wording
from advtrain.reporting.captions import Caption, flag_words, unit_text, weights_words
from advtrain.reporting.costs import CostRow
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
    costs = _costs(shown)
    found = _points(shown, costs)
    if not found:
        return Caption.of_nothing(
            "No training of this study has both a measured time and a worst-case accuracy."
        )
    there = [point for panel in found.values() for point in panel]
    described = [
        f"{unit_text(point.row.unit)}, attacked at {wording.budget(point.row.epsilon)}: "
        f"{wording.seconds(point.x)} s, worst case {wording.percent_words(point.y.mean)}."
        for point in there
    ]
    devices = sorted({name for row in costs.values() for name in row.devices})
    front = front_words(found, lambda seconds: f"{wording.seconds(seconds)} s")
    return Caption(
        f"What robustness costs: measured seconds of training ({', '.join(devices)}; logarithmic) "
        "against accuracy in the worst case over all attacks at the budget of the panel. Means "
        "over seeds, bars are the standard deviation over seeds (to the sides, where there are "
        "several) and 95 % Wilson intervals (upwards); up and to the left is better. The line is "
        "the Pareto front: no method as fast or faster than one of its filled markers withstands "
        f"more, by the means alone. {front}"
        + flag_words(point.row for point in there)
        + weights_words(shown),
        f"Scatter charts, one per budget. {' '.join(described)} {front}",
    )


def draw(shown: Shown) -> "Figure":
    """Draw the figure."""
    found = _points(shown, _costs(shown))
    return draw_panels(
        found,
        shown.info["methods"],
        lambda panel: size_axis(panel, found, "seconds of training"),
        less=True,
    )


def _costs(shown: Shown) -> dict[str, CostRow]:
    """Return what each trained unit cost, by its name."""
    return {row.unit.name: row for row in shown.costs if row.seconds and row.forward}


def _points(shown: Shown, costs: dict[str, CostRow]) -> Panels:
    found = []
    for row in shown.rows:
        cost = costs.get(row.unit.name)
        if cost and cost.seconds:
            # On a logarithmic axis a bar cannot reach 0.
            below = min(cost.spread or 0.0, 0.9 * cost.seconds)
            spread = None if cost.spread is None else (below, cost.spread)
            found.append((row, cost.seconds, spread))
    return points(found, less=True)
