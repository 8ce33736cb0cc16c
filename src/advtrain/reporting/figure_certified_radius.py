"""Certified accuracy against the radius, beside what attacks leave."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from advtrain.reporting import wording
from advtrain.reporting.captions import DAGGER, Caption, flag_words, flagged, unit_text
from advtrain.reporting.certified import CertifiedRow
from advtrain.reporting.curve import CurvePoint
from advtrain.reporting.measure import Certified, Unit
from advtrain.reporting.panels import INK, PAPER, WIDTHS, bars, look, share_axis
from advtrain.reporting.shown import Shown
from advtrain.reporting.statistics import Estimate, Run, estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STEPS = 120
"""At how many radii a curve is drawn."""

MOST_ROWS = 40
"""How many methods can be read below one another."""


@dataclass(frozen=True)
class Panel:
    """One certificate in one norm.

    Attributes:
        certificate: its name.
        norm: of the radius.
        budget: that the methods were trained at, but for those without one; None where the budget
            is told with each.
        rows: of the table, with numbers: of every radius where it finds its own, else one for each
            unit and budget.
    """

    certificate: str
    norm: str
    budget: float | None
    rows: tuple[CertifiedRow, ...]

    @property
    def own_radius(self) -> bool:
        """The certificate finds a radius for each example."""
        return self.rows[0].epsilon is None

    @property
    def by_unit(self) -> list[tuple[Unit, list[CertifiedRow]]]:
        """The rows of each unit."""
        found: dict[str, list[CertifiedRow]] = {}
        for row in self.rows:
            found.setdefault(row.unit.name, []).append(row)
        return [(rows[0].unit, rows) for rows in found.values()]

    @property
    def title(self) -> str:
        """Name the certificate, and what was trained how."""
        trained = "" if self.budget is None else f", trained at ε = {wording.budget(self.budget)}"
        return f"{self.certificate} ({self.norm}){trained}"

    @property
    def inches(self) -> float:
        """How high it is drawn."""
        if self.own_radius:
            return max(2.3, 0.3 + 0.19 * len(self.by_unit))
        return 0.75 + 0.22 * min(len(self.rows), MOST_ROWS)


def caption(shown: Shown) -> Caption:
    """Say what the figure shows, and its main numbers."""
    found = _panels(shown)
    if not found:
        return Caption.of_nothing("No certificate was computed in this study.")
    said = [_panel_words(shown, panel) for panel in found]
    described = [
        f"{panel.certificate}, {unit_text(unit)}: {', '.join(_row_words(row) for row in rows)}."
        for panel in found
        for unit, rows in panel.by_unit
    ]
    return Caption(
        f"What is proven, beside what attacks leave. {' '.join(said)} Means over seeds, bars and "
        f"bands are 95 % Wilson intervals."
        + flag_words(row for panel in found for row in panel.rows),
        f"Charts of certified accuracy. {' '.join(described)}",
    )


def draw(shown: Shown) -> "Figure":
    """Draw the figure."""
    from matplotlib.figure import Figure

    found = _panels(shown)
    heights = [panel.inches for panel in found]
    figure = Figure(figsize=(WIDTHS[3], sum(heights)), layout="constrained")
    grid = figure.add_gridspec(len(found), 1, height_ratios=heights)
    for place, one in enumerate(found):
        panel = figure.add_subplot(grid[place, 0])
        if one.own_radius:
            _curves(panel, one, shown)
        else:
            _pairs(panel, one, shown)
        panel.set_title(one.title)
        handles, labels = panel.get_legend_handles_labels()
        once = dict(zip(labels, handles, strict=True))
        panel.legend(once.values(), once, loc="upper left", bbox_to_anchor=(1.01, 1.0))
    return figure


def _panels(shown: Shown) -> list[Panel]:
    found: dict[tuple[str, str, bool], list[CertifiedRow]] = {}
    for row in shown.certified:
        if row.certified:
            place = (row.certificate, row.norm, row.epsilon is None)
            found.setdefault(place, []).append(row)
    made = []
    for (name, norm, own_radius), rows in found.items():
        trained = {row.unit.epsilon for row in rows if row.unit.epsilon is not None}
        # Curves of one method, trained at two budgets, would look the same.
        for budget in sorted(trained) if own_radius and trained else [None]:
            there = (r for r in rows if budget is None or r.unit.epsilon in (None, budget))
            made.append(Panel(name, norm, budget, tuple(there)))
    return made


def _curves(panel: "Axes", one: Panel, shown: Shown) -> None:
    """Draw the certified accuracy at every radius, and the attacked one where norms agree."""
    largest = max(
        float(found.radius[found.clean].max(initial=0.0))
        for _, rows in one.by_unit
        for found in _certificates(rows[0], one)
    )
    radii = np.linspace(0, largest or 1.0, STEPS + 1)
    for unit, rows in one.by_unit:
        style = look(unit, shown.info["methods"])
        found = _certificates(rows[0], one)
        certified = [
            accuracy
            for radius in radii.tolist()
            if (accuracy := estimate([Run(f.example, f.certified(radius)) for f in found]))
        ]
        panel.plot(
            radii,
            [accuracy.mean for accuracy in certified],
            label=unit.method,
            markevery=STEPS // 8,
            **{**style, "markersize": 4},
        )
        if len(one.by_unit) <= 4:
            panel.fill_between(
                radii,
                [accuracy.low for accuracy in certified],
                [accuracy.high for accuracy in certified],
                color=style["color"],
                alpha=0.12,
                linewidth=0,
            )
        for epsilons, accuracies in _attacked(unit, one, shown):
            inside = epsilons <= radii[-1]
            panel.plot(
                epsilons[inside],
                accuracies[inside],
                color=style["color"],
                marker="x",
                markersize=4,
                linewidth=0.7,
                linestyle=(0, (1, 2)),
                label=f"{unit.method} under {shown.info['curve_attack']}",
            )
    panel.set_xlabel(f"radius ({one.norm})")
    share_axis(panel, "y", "certified accuracy")


def _pairs(panel: "Axes", one: Panel, shown: Shown) -> None:
    """Draw what is proven at a budget, what attacks leave there, and what is right without."""
    rows = one.rows[:MOST_ROWS]
    for place, row in enumerate(rows):
        colour = look(row.unit, shown.info["methods"])["color"]
        if row.certified and row.robust:
            ends = [row.certified.mean, row.robust.mean]
            panel.plot(ends, [place] * 2, color=colour, linewidth=1.0, zorder=1.5)
        for accuracy, marker, label, filled in (
            (row.certified, "o", "certified", True),
            (row.robust, "s", "worst case of the attacks", False),
            (row.clean, "|", "without an attack", True),
        ):
            if accuracy:
                _mark(panel, accuracy, place, colour, marker, filled)
                panel.plot(
                    [],
                    [],
                    linestyle="",
                    color=INK,
                    marker=marker,
                    markerfacecolor=INK if filled else PAPER,
                    label=label,
                )
    panel.set_yticks(
        range(len(rows)),
        [
            f"{unit_text(row.unit)}, at {wording.budget(row.epsilon)}{DAGGER * flagged(row)}"
            for row in rows
        ],
    )
    panel.set_ylim(len(rows) - 0.5, -0.5)
    panel.grid(visible=False, axis="y")
    share_axis(panel, "x", "accuracy")


def _mark(
    panel: "Axes", accuracy: Estimate, place: int, colour: str, marker: str, filled: bool
) -> None:
    panel.errorbar(
        [accuracy.mean],
        [place],
        xerr=bars([accuracy]) if marker != "|" else None,
        elinewidth=0.7,
        linestyle="",
        color=colour,
        marker=marker,
        markersize=8 if marker == "|" else 5,
        markerfacecolor=colour if filled else PAPER,
    )


def _certificates(row: CertifiedRow, one: Panel) -> list[Certified]:
    return [
        found
        for cell in row.cells
        for found in cell.certificates
        if (found.certificate, found.norm, found.epsilon) == (one.certificate, one.norm, None)
    ]


def _attacked(
    unit: Unit, one: Panel, shown: Shown
) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Return what the curve's attack leaves of a unit in the certificate's norm, if it was run."""
    lines: Sequence[tuple[Unit, Sequence[CurvePoint]]] = shown.curves
    found = []
    for other, points in lines:
        if other.name == unit.name and points[0].norm == one.norm:
            known = [(p.epsilon or 0.0, p.accuracy.mean) for p in points if p.accuracy]
            epsilons, accuracies = np.array(known).T
            found.append((epsilons, accuracies))
    return found


def _panel_words(shown: Shown, panel: Panel) -> str:
    if panel.own_radius:
        other = ""
        if any(_attacked(unit, panel, shown) for unit, _ in panel.by_unit):
            other = (
                f" Crosses: what {shown.info['curve_attack']} leaves of the trained model itself "
                f"at the same budget, which is another predictor."
            )
        best = [max(rows, key=_share) for rows in _by_radius(panel).values()]
        most = ", ".join(
            f"{wording.percent_words(_share(row))} at {wording.budget(row.radius)} "
            f"({unit_text(row.unit)})"
            for row in best
        )
        return (
            f"{panel.title}: the share that is right and proven to stay so "
            f"within the radius, for a predictor of its own; most is proven: {most}.{other}"
        )
    each = "; ".join(f"{unit_text(row.unit)}, {_row_words(row)}" for row in panel.rows[:6])
    more = f"; and {len(panel.rows) - 6} more" if len(panel.rows) > 6 else ""
    drawn = ""
    if len(panel.rows) > MOST_ROWS:
        drawn = f" The first {MOST_ROWS} of {len(panel.rows)} are drawn."
    return (
        f"{panel.certificate} ({panel.norm}): for each method and budget, the share that is proven "
        f"(disc), and the worst case over all attacks at the same budget, of the same weights and "
        f"examples (square); what lies between is neither proven nor broken: {each}{more}.{drawn}"
    )


def _by_radius(panel: Panel) -> dict[float, list[CertifiedRow]]:
    found: dict[float, list[CertifiedRow]] = {}
    for row in panel.rows:
        found.setdefault(row.radius or 0.0, []).append(row)
    return found


def _share(row: CertifiedRow) -> float:
    return row.certified.mean if row.certified else 0.0


def _row_words(row: CertifiedRow) -> str:
    text = f"{wording.percent_words(_share(row))} certified at {wording.budget(row.radius)}"
    if row.robust:
        text += f" ({wording.percent_words(row.robust.mean)} under attack)"
    return text
