"""Flags: what a reader has to know of a row before its numbers, in words."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from advtrain.reporting.measure import Certified, Evaluated, Measured
from advtrain.reporting.statistics import (
    Correct,
    Run,
    common_places,
    difference,
    share,
    wilson,
)

OVERFITTING_GAP = 0.20
"""By how much a single-step attack's robust accuracy has to exceed the strongest iterative one."""

ROBUST_OVERFITTING_GAP = 0.01
"""By how much the best epoch's robust accuracy has to exceed the last one's, beyond the noise."""


@dataclass(frozen=True)
class Flag:
    """One warning.

    Attributes:
        kind: `collapsed`, `stopped`, `catastrophic overfitting`, `robust overfitting`, `unsound`,
            `failed`, `missing` or `incomplete`.
        text: the warning, with a place `{name}` for each value.
        values: shares in [0, 1], and texts.
        seeds: the seeds that it is about; empty for all.
    """

    kind: str
    text: str
    values: Mapping[str, float | str] = field(default_factory=dict)
    seeds: tuple[int, ...] = ()

    def words(self, number: Callable[[float], str]) -> str:
        """Say it, with shares written by `number`."""
        values = {
            name: value if isinstance(value, str) else number(value)
            for name, value in self.values.items()
        }
        said = f"{self.kind}: {self.text.format(**values)}"
        if self.seeds:
            said += f" (seed{'s' * (len(self.seeds) > 1)} {', '.join(map(str, self.seeds))})"
        return said


def collapse(cell: Measured, clean: Correct | None, classes: int) -> Flag | None:
    """Flag a cell that learned nothing, or stopped learning.

    That is: its training ended as collapsed, or the 95 % Wilson interval of its clean accuracy
    contains chance (one in `classes`) or lies below it.

    Args:
        cell: the cell.
        clean: (N,) it was right on the clean image; None if that is not known.
        classes: of the data set.
    """
    if cell.status == "collapsed":
        return Flag("collapsed", "{cause}", {"cause": cell.cause or "no cause recorded"})
    if clean is not None:
        accuracy = float(np.mean(clean))
        if wilson(accuracy, len(clean))[0] <= 1 / classes:
            return Flag(
                "collapsed",
                "clean accuracy {clean} is not distinguishable from chance, {chance}",
                {"clean": accuracy, "chance": 1 / classes},
            )
    return None


def stopped(cell: Measured) -> Flag | None:
    """Flag a training that its own method ended before its last epoch."""
    if cell.status != "stopped":
        return None
    return Flag("stopped", "{cause}", {"cause": cell.cause or "no cause recorded"})


class StepGap(NamedTuple):
    """What one step leaves right and several do not, of the examples that both attacks met.

    Attributes:
        easy: the single-step attack.
        easy_accuracy: what it leaves of them.
        hard: the iterative attack.
        hard_accuracy: what it leaves of them.
        examples: how many both met.
        met: how many met the one of them that met more.
    """

    easy: str
    easy_accuracy: float
    hard: str
    hard_accuracy: float
    examples: int
    met: int

    @property
    def gap(self) -> float:
        """By how much the two differ."""
        return self.easy_accuracy - self.hard_accuracy

    @property
    def allowed(self) -> float:
        """Up to which gap the model is not called overfitted to one step."""
        return max(OVERFITTING_GAP, self.hard_accuracy)

    @property
    def on(self) -> str:
        """Say on how many examples, with a place `{examples}`, if they are not all."""
        return ", on the {examples} examples that met both" if self.examples < self.met else ""

    @property
    def values(self) -> dict[str, float | str]:
        """What a text can say of it: the names, the shares, and how many examples."""
        shares = {"easy_accuracy": self.easy_accuracy, "hard_accuracy": self.hard_accuracy}
        return {"easy": self.easy, "hard": self.hard, "examples": str(self.examples), **shares}


def step_gap(evaluations: Iterable[Evaluated]) -> StepGap | None:
    """Compare the single-step attacks of one budget with the iterative ones.

    Each two are compared on the examples that both met.

    Returns:
        The two whose gap exceeds what is allowed by most, or comes nearest to it: where all met
        the same examples, the single-step attack that leaves most and the iterative one that
        leaves least. None without two that met the same example.
    """
    attacks = sorted(evaluations, key=lambda one: one.attack)
    found = [
        gap
        for easy in attacks
        for hard in attacks
        if easy.backwards == 1 and hard.backwards > 1 and (gap := _step_gap(easy, hard))
    ]
    # Of equal ones that on most examples, then the last single step by name, the first iterative.
    return max(found, key=lambda gap: (gap.gap - gap.allowed, gap.examples, gap.easy), default=None)


def _step_gap(easy: Evaluated, hard: Evaluated) -> StepGap | None:
    """Compare two attacks on the examples that both met; None if there are none."""
    ours, theirs = common_places(easy.example, hard.example)
    withstood, fallen = easy.robust[ours], hard.robust[theirs]
    if not len(withstood):
        return None
    return StepGap(
        easy=easy.attack,
        easy_accuracy=share(withstood),
        hard=hard.attack,
        hard_accuracy=share(fallen),
        examples=len(withstood),
        met=max(len(easy.example), len(hard.example)),
    )


def overfitting(evaluations: Iterable[Evaluated]) -> Flag | None:
    """Flag catastrophic overfitting: robust to one step, and not to several.

    That is: at one budget, the robust accuracy under a single-step attack (one backward pass)
    exceeds that under the strongest iterative one (several) by more than 20 points and is more
    than twice that (several steps cost every defence some points at large budgets), both on the
    examples that met the two. Named by Wong et al. (2020), where the second goes to zero within an
    epoch.
    """
    found = step_gap(evaluations)
    # The tolerance keeps a gap of exactly 20 points out, whatever the rounding of the two shares.
    if found is None or found.gap <= found.allowed + 1e-9:
        return None
    return Flag(
        "catastrophic overfitting",
        "robust accuracy {easy_accuracy} under {easy}, {hard_accuracy} under {hard}" + found.on,
        found.values,
    )


def robust_overfitting(last: Run, best: Run) -> Flag | None:
    """Flag robust overfitting: the robust accuracy fell after the best epoch.

    That is: the worst-case accuracy of the best epoch's weights exceeds that of the last epoch's
    by more than 1 point, by the lower end of the 95 % interval of the paired difference. Named by
    Rice et al. (2020), who find it in most adversarial trainings that go on for long.
    """
    gap = difference([best], [last])
    if gap is None or gap.low <= ROBUST_OVERFITTING_GAP:
        return None
    return Flag(
        "robust overfitting",
        "worst-case accuracy {best} at the best epoch, {last} at the last",
        {"best": float(np.mean(best.correct)), "last": float(np.mean(last.correct))},
    )


def attacks_within(cell: Measured, one: Certified) -> list[Evaluated]:
    """Return the attacks that could refute a certificate: on the same weights, within its budget.

    A certificate that finds a radius for each example speaks of another predictor (the smoothed
    model), which no attack here was run on: none could.
    """
    return [
        attack
        for attack in cell.evaluations
        if (attack.norm, attack.weights) == (one.norm, "last")
        and one.epsilon is not None
        and attack.epsilon is not None
        and attack.epsilon <= one.epsilon
    ]


def refuted(cell: Measured, one: Certified) -> dict[str, int]:
    """Count the examples that are certified and were broken, by the attack that broke them."""
    found = {}
    for attack in attacks_within(cell, one):
        proven = one.example[one.certified(one.epsilon or 0.0)]
        broken = attack.example[~(attack.clean & attack.robust)]
        if count := len(np.intersect1d(proven, broken)):
            found[attack.name] = count
    return found


def unsound(cell: Measured, one: Certified) -> Flag | None:
    """Flag a certificate that an attack refutes: a result that shows a bug.

    That is: an example is proven to be classified right within a budget, and the last weights
    were wrong on it, at the clean image or at the point of an attack within that budget.
    """
    found = refuted(cell, one)
    if not found:
        return None
    said = ", ".join(f"{count} by {attack}" for attack, count in found.items())
    return Flag("unsound", f"certified examples were broken, {said}: this is a bug")


def merge(flags: Iterable[tuple[Flag, int]], seeds: Sequence[int]) -> tuple[Flag, ...]:
    """Say once what holds for several seeds.

    Args:
        flags: each with its seed.
        seeds: the seeds of the row; with one alone, no seed is named.
    """
    merged: list[Flag] = []
    for flag, seed in flags:
        for place, other in enumerate(merged):
            if (other.kind, other.text, other.values) == (flag.kind, flag.text, flag.values):
                merged[place] = replace(other, seeds=tuple(sorted({*other.seeds, seed})))
                break
        else:
            merged.append(replace(flag, seeds=(seed,)))
    if len(seeds) == 1:
        merged = [replace(flag, seeds=()) for flag in merged]
    return tuple(merged)
