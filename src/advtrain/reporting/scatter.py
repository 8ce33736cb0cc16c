"""Scatter charts of methods, and the front of those that no other one exceeds in both respects."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from advtrain.reporting import wording
from advtrain.reporting.captions import DAGGER, Budget, budget_text, flagged
from advtrain.reporting.panels import INK, PAPER, WIDTHS, bars, legend, look, panels, share_axis
from advtrain.reporting.results import ResultRow
from advtrain.reporting.statistics import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


MOST_PANELS = 6
"""How many budgets a page can show."""


@dataclass(frozen=True)
class Point:
    """A method in a scatter chart.

    Attributes:
        row: of the results.
        x: what its worst-case accuracy is shown against.
        y: its worst-case accuracy.
        spread: how far a bar reaches to the left and to the right of `x`; None for no bar.
        front: no other point of its panel is as good in both respects and better in one.
    """

    row: ResultRow
    x: float
    y: Estimate
    spread: tuple[float, float] | None
    front: bool


Panels = dict[Budget, list[Point]]
"""The points by the budget of their panel."""


def points(
    found: Sequence[tuple[ResultRow, float, tuple[float, float] | None]], *, less: bool
) -> Panels:
    """Sort rows into the panels of a scatter chart, one for each evaluation budget.

    Args:
        found: rows with both accuracies, what they are shown against, and how far its bar reaches.
        less: less of it is better.
    """
    by_budget: dict[Budget, list[tuple[ResultRow, float, Estimate, Any]]] = {}
    for row, x, spread in found:
        if row.worst and row.norm is not None and row.epsilon is not None:
            by_budget.setdefault((row.norm, row.epsilon), []).append((row, x, row.worst, spread))
    made = {}
    for budget, there in sorted(by_budget.items()):
        good = [(-x if less else x, y.mean) for _, x, y, _ in there]
        made[budget] = [
            Point(row, x, y, spread, front=on)
            for (row, x, y, spread), on in zip(there, undominated(good), strict=True)
        ]
    return made


def undominated(places: Sequence[tuple[float, float]]) -> list[bool]:
    """Say of each pair whether no other one is at least as large in both, and larger in one."""
    return [
        not any(one != other and other[0] >= one[0] and other[1] >= one[1] for other in places)
        for one in places
    ]


def front_words(found: Panels, x_words: Callable[[float], str]) -> str:
    """Name the methods of each panel's front, from the left, with both numbers.

    Args:
        found: the points.
        x_words: writes what the worst-case accuracy is shown against.
    """
    said = []
    for budget, there in found.items():
        front = sorted((point for point in there if point.front), key=lambda point: point.x)
        names = [
            f"{point.row.unit.method} ({x_words(point.x)}, {wording.percent_words(point.y.mean)})"
            for point in front
        ]
        said.append(f"at {budget_text(budget)}: {', '.join(names)}")
    some = ""
    if len(found) > MOST_PANELS:
        some = f" Of {len(found)} budgets, the {MOST_PANELS} largest are drawn."
    return f"On the front {'; '.join(said)}.{some}"


def size_axis(panel: "Axes", found: Panels, label: str) -> None:
    """Show sizes on a logarithmic axis with room beside them, the same in every panel."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    sizes = [point.x for there in found.values() for point in there]
    low, high = min(sizes), max(sizes)
    room = max((high / low) ** 0.08, 1.2)
    panel.set_xscale("log")
    panel.set_xlim(low / room, high * room)
    # So many ticks that some fall between the ends.
    ticks = range(1, 10) if high / low < 3 else (1, 2, 5) if high / low < 30 else (1,)
    panel.xaxis.set_major_locator(LogLocator(subs=ticks))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda size, _: f"{size:,.6g}"))
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.set_xlabel(label)


def draw_panels(
    found: Panels, methods: Sequence[str], axis: Callable[["Axes"], None], *, less: bool
) -> "Figure":
    """Draw a scatter chart for each budget.

    Args:
        found: the points.
        methods: of the study, in its order.
        axis: sets up what the worst-case accuracy is shown against.
        less: less of that is better.
    """
    shown = dict([*found.items()][-MOST_PANELS:])
    many = max(len(there) for there in shown.values()) > 12
    figure, drawn = panels(len(shown), across=2 if many else 3, height=3.2 if many else 2.6)
    if many:
        figure.set_figwidth(WIDTHS[3])
    top = max(point.y.high for there in shown.values() for point in there)
    high = min(1.0, math.ceil(10 * top + 0.2) / 10)
    for panel, (budget, there) in zip(drawn, shown.items(), strict=True):
        panel.set_title(budget_text(budget))
        axis(panel)
        share_axis(panel, "y", "worst-case accuracy", tick=0.2 if high > 0.7 else 0.1, high=high)
        _scatter(panel, there, methods, less=less)
    legend(figure, drawn)
    return figure


def _scatter(panel: "Axes", there: Sequence[Point], methods: Sequence[str], *, less: bool) -> None:
    """Draw the points of one panel: filled on the front, which a thin line joins.

    Args:
        panel: whose axes have their limits already.
        there: the points.
        methods: of the study, in its order.
        less: less of x is better.
    """
    front = sorted((point.x, point.y.mean) for point in there if point.front)
    (left, right), bottom = panel.get_xlim(), panel.get_ylim()[0]
    # What is at least as good as a point of the front ends at this line.
    if less:
        line = [(front[0][0], bottom), *front, (right, front[-1][1])]
    else:
        line = [(left, front[0][1]), *front, (front[-1][0], bottom)]
    panel.step(
        *zip(*line, strict=True),
        where="post" if less else "pre",
        color=INK,
        linewidth=0.7,
        zorder=1.5,
    )
    for point in there:
        style: dict[str, Any] = {**look(point.row.unit, methods), "linestyle": ""}
        panel.plot([], [], label=point.row.unit.method, **style)  # for the legend: filled
        panel.errorbar(
            [point.x],
            [point.y.mean],
            xerr=None if point.spread is None else [[end] for end in point.spread],
            yerr=bars([point.y]),
            elinewidth=0.7,
            markerfacecolor=style["color"] if point.front else PAPER,
            **style,
        )
        if flagged(point.row):
            place = (point.x, point.y.mean)
            panel.annotate(DAGGER, place, (4, 3), textcoords="offset points", fontsize=9)
