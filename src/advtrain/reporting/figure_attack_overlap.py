"""Attack overlap: which attacks break the same examples, and which break some alone."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from advtrain.reporting import wording
from advtrain.reporting.captions import Caption, weights_words
from advtrain.reporting.overlap import broken_by
from advtrain.reporting.panels import COLOURS, INK, NATURAL, PAPER, WIDTHS, share_axis
from advtrain.reporting.shown import Shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_SETS = 14
"""How many sets of attacks are told apart."""


@dataclass(frozen=True)
class Overlap:
    """What the attacks broke of all methods that were trained at one budget.

    Attributes:
        norm: of the attacks.
        epsilon: their budget.
        methods: how many were attacked.
        attacks: that all of them met, in the study's order.
        broken: (attacks, examples) over all methods and seeds, of the examples that are right
            without an attack.
    """

    norm: str
    epsilon: float
    methods: int
    attacks: tuple[str, ...]
    broken: NDArray[np.bool_]

    @property
    def examples(self) -> int:
        """How many examples there are, each counted for each method and seed."""
        return int(self.broken.shape[1])

    @property
    def any(self) -> float:
        """The share of the examples that one attack or more broke."""
        return float(self.broken.any(0).mean())

    @property
    def shares(self) -> list[float]:
        """The share that each attack broke."""
        return [float(one.mean()) for one in self.broken]

    @property
    def alone(self) -> list[float]:
        """The share that each attack broke and no other one did."""
        single = self.broken.sum(0) == 1
        return [float((one & single).mean()) for one in self.broken]

    @property
    def sets(self) -> list[tuple[NDArray[np.bool_], float]]:
        """Each set of attacks that broke examples which no further attack broke, and their share.

        The largest share first.
        """
        kinds, counts = np.unique(self.broken.T, axis=0, return_counts=True)
        found = [
            (kind, float(count / self.examples))
            for kind, count in zip(kinds, counts.tolist(), strict=True)
            if kind.any()
        ]
        return sorted(found, key=lambda one: -one[1])


def caption(shown: Shown) -> Caption:
    """Say what the figure shows, and its main numbers."""
    found = _overlap(shown)
    if found is None:
        return Caption.of_nothing(
            "This study has no budget at which all methods met two attacks or more."
        )
    names = list(found.attacks)
    each = ", ".join(
        f"{name} {wording.percent_words(share)} ({wording.percent_words(alone)} alone)"
        for name, share, alone in zip(names, found.shares, found.alone, strict=True)
    )
    sets = "; ".join(
        f"{_set_text(names, kind)}: {wording.percent_words(s)}" for kind, s in found.sets
    )
    rest = found.sets[MOST_SETS:]
    some = ""
    if rest:
        share = wording.percent_words(sum(share for _, share in rest))
        some = f" {len(rest)} further sets, of {share} together, are not drawn."
    return Caption(
        f"Which attacks break the same examples ({found.norm}, ε = "
        f"{wording.budget(found.epsilon)}), over the {found.examples} examples that are right "
        f"without an attack and met all attacks, of the {found.methods} methods trained at this "
        f"budget together. Each column is one set of attacks (dots): its bar is the share that "
        f"these attacks broke and no other. To the left, the share that each attack broke, with "
        f"what it alone broke (hatched). At least one attack broke "
        f"{wording.percent_words(found.any)}; {each}.{some}" + weights_words(shown),
        f"Bar charts of sets of attacks. Broken by {sets or 'none'}.",
    )


def draw(shown: Shown) -> "Figure":
    """Draw the figure."""
    from matplotlib.figure import Figure

    found = _overlap(shown)
    if found is None:
        raise ValueError("no budget has two attacks; draw the caption instead")
    count, sets = len(found.attacks), found.sets[:MOST_SETS]
    figure = Figure(figsize=(WIDTHS[3], 2.2 + 0.24 * count), layout="constrained")
    grid = figure.add_gridspec(2, 2, width_ratios=(1.3, 3), height_ratios=(1.5, 0.24 * count))
    tall = figure.add_subplot(grid[0, 1])
    matrix = figure.add_subplot(grid[1, 1], sharex=tall)
    wide = figure.add_subplot(grid[1, 0])
    _set_bars(tall, [share for _, share in sets])
    _set_dots(matrix, [kind for kind, _ in sets], count)
    places = range(count)
    wide.barh(places, found.shares, 0.62, color=COLOURS[0], label="broken")
    alone = [(place, share) for place, share in zip(places, found.alone, strict=True) if share]
    wide.barh(
        [place for place, _ in alone],
        [share for _, share in alone],
        0.62,
        color=PAPER,
        hatch="/////",
        edgecolor=INK,
        linewidth=0.6,
        label="by it alone",
    )
    wide.set_yticks(places, found.attacks)
    wide.set_ylim(count - 0.5, -0.5)
    wide.grid(visible=False, axis="y")
    highest = max(found.shares)
    share_axis(wide, "x", "broken", tick=_tick(highest))
    wide.set_xlim(0, 1.05 * highest or 1)
    corner = figure.add_subplot(grid[0, 0])
    corner.set_axis_off()
    corner.legend(*wide.get_legend_handles_labels(), loc="lower left", handlelength=1.6)
    return figure


def _overlap(shown: Shown) -> Overlap | None:
    """Choose the largest training budget at which all methods met two attacks or more."""
    budgets = {(row.norm, row.epsilon) for row in shown.rows if row.unit.epsilon is not None}
    # Where nothing was trained at a budget, the smallest that was attacked at.
    order = sorted(budgets, key=lambda one: -(one[1] or 0.0)) or sorted(
        {(row.norm, row.epsilon) for row in shown.rows}, key=lambda one: one[1] or 0.0
    )
    for norm, epsilon in order:
        rows = [
            row
            for row in shown.rows
            if (row.norm, row.epsilon) == (norm, epsilon)
            and (row.unit.epsilon is not None or not budgets)
        ]
        attacks = tuple(
            name
            for name in shown.info["attacks"]
            if all((found := row.robust[name]) and found.seeds == len(row.cells) for row in rows)
        )
        if len(attacks) > 1:
            broken = np.concatenate([broken_by(row, attacks) for row in rows], axis=1)
            if broken.shape[1]:
                return Overlap(norm or "", epsilon or 0.0, len(rows), attacks, broken)
    return None


def _set_text(names: list[str], kind: NDArray[np.bool_]) -> str:
    if kind.all():
        return "all attacks"
    return " and ".join(name for name, inside in zip(names, kind.tolist(), strict=True) if inside)


def _set_bars(panel: "Axes", shares: list[float]) -> None:
    bars = panel.bar(range(len(shares)), shares, 0.62, color=COLOURS[0])
    panel.bar_label(
        bars, [wording.percent(share) for share in shares], fontsize=7, padding=1.5, color=INK
    )
    panel.grid(visible=False, axis="x")
    panel.tick_params(axis="x", bottom=False, labelbottom=False)
    highest = max(shares, default=1.0)
    share_axis(panel, "y", "broken", tick=_tick(highest))
    panel.set_ylabel("broken, %")
    panel.set_ylim(0, 1.12 * highest)


def _tick(highest: float) -> float:
    return 0.2 if highest > 0.5 else 0.1 if highest > 0.2 else 0.05


def _set_dots(panel: "Axes", kinds: list[NDArray[np.bool_]], count: int) -> None:
    for place, kind in enumerate(kinds):
        inside = np.flatnonzero(kind).tolist()
        panel.plot([place] * count, range(count), "o", color=NATURAL, alpha=0.3, markersize=4)
        panel.plot([place] * len(inside), inside, "o-", color=INK, markersize=5, linewidth=1.2)
    panel.set_ylim(count - 0.5, -0.5)
    panel.set_xlim(-0.6, max(len(kinds), 5) - 0.4)
    panel.grid(visible=False)
    panel.tick_params(bottom=False, left=False, labelbottom=False, labelleft=False)
    for spine in panel.spines.values():
        spine.set_visible(False)
