"""Findings: what an audit says of a cell, and when a number is beyond noise."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import numpy as np

from advtrain.reporting.measure import Evaluated
from advtrain.reporting.statistics import (
    Correct,
    Run,
    common_places,
    difference,
    share,
    wilson,
)

TOLERANCE = 0.002
"""By how much the weaker of two attacks may win: the 0.2 points beyond which AutoAttack warns of
Square. With 500 examples, 7 that it alone breaks are that, beyond the noise."""

Status = Literal["pass", "fail", "not applicable"]


@dataclass(frozen=True)
class Finding:
    """What one audit found of one cell.

    Attributes:
        text: the evidence, with a place `{name}` for each value.
        values: shares in [0, 1], and texts.
        value: what was measured; None if the audit does not apply.
        bound: the most that passes.
    """

    text: str
    values: Mapping[str, float | str] = field(default_factory=dict)
    value: float | None = None
    bound: float = 0.0

    @property
    def status(self) -> Status:
        """Whether the audit passed; with a value that is no number it did not."""
        if self.value is None:
            return "not applicable"
        # The tolerance keeps what is exactly at the bound within it.
        return "pass" if self.value <= self.bound + 1e-9 else "fail"

    def words(self, number: Callable[[float], str]) -> str:
        """Say the evidence, with shares written by `number`."""
        values = {
            name: value if isinstance(value, str) else number(value)
            for name, value in self.values.items()
        }
        return self.text.format(**values)


class Left(NamedTuple):
    """What one attack, or several, left right."""

    name: str
    run: Run

    @property
    def accuracy(self) -> float:
        """The share of the examples that it left."""
        return share(self.run.correct)


def left(one: Evaluated) -> Left:
    """Return which examples an attack left right, of those that were right without."""
    return Left(one.name, Run(one.example, one.clean & one.robust))


def stronger(strong: Left, weak: Left) -> Finding | None:
    """Judge that one attack leaves no more than another, by `TOLERANCE` beyond noise.

    Args:
        strong: the attack that should leave no more.
        weak: the other.

    Returns:
        The finding over the examples that both met, whose value is the lower end of the 95 %
        interval of the paired difference; None if there are none.
    """
    found = difference([strong.run], [weak.run])
    if found is None:
        return None
    values: dict[str, float | str] = {"mean": found.mean, "low": found.low}
    for name, one, other in (("strong", strong, weak), ("weak", weak, strong)):
        both, _ = common_places(one.run.example, other.run.example)
        values |= {name: one.name, f"{name}_accuracy": share(one.run.correct[both])}
    text = (
        "{strong} leaves {strong_accuracy}, {weak} {weak_accuracy}; the difference is {mean}, at "
        "least {low}"
    )
    return Finding(text, values, found.low, TOLERANCE)


def at_most(share: float, bad: Correct, text: str) -> Finding:
    """Judge that no more than a share of the examples is bad, beyond noise.

    Args:
        share: what is allowed.
        bad: (N,) booleans.
        text: the evidence, with a place `{share}`, and `{count}` for N.

    Returns:
        The finding, whose value is the lower end of the 95 % Wilson interval.
    """
    found = float(np.mean(bad))
    low, _ = wilson(found, len(bad))
    return Finding(text, {"share": found, "count": str(len(bad))}, low, share)


def worst(found: Iterable[Finding | None], otherwise: Finding) -> Finding:
    """Return the finding that is nearest to failing, or fails by most.

    Args:
        found: of one audit; None for what could not be judged.
        otherwise: the finding if there is none.
    """
    known = [one for one in found if one is not None]
    failed = [one for one in known if one.status == "fail"]
    if not known:
        return otherwise
    chosen = max(failed or known, key=lambda one: (one.value or 0.0) - one.bound)
    if len(failed) > 1:
        return replace(chosen, text=f"{chosen.text} (and {len(failed) - 1} more)")
    return chosen
