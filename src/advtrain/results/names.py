"""The names of cells and evaluations, read back into their parts."""

import functools
import re
from dataclasses import dataclass

from advtrain.params.quantities import fraction

CELL = re.compile(
    r"(?P<label>[^-]+)(?:-(?P<norm>linf|l2|l1)-(?P<epsilon>.+))?-s(?P<seed>\d+)", re.ASCII
)
EVALUATION = re.compile(
    r"(?P<attack>[^-]+)-(?P<norm>linf|l2|l1|spatial|corruption)"
    r"(?:-(?P<epsilon>[\d.].*?))?(?:-(?P<weights>last|best))?"
)


@dataclass(frozen=True)
class CellName:
    """The parts of `trades-linf-8_255-s0`; a natural cell has no norm and no epsilon."""

    label: str
    norm: str | None
    epsilon: float | None
    seed: int


@dataclass(frozen=True)
class EvaluationName:
    """The parts of `pgd_20-linf-8_255`, or of `pgd_20-linf-8_255-best`.

    `attack` is the name of a certificate where one was computed. One that finds a radius for each
    example has no budget: `smoothing_025-l2`. Nor has a transformation of the image, whose norm is
    its kind: `rotations-spatial`, `fog_3-corruption`.
    """

    attack: str
    norm: str
    epsilon: float | None
    weights: str


def parse_cell(name: str) -> CellName:
    """Read a cell's name.

    Args:
        name: such as `trades-linf-8_255-s0` or `natural-s1`.

    Raises:
        ValueError: if it is not a cell's name.
    """
    if found := CELL.fullmatch(name):
        epsilon = found["epsilon"]
        return CellName(
            label=found["label"],
            norm=found["norm"],
            epsilon=None if epsilon is None else fraction(epsilon.replace("_", "/")),
            seed=int(found["seed"]),
        )
    raise ValueError(
        f"{name!r} is not the name of a cell; expected one such as trades-linf-8_255-s0, natural-s0"
    )


@functools.cache
def parse_evaluation(name: str) -> EvaluationName:
    """Read an evaluation's name.

    Args:
        name: such as `pgd_20-linf-8_255`, or `smoothing_025-l2` without a budget; an ending
            `-best` tells of the best weights, none of the last.

    Raises:
        ValueError: if it is not an evaluation's name.
    """
    if found := EVALUATION.fullmatch(name):
        epsilon = found["epsilon"]
        return EvaluationName(
            attack=found["attack"],
            norm=found["norm"],
            epsilon=None if epsilon is None else fraction(epsilon.replace("_", "/")),
            weights=found["weights"] or "last",
        )
    raise ValueError(
        f"{name!r} is not the name of an evaluation; expected one such as pgd_20-linf-8_255"
    )


def epsilon_text(epsilon: float) -> str:
    """Write a budget the way it is spoken of: 0.2 -> `0.2`, 0.03137... -> `8/255`."""
    short = f"{epsilon:.4g}"
    levels = epsilon * 255
    if float(short) != epsilon and abs(levels - round(levels)) < 1e-9:
        return f"{round(levels)}/255"
    return short
