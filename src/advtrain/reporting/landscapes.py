"""The loss around a few test images, and its gradient there, as the figures show them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from advtrain.reporting.captions import cell_text
from advtrain.reporting.examples import MOST_ROWS, Image, stored_image, stride
from advtrain.reporting.measure import Measured, Unit
from advtrain.reporting.shown import Shown
from advtrain.reporting.wording import NOTHING

WITHIN = 1 + 1e-9
"""Of the grid, what is summed up in numbers: as far as an attacker may go, in budgets."""

LEAST = 1e-4
"""Smaller numbers are not told apart."""


@dataclass(frozen=True)
class Landscape:
    """The loss of one cell around one test image.

    Attributes:
        example: its id.
        label: the name of its class.
        image: itself.
        gradient: (C, H, W) of the cross-entropy at the image.
        loss: (side, side) the cross-entropy at image + epsilon (a g + b r), in rows of equal b.
        reach: the largest a and b.
    """

    example: int
    label: str
    image: Image
    gradient: NDArray[np.float32]
    loss: NDArray[np.float32]
    reach: float

    @property
    def offsets(self) -> NDArray[np.float64]:
        """(side,) the a of the columns, and the b of the rows."""
        return np.linspace(-self.reach, self.reach, len(self.loss))

    @property
    def has_gradient(self) -> bool:
        """The output depends on the input in a way that can be followed."""
        return bool(self.gradient.any())

    @property
    def start(self) -> float:
        """The loss at the image."""
        middle = len(self.loss) // 2
        return float(self.loss[middle, middle])

    @property
    def highest(self) -> float:
        """The largest loss of the grid within one budget in each direction."""
        return float(self._near.max())

    @property
    def unevenness(self) -> float:
        """How far the loss within one budget is from a plane: the root mean square of the rest."""
        loss = self._near
        offsets = self.offsets[np.abs(self.offsets) <= WITHIN]
        # The grid is symmetric, so that the best plane has its slopes one by one.
        across = (loss * offsets[:, None]).mean() / np.square(offsets).mean()
        along = (loss * offsets[None, :]).mean() / np.square(offsets).mean()
        rest = loss - loss.mean() - across * offsets[:, None] - along * offsets[None, :]
        return float(np.sqrt(np.square(rest).mean()))

    @property
    def length(self) -> float:
        """The l2 length of the gradient."""
        return float(np.sqrt(np.square(self.gradient, dtype=np.float64).sum()))

    @property
    def likeness(self) -> float:
        """The cosine of the image and the gradient, each less its mean, without its sign.

        Etmann et al. (2019) call such a cosine alignment; NaN where one of the two is constant.
        """
        image = self.image.astype(np.float64) - self.image.mean(dtype=np.float64)
        gradient = self.gradient.astype(np.float64) - self.gradient.mean(dtype=np.float64)
        lengths = np.sqrt(np.square(image).sum() * np.square(gradient).sum())
        return float(abs((image * gradient).sum()) / lengths) if lengths else math.nan

    @property
    def _near(self) -> NDArray[np.float64]:
        near = np.abs(self.offsets) <= WITHIN
        return self.loss[np.ix_(near, near)].astype(np.float64)


@dataclass(frozen=True)
class Row:
    """The landscapes of a method: those of its lowest seed.

    Attributes:
        unit: the method at its budget.
        cell: whose weights are looked at.
        found: one for each image.
    """

    unit: Unit
    cell: Measured
    found: tuple[Landscape, ...]

    @property
    def name(self) -> str:
        """What stands beside the row: `trades, ε = 0.2`."""
        return cell_text(self.unit, self.cell)

    def mean(self, what: str) -> float:
        """The mean over the images of one of the numbers of a `Landscape`."""
        return float(np.mean([getattr(one, what) for one in self.found]))


@dataclass(frozen=True)
class Landscapes:
    """What is shown of a study.

    Attributes:
        norm: of the directions.
        epsilon: the budget that the methods were trained at, which is the unit of the grids.
        rows: in the study's order, the same images in each.
        methods: how many methods have any.
    """

    norm: str
    epsilon: float
    rows: tuple[Row, ...]
    methods: int

    @cached_property
    def stride(self) -> int:
        """Every which pixel is drawn."""
        return stride(self.rows[0].found[0].image.shape[1:])

    @property
    def some(self) -> str:
        """Say that not all methods are shown, where they are not."""
        if self.methods == len(self.rows):
            return ""
        return f" Shown are the study's first {len(self.rows)} methods of {self.methods}."


def landscapes(shown: Shown) -> Landscapes | None:
    """Choose what is shown: the methods that were trained at the largest budget, or without one.

    Returns:
        None if nobody looked.
    """
    table = shown.collected.landscapes
    if table.num_rows == 0:
        return None
    epsilon = pc.max(table["epsilon"]).as_py()
    table = table.filter(pc.equal(table["epsilon"], epsilon))
    looked = set(table["cell"].unique().to_pylist())
    first = [(unit, _first(unit.cells, looked)) for unit in shown.units]
    chosen = [(unit, cell) for unit, cell in first if cell]
    rows = tuple(
        Row(unit, cell, _landscapes(table, cell.cell)) for unit, cell in chosen[:MOST_ROWS]
    )
    return Landscapes(table["norm"][0].as_py(), epsilon, rows, len(chosen)) if rows else None


def number(value: float) -> str:
    """Write a loss or a length to two digits: `14`, `0.035`, `< 0.0001`."""
    if not math.isfinite(value):
        return NOTHING
    if value < LEAST:
        return f"< {LEAST:f}".rstrip("0") if value else "0"
    return f"{value:.{max(0, 1 - math.floor(math.log10(value)))}f}"


def _first(cells: Sequence[Measured], looked: set[str]) -> Measured | None:
    return next((cell for cell in cells if cell.cell in looked), None)


def _landscapes(table: pa.Table, cell: str) -> tuple[Landscape, ...]:
    rows = table.filter(pc.equal(table["cell"].cast(pa.string()), cell)).to_pylist()
    return tuple(_landscape(row) for row in rows)


def _landscape(row: Mapping[str, Any]) -> Landscape:
    shape = row["channels"], row["height"], row["width"]
    scaled = np.frombuffer(row["gradient"], "<f2").astype(np.float32)
    return Landscape(
        example=row["example"],
        label=row["label_name"],
        image=stored_image(row),
        gradient=(row["largest"] * scaled).astype(np.float32).reshape(shape),
        loss=np.frombuffer(row["loss"], "<f4").reshape(row["side"], row["side"]),
        reach=row["reach"],
    )
