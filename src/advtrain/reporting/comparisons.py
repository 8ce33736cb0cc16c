"""Comparisons: which method withstood more than which, and where that is not known."""

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from advtrain.reporting.budgets import expected_attacks, worst_run
from advtrain.reporting.measure import Unit
from advtrain.reporting.results import ResultRow
from advtrain.reporting.statistics import Estimate, Run, common_places, difference
from advtrain.reporting.study import StudyInfo

LEVEL = 0.05
"""The chance, over all pairs of one budget, to call any pair different that is not."""


@dataclass(frozen=True)
class Pair:
    """Two units attacked at one budget.

    Attributes:
        one: a unit.
        other: another.
        norm: of the evaluation.
        epsilon: the evaluation budget.
        seeds: those that both have.
        alone: of all seeds, how many examples `one` alone withstood, and how many `other` alone.
        gap: worst-case accuracy of `one` minus that of `other`.
        p: the largest p-value over the seeds.
        adjusted: the same, corrected for the number of pairs.
    """

    one: Unit
    other: Unit
    norm: str
    epsilon: float
    seeds: tuple[int, ...]
    alone: tuple[int, int]
    gap: float
    p: float
    adjusted: float

    @property
    def better(self) -> Unit | None:
        """The unit that withstood more, where that is more than chance."""
        if self.adjusted >= LEVEL:
            return None
        return self.one if self.gap > 0 else self.other


@dataclass(frozen=True)
class ComparisonRow:
    """One unit at one budget, against all the others there.

    Attributes:
        unit: the cells that the row is about.
        norm: of the evaluation.
        epsilon: the evaluation budget.
        worst: its worst-case accuracy.
        better: the units that it withstood more than.
        same: those that it cannot be told apart from.
        worse: those that withstood more.
    """

    unit: Unit
    norm: str
    epsilon: float
    worst: Estimate | None
    better: tuple[Unit, ...]
    same: tuple[Unit, ...]
    worse: tuple[Unit, ...]


def mcnemar(one: Run, other: Run) -> tuple[int, int, float]:
    """Test whether two runs are right equally often, by McNemar's exact test (1947).

    Of the examples that one alone has right, each run should have half: the p-value is that of the
    two-sided binomial test. Examples that only one was tried on do not count.

    Returns:
        How many `one` alone has right, how many `other` alone, and the p-value in (0, 1].
    """
    ours, theirs = common_places(one.example, other.example)
    mine, yours = one.correct[ours], other.correct[theirs]
    only, lonely = int(np.sum(mine & ~yours)), int(np.sum(yours & ~mine))
    return only, lonely, min(1.0, 2 * _fair_tail(min(only, lonely), only + lonely))


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for their number by Holm's step-down method (1979).

    Returns:
        In the order given: comparing them with a level bounds the chance of any false finding.
    """
    order = np.argsort(p_values, kind="stable")
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, place in enumerate(order.tolist()):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted


def pairs(units: Sequence[Unit], results: Sequence[ResultRow], info: StudyInfo) -> list[Pair]:
    """Compare every two units that were attacked at one budget, by the worst case per example.

    With several seeds a pair is compared seed by seed, and the least certain of these tests counts:
    a unit is better only if it is so in every seed that both have, and in the same direction.

    Args:
        units: the study's cells, grouped.
        results: the rows of the results.
        info: the study.

    Returns:
        By budget, each pair once. The correction is over the pairs of one budget.
    """
    expected = expected_attacks(units, info)
    found: dict[tuple[str, float], list[tuple[Unit, dict[int, Run]]]] = {}
    for row in results:
        if not row.shown or row.norm is None or row.epsilon is None:
            continue
        threat = (row.norm, row.epsilon)
        attacks = expected.get((threat, row.weights), frozenset())
        runs = {
            cell.name.seed: run
            for cell in row.cells
            if (run := worst_run(cell, threat, row.weights, attacks))
        }
        if runs:
            found.setdefault(threat, []).append((row.unit, runs))
    made = []
    for (norm, epsilon), there in sorted(found.items()):
        tested = []
        for (one, ours), (other, theirs) in itertools.combinations(there, 2):
            seeds = tuple(sorted(set(ours) & set(theirs)))
            if not seeds:
                continue
            tests = [mcnemar(ours[seed], theirs[seed]) for seed in seeds]
            gap = difference([ours[s] for s in seeds], [theirs[s] for s in seeds])
            ahead = {np.sign(only - lonely) for only, lonely, _ in tests}
            p = max(p for _, _, p in tests) if len(ahead) == 1 else 1.0
            alone = (sum(t[0] for t in tests), sum(t[1] for t in tests))
            tested.append((one, other, seeds, alone, gap.mean if gap else 0.0, p))
        adjusted = holm([one[-1] for one in tested])
        made += [
            Pair(one, other, norm, epsilon, seeds, alone, gap, p, corrected)
            for (one, other, seeds, alone, gap, p), corrected in zip(tested, adjusted, strict=True)
        ]
    return made


def comparison_rows(results: Sequence[ResultRow], compared: Sequence[Pair]) -> list[ComparisonRow]:
    """Sort, for every unit at every budget, the others into better, worse and not told apart.

    Args:
        results: the rows of the results, whose order the rows have.
        compared: what `pairs` found.
    """
    of_unit: dict[tuple[str, str, float], list[tuple[Pair, Unit]]] = {}
    for pair in compared:
        for unit, other in ((pair.one, pair.other), (pair.other, pair.one)):
            of_unit.setdefault((unit.name, pair.norm, pair.epsilon), []).append((pair, other))
    rows = []
    for result in results:
        if not result.shown or result.norm is None or result.epsilon is None:
            continue
        sorted_: dict[str, list[Unit]] = {"better": [], "same": [], "worse": []}
        for pair, other in of_unit.get((result.unit.name, result.norm, result.epsilon), ()):
            winner = pair.better
            kind = "same" if winner is None else "worse" if winner is other else "better"
            sorted_[kind].append(other)
        if any(sorted_.values()):
            found = {kind: tuple(units) for kind, units in sorted_.items()}
            row = ComparisonRow(result.unit, result.norm, result.epsilon, result.worst, **found)
            rows.append(row)
    return rows


@functools.cache
def _fair_tail(heads: int, tosses: int) -> float:
    """Return the chance of at most so many heads of a fair coin."""
    logarithms = (
        math.lgamma(tosses + 1) - math.lgamma(k + 1) - math.lgamma(tosses - k + 1)
        for k in range(heads + 1)
    )
    return math.fsum(math.exp(one - tosses * math.log(2)) for one in logarithms)


def comparisons_data(compared: Sequence[Pair]) -> pa.Table:
    """Write the pairs as columns; the gap is a difference of shares."""
    columns: dict[str, pa.Array] = {
        "norm": pa.array([pair.norm for pair in compared], pa.string()),
        "epsilon": pa.array([pair.epsilon for pair in compared], pa.float64()),
    }
    for side in ("one", "other"):
        chosen: list[Unit] = [getattr(pair, side) for pair in compared]
        columns[f"{side}_method"] = pa.array([unit.method for unit in chosen], pa.string())
        columns[f"{side}_training_epsilon"] = pa.array(
            [unit.epsilon for unit in chosen], pa.float64()
        )
    columns["one_alone"] = pa.array([pair.alone[0] for pair in compared], pa.int64())
    columns["other_alone"] = pa.array([pair.alone[1] for pair in compared], pa.int64())
    columns["gap"] = pa.array([pair.gap for pair in compared], pa.float64())
    columns["p"] = pa.array([pair.p for pair in compared], pa.float64())
    columns["adjusted_p"] = pa.array([pair.adjusted for pair in compared], pa.float64())
    winners = [pair.better for pair in compared]
    columns["better"] = pa.array(
        [
            None if winner is None else "one" if winner is pair.one else "other"
            for pair, winner in zip(compared, winners, strict=True)
        ],
        pa.string(),
    )
    columns["seeds"] = pa.array([len(pair.seeds) for pair in compared], pa.int64())
    return pa.table(columns)
