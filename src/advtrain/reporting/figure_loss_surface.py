"""Loss surfaces: the cross-entropy around test images, along its gradient and across it."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from advtrain.reporting import wording
from advtrain.reporting.captions import Caption
from advtrain.reporting.examples import short
from advtrain.reporting.landscapes import Landscape, Landscapes, landscapes, number
from advtrain.reporting.panels import COLOURS, INK, PAPER, canvas, names_width, picture
from advtrain.reporting.shown import Shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HEIGHT = 1.1
"""Of the largest loss, in inches."""

DEPTH = 0.34
"""How much higher the back of a surface stands than its front, in inches."""


def caption(shown: Shown) -> Caption:
    """Say what the figure shows, and its main numbers."""
    found = landscapes(shown)
    if found is None:
        return Caption.of_nothing("Nobody looked at the loss around images in this study.")
    first = found.rows[0].found[0]
    random = "a random direction of signs" if found.norm == "linf" else "a random direction"
    means = "; ".join(
        f"{row.name}: {number(row.mean('start'))} → {number(row.mean('highest'))}, "
        f"{number(row.mean('unevenness'))}"
        for row in found.rows
    )
    return Caption(
        f"Cross-entropy of the last weights around test images x, at x + ε (a g + b r), where "
        f"ε = {wording.budget(found.epsilon)}, g is the direction of unit {found.norm} norm along "
        f"which the loss grows fastest at x, and r {random}, of unit norm too and the same for all "
        f"methods. Each line runs along g from a = −{first.reach:g} to {first.reach:g}; the lines "
        f"stand behind one another from b = −{first.reach:g} (front) to {first.reach:g}. The thick "
        f"line goes through the image, which is the ring. All surfaces have one scale, the bar (in "
        f"nats). Below each: the loss at the image → the largest on the grid within one ε. On top "
        f"the images with their ids and classes, the first of the test split, whatever the models "
        f"make of them; the grid leaves [0, 1], since what is shown is the function. One row per "
        f"method that was trained at this ε, or without a budget; its lowest seed. Means over the "
        f"images of these two losses, and of how far the surface within one ε is from a plane "
        f"(root mean square): {means}." + _blind(found) + found.some,
        f"Small surfaces, a row of {len(found.rows[0].found)} for each method. At the image → "
        f"largest within one ε, distance from a plane: {means}.",
    )


def draw(shown: Shown) -> "Figure":
    """Draw the figure."""
    found = landscapes(shown)
    if found is None:
        raise ValueError("nobody looked at the loss around images; draw the caption instead")
    names = [row.name.replace(", ", "\n") for row in found.rows]
    # In inches.
    margin = 0.35 + names_width(names)
    count, apart, head, foot = len(found.rows[0].found), 0.15, 0.75, 0.32
    width = min(1.7, (8.1 - margin) / count - apart)
    tops = [max(_largest(one) for one in row.found) for row in found.rows]
    scale = HEIGHT / (max(tops) or 1)
    # One scale, and as much room for each row as it needs.
    highs = [max(DEPTH + scale * top, 0.3) for top in tops]
    figure, paper = canvas(margin + count * (width + apart), head + sum(highs) + len(highs) * foot)
    for place, one in enumerate(found.rows[0].found):
        left = margin + place * (width + apart)
        picture(paper, one.image[:, :: found.stride, :: found.stride], (left, 0.12), 0.5)
        paper.text(left + 0.58, 0.3, str(one.example), fontsize=7.5)
        paper.text(left + 0.58, 0.45, short(one.label), fontsize=7.5)
    bottom = head
    for name, high, row in zip(names, highs, found.rows, strict=True):
        bottom += high
        paper.text(0.08, bottom, name, fontsize=8.5, va="bottom", linespacing=1.4)
        for place, one in enumerate(row.found):
            left = margin + place * (width + apart)
            _surface(paper, one, (left, bottom), width, scale)
            words = f"{number(one.start)} → {number(one.highest)}"
            if not one.has_gradient:
                words += ", no gradient"
            paper.text(left, bottom + 0.16, words, fontsize=7.5)
        bottom += foot
    _bar(paper, (margin - 0.12, head + highs[0]), scale, _round(max(tops) / 2))
    return figure


def _surface(
    paper: "Axes", one: Landscape, corner: tuple[float, float], width: float, scale: float
) -> None:
    """Draw the lines of a surface, less what those before them hide; the corner is the lower left.

    Surfaces rise to the right, so what is behind is shifted to the left, where it can be seen: from
    line to line by a third of the distance of points, so that all lines have points at the places
    which the highest one so far is remembered at.
    """
    (left, bottom), side = corner, len(one.loss)
    step = width / (4 * (side - 1))
    horizon = np.full(4 * (side - 1) + 1, -np.inf)
    seen: list[NDArray[np.float64]] = []
    for line, losses in enumerate(one.loss.astype(np.float64)):
        places = np.arange(3 * (side - 1) + 1)
        heights = np.interp(places / 3, np.arange(side), losses) * scale
        heights += DEPTH * line / (side - 1)
        shift = side - 1 - line
        before = horizon[shift : shift + len(places)]
        # Also false where the loss is not a number.
        visible = np.isfinite(heights) & (heights >= before)
        x, y = left + step * (places + shift), bottom - np.where(visible, heights, np.nan)
        before[visible] = heights[visible]
        if line == side // 2:
            paper.plot(x, y, color=COLOURS[0], linewidth=1.6, zorder=3)
            middle = len(places) // 2
            paper.scatter(x[middle], y[middle], s=13, color=PAPER, edgecolors=INK, zorder=4)
        seen += [np.stack([x, y]), np.full((2, 1), np.nan)]
    # As one path: its points that lie on a line are left out.
    paper.plot(*np.concatenate(seen, axis=1), color=INK, linewidth=0.5)


def _largest(one: Landscape) -> float:
    return float(one.loss[np.isfinite(one.loss)].max(initial=0))


def _bar(paper: "Axes", foot: tuple[float, float], scale: float, length: float) -> None:
    left, bottom = foot
    top = bottom - scale * length
    paper.plot([left, left], [bottom, top], color=INK, linewidth=1.2)
    paper.text(
        left - 0.04, (top + bottom) / 2, f"{length:g}", fontsize=7.5, ha="right", va="center"
    )


def _round(value: float) -> float:
    """The largest of 1, 2, 5 times a power of ten that is not above the value."""
    power = 10.0 ** np.floor(np.log10(value)) if value > 0 else 1.0
    return float(max(step for step in (1, 2, 5) if step * power <= max(value, power)) * power)


def _blind(found: Landscapes) -> str:
    rows = [row.name for row in found.rows if not all(one.has_gradient for one in row.found)]
    if not rows:
        return ""
    return (
        f" Where the output does not depend on the input in a way that can be followed (no "
        f"gradient: {'; '.join(rows)}), there is no g, and the surface is flat along it by "
        f"construction."
    )
