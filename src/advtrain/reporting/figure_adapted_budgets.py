"""Adapted budgets: what a method learnt for each training example, and for which the extremes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc

from advtrain.reporting import wording
from advtrain.reporting.captions import Caption, cell_text
from advtrain.reporting.examples import Image, short, stored_image, stride
from advtrain.reporting.measure import Measured, Unit
from advtrain.reporting.panels import COLOURS, INK, canvas, picture
from advtrain.reporting.shown import Shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

VALUE = "epsilon"
"""What a method that learns budgets calls them."""

MOST_BLOCKS = 4
"""How many methods a figure can show and still be printed."""


@dataclass(frozen=True)
class Extreme:
    """A training example of one of the smallest or the largest budgets, and its class."""

    budget: float
    label: str
    image: Image


@dataclass(frozen=True)
class Adapted:
    """What one training learnt: that of a method's lowest seed.

    Attributes:
        unit: the method at its budget, in which the others are counted.
        cell: the training.
        epochs: a row of `EXAMPLE_VALUES` each.
        smallest: examples of the smallest budgets, and
        largest: of the largest, the extreme ones first; none where there are no pixels.
    """

    unit: Unit
    cell: Measured
    epochs: Sequence[Mapping[str, Any]]
    smallest: tuple[Extreme, ...]
    largest: tuple[Extreme, ...]

    @property
    def name(self) -> str:
        """The method and its budget: `iaat, ε = 0.2`."""
        return cell_text(self.unit, self.cell)

    def times(self, budget: float) -> str:
        """Write a budget as a multiple of the method's: `1.40 ε`."""
        return f"{budget / (self.unit.epsilon or 1):.2f} ε"


def caption(shown: Shown) -> Caption:
    """Say what the figure shows, and its main numbers."""
    found, methods = _adapted(shown)
    if not found:
        return Caption.of_nothing("No method of this study learns a budget for each example.")
    described = " ".join(_described(one) for one in found)
    some = f" Shown are the study's first {len(found)} of {methods}."
    pictures = (
        " Beside it the training images of the smallest and the largest budgets after the last "
        "epoch, with these budgets and the classes; of equal ones, the first by position in the "
        "data."
    )
    return Caption(
        "The budgets that a method learnt for the training examples, after each epoch, in "
        "multiples of the ε that it was given (the dashed line): the median (thick line), the "
        "middle half of the examples (dark), all but the lowest and the highest 5 % (light), and "
        "the smallest and the largest (dotted). Each method's lowest seed."
        + (pictures if any(one.largest for one in found) else "")
        + f" After the last epoch: {described}"
        + (some if methods > len(found) else ""),
        f"Charts of learnt budgets by epoch, in multiples of ε. After the last epoch: {described}",
    )


def draw(shown: Shown) -> "Figure":
    """Draw the figure."""
    found, _ = _adapted(shown)
    count = max(len(one.largest) for one in found)
    # In inches.
    high, foot, head, chart, margin, size = 1.55, 0.5, 0.3, 3.1, 0.55, 0.5
    apart = size + 0.12
    figure, paper = canvas(
        margin + chart + (0.6 + count * apart if count else 0.2),
        0.1 + len(found) * (head + high + foot),
    )
    wide, tall = figure.get_size_inches()
    for place, one in enumerate(found):
        top = 0.1 + place * (head + high + foot) + head
        paper.text(0.1, top - 0.1, one.name, fontsize=9)
        box = (margin / wide, 1 - (top + high) / tall, chart / wide, high / tall)
        _chart(figure.add_axes(box), one)
        left = margin + chart + 0.5
        for row, (words, extremes) in enumerate(
            (("smallest", one.smallest), ("largest", one.largest))
        ):
            above = top + row * (size + 0.52)
            if extremes:
                paper.text(left, above - 0.06, f"{words} budgets", fontsize=8)
            for column, extreme in enumerate(extremes):
                corner = (left + column * apart, above)
                every = stride(extreme.image.shape[1:])
                picture(paper, extreme.image[:, ::every, ::every], corner, size)
                paper.text(corner[0], above + size + 0.13, one.times(extreme.budget), fontsize=7)
                paper.text(corner[0], above + size + 0.25, short(extreme.label, 8), fontsize=7)
    return figure


def _chart(panel: "Axes", one: Adapted) -> None:
    from matplotlib.ticker import MaxNLocator

    epochs = [row["epoch"] for row in one.epochs]
    unit = one.unit.epsilon or 1

    def line(percent: int) -> list[float]:
        return [row[f"quantile_{percent}"] / unit for row in one.epochs]

    panel.fill_between(epochs, line(5), line(95), color=COLOURS[0], alpha=0.22, linewidth=0)
    panel.fill_between(epochs, line(25), line(75), color=COLOURS[0], alpha=0.38, linewidth=0)
    # A line of one point would not show.
    marker = "." if len(epochs) == 1 else ""
    panel.plot(epochs, line(50), color=COLOURS[0], linewidth=1.8, marker=marker)
    for end in (0, 100):
        panel.plot(epochs, line(end), color=COLOURS[0], linewidth=0.9, linestyle=(0, (1, 1.5)))
    panel.axhline(1, color=INK, linewidth=0.9, linestyle=(0, (4, 2)))
    panel.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    panel.set_xlabel("epoch")
    panel.set_ylabel("learnt budget, × ε")
    panel.set_ylim(bottom=0)
    panel.margins(x=0.01)


def _adapted(shown: Shown) -> tuple[list[Adapted], int]:
    """Return what is shown, and how many methods learnt budgets."""
    values, extremes = shown.collected.example_values, shown.collected.extremes
    epochs = values.filter(pc.equal(values["value"], VALUE)).to_pylist()
    learnt = {row["cell"] for row in epochs}
    chosen = [
        (unit, next((cell for cell in unit.cells if cell.cell in learnt), None))
        for unit in shown.units
    ]
    cells = [(unit, cell) for unit, cell in chosen if cell]
    pictures = extremes.filter(pc.equal(extremes["value"], VALUE)).to_pylist()

    def ends(cell: Measured, end: str) -> tuple[Extreme, ...]:
        return tuple(
            Extreme(row["number"], row["label_name"], stored_image(row))
            for row in pictures
            if (row["cell"], row["end"]) == (cell.cell, end)
        )

    found = [
        Adapted(
            unit=unit,
            cell=cell,
            epochs=[row for row in epochs if row["cell"] == cell.cell],
            smallest=ends(cell, "smallest"),
            largest=ends(cell, "largest"),
        )
        for unit, cell in cells[:MOST_BLOCKS]
    ]
    return found, len(cells)


def _described(one: Adapted) -> str:
    last = one.epochs[-1]
    zeros = wording.percent_words(last["zeros"] / last["examples"])
    return (
        f"{one.name}: median {one.times(last['quantile_50'])}, mean {one.times(last['mean'])}, "
        f"nine in ten within {one.times(last['quantile_5'])} and {one.times(last['quantile_95'])}, "
        f"largest {one.times(last['quantile_100'])}; {zeros} of {last['examples']} examples have 0."
    )
