"""Which attacked images a figure shows: one row per method, the same examples in each."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advtrain.reporting.measure import Measured, Unit
from advtrain.reporting.study import StudyInfo
from advtrain.results.collect import Collected
from advtrain.results.names import EvaluationName, epsilon_text, parse_evaluation

MOST_ROWS = 8
"""How many methods a figure can show and still be printed."""

MOST_PIXELS = 128
"""How many pixels of an image can be seen beside one another in a figure."""

Image = NDArray[np.float32]
"""(C, H, W) in [0, 1]."""


@dataclass(frozen=True)
class Example:
    """One attacked test image.

    Attributes:
        example: its id.
        label: the name of its class.
        said: the name of the class that the model gives the attacked image.
        verdict: `right`, `fooled`, or `wrong before`, without the attack.
        clean: the image.
        x_adv: the attacked image.
    """

    example: int
    label: str
    said: str
    verdict: str
    clean: Image
    x_adv: Image


@dataclass(frozen=True)
class Gallery:
    """The attacked images of a study that are shown.

    Attributes:
        attack: the attack, and its budget if it has one.
        budget: that the methods were trained at; None if all train without one.
        rows: the examples of each method, in the study's order.
        cells: whose images the rows show.
        methods: how many methods have any.
    """

    attack: EvaluationName
    budget: float | None
    rows: tuple[tuple[Unit, tuple[Example, ...]], ...]
    cells: tuple[Measured, ...]
    methods: int

    @property
    def attack_text(self) -> str:
        """The attack in words: `pgd_20 (linf, ε = 0.2)`, or its name if it has no budget."""
        if self.attack.epsilon is None:
            return self.attack.attack
        return f"{self.attack.attack} ({self.attack.norm}, ε = {epsilon_text(self.attack.epsilon)})"

    @property
    def stride(self) -> int:
        """Every which pixel is drawn."""
        return stride(side for _, row in self.rows for one in row for side in one.clean.shape[1:])

    @property
    def magnification(self) -> float:
        """What the differences are multiplied by, so that the largest is black or white."""
        largest = max(
            float(np.abs(one.x_adv - one.clean).max()) for _, row in self.rows for one in row
        )
        return 0.5 / largest if largest else 1.0


def gallery(collected: Collected, grouped: Sequence[Unit], info: StudyInfo) -> Gallery | None:
    """Choose what is shown: the study's first attack that kept images, at the largest budget.

    Each method was trained at the budget that it is attacked at, or without one; of its cells, the
    one of the lowest seed is shown.

    Args:
        collected: the study's rows.
        grouped: its units, in the order of the study.
        info: the study in words.

    Returns:
        None if no images were kept.
    """
    kept: dict[EvaluationName, dict[str, list[Example]]] = {}
    for row in collected.adversarial.to_pylist():
        cells = kept.setdefault(parse_evaluation(row["attack"]), {})
        cells.setdefault(row["cell"], []).append(_example(row))
    shown = {
        (attack, unit.name): next((tuple(of[c.cell]) for c in unit.cells if c.cell in of), ())
        for attack, of in kept.items()
        for unit in grouped
    }
    order = {attack: place for place, attack in enumerate(info["attacks"])}

    def rank(choice: tuple[EvaluationName, float | None]) -> tuple[int, str, float, float]:
        attack, budget = choice
        place = order.get(attack.attack, len(order))
        # Where nothing was trained at a budget, the attack's smallest.
        return place, attack.attack, -(budget or 0.0), attack.epsilon or 0.0

    choices = [
        (attack, unit.epsilon)
        for attack in kept
        for unit in grouped
        if shown[attack, unit.name]
        and (unit.epsilon is None or attack.epsilon in (None, unit.epsilon))
    ]
    if not choices:
        return None
    attack, budget = min(choices, key=rank)
    rows = [
        (unit, shown[attack, unit.name])
        for unit in grouped
        if unit.epsilon in (None, budget) and shown[attack, unit.name]
    ]
    seen = [next(cell for cell in unit.cells if cell.cell in kept[attack]) for unit, _ in rows]
    return Gallery(attack, budget, tuple(rows[:MOST_ROWS]), tuple(seen[:MOST_ROWS]), len(rows))


def stride(sides: Iterable[int]) -> int:
    """Say every which pixel is drawn; more than can be seen would only make the files large.

    Args:
        sides: of the images, in pixels.
    """
    return math.ceil(max(sides) / MOST_PIXELS)


def stored_image(row: Mapping[str, Any]) -> Image:
    """Return the image of a row that has its bytes: `channels`, `height`, `width` and `image`."""
    shape = row["channels"], row["height"], row["width"]
    stored = np.frombuffer(row["image"], np.uint8).reshape(shape)
    return stored.astype(np.float32) / np.float32(255)


def short(name: str, most: int = 12) -> str:
    """Cut the name of a class to what fits below a picture."""
    return name if len(name) <= most else f"{name[: most - 1]}…"


def _example(row: dict[str, Any]) -> Example:
    shape = row["channels"], row["height"], row["width"]
    verdict = "right" if row["adversarial_prediction"] == row["label"] else "fooled"
    if row["clean_prediction"] != row["label"]:
        verdict = "wrong before"
    return Example(
        example=row["example"],
        label=row["label_name"],
        said=row["adversarial_prediction_name"],
        verdict=verdict,
        clean=np.frombuffer(row["clean"], "<f4").reshape(shape),
        x_adv=np.frombuffer(row["x_adv"], "<f4").reshape(shape),
    )
