"""Adversarial examples: the image, the attacked image and what changed."""

from typing import TYPE_CHECKING, Any

from advtrain.reporting import wording
from advtrain.reporting.captions import Caption, cell_text, weights_words
from advtrain.reporting.examples import short
from advtrain.reporting.panels import COLOURS, NATURAL, canvas, names_width, picture
from advtrain.reporting.shown import Shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Width and dashes say the same as the colours.
VERDICTS: dict[str, dict[str, Any]] = {
    "right": {"edgecolor": COLOURS[0], "linewidth": 1.0},
    "fooled": {"edgecolor": COLOURS[1], "linewidth": 2.4},
    "wrong before": {"edgecolor": NATURAL, "linewidth": 1.6, "linestyle": (0, (1, 1))},
}
MARKS = {"right": "✓", "fooled": "✗", "wrong before": "✗"}


def caption(shown: Shown) -> Caption:
    """Say what the figure shows, and its main numbers."""
    found = shown.gallery
    if found is None:
        text = "This study keeps no attacked images of the last weights (keep_adversarial)."
        return Caption.of_nothing(text)
    budget = "" if found.budget is None else f", trained at ε = {wording.budget(found.budget)}"
    some = f" Shown are the study's first {len(found.rows)} methods of {found.methods}."
    pixels = f" Of each image, one pixel in {found.stride} is drawn in each direction."
    described = [
        f"{cell_text(unit, cell)}: "
        + ", ".join(f"{one.label} → {one.said} ({one.verdict})" for one in row)
        + "."
        for cell, (unit, row) in zip(found.cells, found.rows, strict=True)
    ]
    return Caption(
        f"Test images under {found.attack_text}, one row per method{budget}"
        f"{' or without a budget' if budget else ''}: the image, the attacked image, and "
        f"their difference, times {found.magnification:.3g}, on a scale that is symmetric about "
        f"grey (no change). Below, the label → what the model says of the attacked image. A blue "
        f"frame and ✓: still right; a thick orange frame and ✗: fooled; a dotted grey frame: wrong "
        f"without the attack already. The images are the first of the test split that most cells "
        f"of the study classify right without an attack; what the attack does to them played no "
        f"part in the choice. Shown is each method's lowest seed."
        + weights_words(shown)
        + (some if found.methods > len(found.rows) else "")
        + (pixels if found.stride > 1 else ""),
        f"Rows of small images under {found.attack_text}. {' '.join(described)}",
    )


def draw(shown: Shown) -> "Figure":
    """Draw the figure."""
    found = shown.gallery
    if found is None:
        raise ValueError("no attacked images were kept; draw the caption instead")
    shown_cells = zip(found.cells, found.rows, strict=True)
    names = [cell_text(unit, cell).replace(", ", "\n") for cell, (unit, _) in shown_cells]
    count = len(found.rows[0][1])
    # In inches: the names of the methods, then three images for each example.
    margin = 0.2 + names_width(names)
    between, apart, head, foot = 0.07, 0.2, 0.42, 0.42
    size = min(0.62, ((8.1 - margin) / count - apart - 2 * between) / 3)
    step = 3 * size + 2 * between + apart
    figure, paper = canvas(margin + count * step, head + len(names) * (size + foot))
    for place, one in enumerate(found.rows[0][1]):
        left = margin + place * step
        paper.text(left, 0.18, f"test example {one.example}", fontsize=7.5)
        for column, title in enumerate(("image", "attacked", "difference")):
            middle = left + column * (size + between) + size / 2
            paper.text(middle, head - 0.06, title, fontsize=7, ha="center")
    for line, (name, (_, row)) in enumerate(zip(names, found.rows, strict=True)):
        top = head + line * (size + foot)
        paper.text(0.08, top + size / 2, name, fontsize=8.5, va="center", linespacing=1.4)
        for place, one in enumerate(row):
            left = margin + place * step
            change = 0.5 + found.magnification * (one.x_adv - one.clean)
            for column, image in enumerate((one.clean, one.x_adv, change)):
                corner = (left + column * (size + between), top)
                seen = image[:, :: found.stride, :: found.stride]
                picture(paper, seen, corner, size, VERDICTS[one.verdict] if column == 1 else None)
            words = f"{short(one.label)} → {short(one.said)}"
            paper.text(left, top + size + 0.15, words, fontsize=7.5)
            verdict = f"{MARKS[one.verdict]} {one.verdict}"
            paper.text(left, top + size + 0.28, verdict, fontsize=7.5)
    return figure
