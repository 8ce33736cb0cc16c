"""Input gradients: what of an image the loss of each model depends on."""

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from advtrain.reporting import wording
from advtrain.reporting.captions import Caption
from advtrain.reporting.examples import short
from advtrain.reporting.landscapes import Row, landscapes, number
from advtrain.reporting.panels import canvas, names_width, picture
from advtrain.reporting.shown import Shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DEVIATIONS = 3
"""Gradients are shown up to so many of their standard deviations (Tsipras et al. 2019)."""


def caption(shown: Shown) -> Caption:
    """Say what the figure shows, and its main numbers."""
    found = landscapes(shown)
    if found is None:
        return Caption.of_nothing("Nobody looked at input gradients in this study.")
    means = "; ".join(
        f"{row.name}: {number(row.mean('length'))}, {_likeness(row)}" for row in found.rows
    )
    pixels = f" Of each image, one pixel in {found.stride} is drawn in each direction."
    return Caption(
        f"The gradient of the cross-entropy with respect to the image, of the last weights, below "
        f"the image: grey is no change, each gradient on its own scale of ±{DEVIATIONS} standard "
        f"deviations. The number below is its l2 length, which the scale hides. One row per method "
        f"that was trained at ε = {wording.budget(found.epsilon)}, or without a budget; its lowest "
        f"seed. On top the images with their ids and classes, the first of the test split, "
        f"whatever the models make of them. Means over them of the length, and of the cosine of "
        f"image and gradient, each less its mean, without the sign (1: alike, 0: unlike), where "
        f"there is a gradient: {means}." + found.some + (pixels if found.stride > 1 else ""),
        f"Test images and their gradients, a row for each method. Length, cosine: {means}.",
    )


def draw(shown: Shown) -> "Figure":
    """Draw the figure."""
    found = landscapes(shown)
    if found is None:
        raise ValueError("nobody looked at input gradients; draw the caption instead")
    names = [row.name.replace(", ", "\n") for row in found.rows]
    margin = 0.3 + names_width(["test image", *names])
    count = len(found.rows[0].found)
    # In inches.
    apart, foot, head = 0.2, 0.26, 0.42
    size = min(0.8, (8.1 - margin) / count - apart, 8.4 / (1 + len(names)) - foot)
    figure, paper = canvas(margin + count * (size + apart), head + (1 + len(names)) * (size + foot))
    for place, one in enumerate(found.rows[0].found):
        left = margin + place * (size + apart)
        paper.text(left, 0.2, str(one.example), fontsize=7.5)
        paper.text(left, 0.34, short(one.label), fontsize=7.5)
        picture(paper, one.image[:, :: found.stride, :: found.stride], (left, head), size)
    paper.text(0.08, head + size / 2, "test image", fontsize=8.5, va="center")
    for line, (name, row) in enumerate(zip(names, found.rows, strict=True), start=1):
        top = head + line * (size + foot)
        paper.text(0.08, top + size / 2, name, fontsize=8.5, va="center", linespacing=1.4)
        for place, one in enumerate(row.found):
            left = margin + place * (size + apart)
            seen = _seen(one.gradient)[:, :: found.stride, :: found.stride]
            picture(paper, seen, (left, top), size)
            words = number(one.length) if one.has_gradient else "no gradient"
            paper.text(left, top + size + 0.14, words, fontsize=7.5)
    return figure


def _likeness(row: Row) -> str:
    """The mean over the images where there is one."""
    found = [one.likeness for one in row.found if math.isfinite(one.likeness)]
    return f"{sum(found) / len(found):.2f}" if found else wording.NOTHING


def _seen(gradient: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale a gradient to [0, 1] about grey."""
    deviation = float(gradient.std(dtype=np.float64))
    found: NDArray[np.float32] = 0.5 + gradient / np.float32(2 * DEVIATIONS * (deviation or 1.0))
    return found
