"""Flags: what a reader has to know of a row before its numbers, in words."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from advtrain.reporting.measure import Evaluated, Measured
from advtrain.reporting.statistics import wilson

OVERFITTING_GAP = 0.20
"""By how much a single-step attack's robust accuracy has to exceed the strongest iterative one."""


@dataclass(frozen=True)
class Flag:
    """One warning.

    Attributes:
        kind: `collapsed`, `catastrophic overfitting`, `failed`, `missing` or `incomplete`.
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


def collapse(cell: Measured, evaluations: Sequence[Evaluated], classes: int) -> Flag | None:
    """Flag a cell that learned nothing, or stopped learning.

    That is: its training ended as collapsed, or the 95 % Wilson interval of its clean accuracy
    contains chance (one in `classes`) or lies below it.
    """
    if cell.status == "collapsed":
        return Flag("collapsed", "{cause}", {"cause": cell.cause or "no cause recorded"})
    if evaluations:
        clean = evaluations[0].clean
        accuracy = float(np.mean(clean))
        if wilson(accuracy, len(clean))[0] <= 1 / classes:
            return Flag(
                "collapsed",
                "clean accuracy {clean} is not above chance, {chance}",
                {"clean": accuracy, "chance": 1 / classes},
            )
    return None


def overfitting(evaluations: Iterable[Evaluated]) -> Flag | None:
    """Flag catastrophic overfitting: robust to one step, and not to several.

    That is: at one budget, the robust accuracy under a single-step attack (one backward pass)
    exceeds that under the strongest iterative one (several) by more than 20 points. Named by Wong
    et al. (2020), where the second goes to zero within an epoch.
    """
    single: dict[str, float] = {}
    iterative: dict[str, float] = {}
    for one in evaluations:
        if one.backwards:
            kind = single if one.backwards == 1 else iterative
            kind[one.attack] = float(np.mean(one.robust))
    if not single or not iterative:
        return None
    easy = max(single, key=lambda name: (single[name], name))
    hard = min(iterative, key=lambda name: (iterative[name], name))
    # The tolerance keeps a gap of exactly 20 points out, whatever the rounding of the two shares.
    if single[easy] - iterative[hard] <= OVERFITTING_GAP + 1e-9:
        return None
    return Flag(
        "catastrophic overfitting",
        "robust accuracy {easy_accuracy} under {easy}, {hard_accuracy} under {hard}",
        {
            "easy": easy,
            "easy_accuracy": single[easy],
            "hard": hard,
            "hard_accuracy": iterative[hard],
        },
    )


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
