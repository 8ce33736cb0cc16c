"""What moved between two versions of a study: which numbers, by how much, and what changed."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa

from advtrain.reporting import wording
from advtrain.reporting.budgets import withstood
from advtrain.reporting.certified import radii
from advtrain.reporting.changes import Version, evaluation_changes, training_changes
from advtrain.reporting.columns import estimate_columns, texts_column
from advtrain.reporting.comparisons import LEVEL, holm, mcnemar
from advtrain.reporting.measure import Certified, Measured, Unit, measure, units
from advtrain.reporting.sheet import Cell, Column, Sheet
from advtrain.reporting.statistics import (
    Difference,
    Estimate,
    Run,
    difference,
    estimate,
    mean_and_spread,
    wilson,
)
from advtrain.reporting.study import StudyInfo
from advtrain.results.collect import Collected

Word = Literal["same", "not beyond noise", "beyond noise", "only before", "only after"]

DEVIATIONS = 2
"""How many deviations over seeds a number has to move by, where there are several seeds."""

Key = tuple[str, str | None, float | None]
"""The method, norm and budget of a unit."""


class Number(NamedTuple):
    """What is measured of a unit.

    Attributes:
        weights: of which weights.
        norm: of the attack or certificate; None on clean images.
        epsilon: the budget or radius; None without one.
        what: `clean`, an attack, `worst case`, or `certified by` a certificate.
        evaluation: the evaluation that it is read from; empty for clean and worst case.
    """

    weights: str
    norm: str | None
    epsilon: float | None
    what: str
    evaluation: str


@dataclass(frozen=True)
class MovedRow:
    """One number of one unit in both versions.

    Attributes:
        unit: the cells that the row is about, as the later version has them, or the earlier.
        number: what is measured; None in a row of a unit that one version alone has.
        word: what became of it.
        before: the earlier number, over the seeds that both have.
        after: the later one, likewise.
        gap: the later minus the earlier; None where one version alone has the number.
        paired: the two were compared example by example: they are of the same data.
        seeds: how many seeds both have.
        p: the chance of such a difference from examples alone; 1 where the seeds disagree.
        adjusted: the same, corrected for the number of rows that are not the same.
        changes: what changed of that which it is computed from.
    """

    unit: Unit
    number: Number | None
    word: Word
    before: Estimate | None = None
    after: Estimate | None = None
    gap: Difference | None = None
    paired: bool = False
    seeds: int = 0
    p: float = 1.0
    adjusted: float = 1.0
    changes: tuple[str, ...] = ()


def moved(before: Version, after: Version, info: StudyInfo) -> Sheet:
    """Compare two versions of a study and lay out what moved: the work of both functions below."""
    return moved_sheet(moved_rows(before, after, info), before.name, after.name, info)


def moved_rows(before: Version, after: Version, info: StudyInfo) -> list[MovedRow]:
    """Compare every accuracy of two versions of a study.

    On the same data a number is compared example by example: McNemar's exact test for each seed
    that both have, of which the least certain counts, and the seeds have to agree. On other data
    (or where no seed is in both) the two shares are compared as independent ones.

    Args:
        before: the earlier version.
        after: the later one.
        info: the study, whose order of methods the rows have; the failures are of no matter.

    Returns:
        One row per unit and number, those that did not move among them; one for a unit that one
        version alone has.
    """
    old, new = (_units(version.collected, info) for version in (before, after))
    grid = radii([c for found in (old, new) for u in found.values() for c in _certificates(u)])
    rows = []
    for key in [*new, *(key for key in old if key not in new)]:
        if key not in old or key not in new:
            unit = new.get(key) or old[key]
            rows.append(MovedRow(unit, None, "only after" if key in new else "only before"))
            continue
        cells = sorted({cell.cell for cell in old[key].cells} & {c.cell for c in new[key].cells})
        trained = [one for cell in cells for one in training_changes(before, after, cell)]
        same_data = _data(before, old[key]) == _data(after, new[key])
        for number, runs in _both(old[key], new[key], grid).items():
            row = _row(new[key], number, *runs, same_data=same_data)
            changes = dict.fromkeys([*trained, *_evaluated(before, after, cells, number)])
            rows.append(replace(row, changes=tuple(changes)))
    return _judged(rows)


def moved_sheet(
    rows: Sequence[MovedRow], before: str, after: str, info: StudyInfo, *, same: bool = False
) -> Sheet:
    """Lay out what moved.

    Args:
        rows: what `moved_rows` found.
        before: what the earlier version is called.
        after: what the later one is called.
        info: the study.
        same: the numbers that are the same have rows too; the data has them anyway.
    """
    shown = [row for row in rows if same or row.word != "same"]
    common = _common(shown)
    several = len({row.number.weights for row in shown if row.number}) > 1
    columns = (
        *(Column("method", "name"), Column("trained at ε"), Column("number", "name")),
        *(Column("norm", "name"), Column("at ε"), *([Column("weights", "name")] * several)),
        *(Column(f"{before}, %"), Column(f"{after}, %"), Column("moved, points")),
        *(Column("examples"), Column("seeds"), Column("verdict", "name")),
        Column("what changed", "notes"),
    )
    return Sheet(
        title=f"{info['title']}: what moved from {before} to {after}",
        reading=_reading(rows, common),
        columns=columns,
        rows=tuple(_laid(row, common, several=several) for row in shown),
        data=moved_data(rows),
    )


def moved_data(rows: Sequence[MovedRow]) -> pa.Table:
    """Write the rows as columns: accuracies and their differences are shares."""
    numbers = [row.number for row in rows]
    columns: dict[str, pa.Array] = {
        "method": pa.array([row.unit.method for row in rows], pa.string()),
        "training_norm": pa.array([row.unit.norm for row in rows], pa.string()),
        "training_epsilon": pa.array([row.unit.epsilon for row in rows], pa.float64()),
        "number": pa.array([one and one.what for one in numbers], pa.string()),
        "norm": pa.array([one and one.norm for one in numbers], pa.string()),
        "epsilon": pa.array([one and one.epsilon for one in numbers], pa.float64()),
        "weights": pa.array([one and one.weights for one in numbers], pa.string()),
    }
    columns |= estimate_columns("before", [row.before for row in rows])
    columns |= estimate_columns("after", [row.after for row in rows])
    columns |= estimate_columns("moved", [row.gap for row in rows])
    columns["paired"] = pa.array([row.paired for row in rows], pa.bool_())
    columns["examples"] = pa.array([row.gap and row.gap.examples for row in rows], pa.int64())
    columns["seeds"] = pa.array([row.seeds for row in rows], pa.int64())
    columns["p"] = pa.array([row.p for row in rows], pa.float64())
    columns["adjusted_p"] = pa.array([row.adjusted for row in rows], pa.float64())
    columns["verdict"] = pa.array([row.word for row in rows], pa.string())
    columns["changes"] = texts_column([row.changes for row in rows])
    return pa.table(columns)


def _units(collected: Collected, info: StudyInfo) -> dict[Key, Unit]:
    found = units(measure(collected), {**info, "failures": []})
    return {(unit.method, unit.norm, unit.epsilon): unit for unit in found}


def _certificates(unit: Unit) -> list[Certified]:
    return [one for cell in unit.cells for one in cell.certificates]


def _data(version: Version, unit: Unit) -> set[str]:
    return {version.cells[cell.cell]["data_hash"] for cell in unit.cells}


Runs = Mapping[int, Run]
"""Who was right, by seed."""


def _both(
    old: Unit, new: Unit, grid: Mapping[tuple[str, str], tuple[float, ...]]
) -> dict[Number, tuple[Runs, Runs]]:
    """Return each number of two versions of a unit, in the order of the later one."""
    attacks = _attacks([*old.cells, *new.cells])
    theirs, ours = (_numbers(unit, attacks, grid) for unit in (old, new))
    order = [*ours, *(number for number in theirs if number not in ours)]
    order.sort(key=lambda n: (n.weights != "last", n.what != "clean", n.norm or "", n.epsilon or 0))
    return {number: (theirs.get(number, {}), ours.get(number, {})) for number in order}


def _attacks(cells: Sequence[Measured]) -> dict[tuple[str, str, float], frozenset[str]]:
    """List the attacks that all cells met, by weights and budget: those of the worst case."""
    met: dict[tuple[str, str, float], list[set[str]]] = {}
    for cell in cells:
        own: dict[tuple[str, str, float], set[str]] = {}
        for one in cell.evaluations:
            if one.epsilon is not None:
                own.setdefault((one.weights, one.norm, one.epsilon), set()).add(one.attack)
        for place, names in own.items():
            met.setdefault(place, []).append(names)
    common = {place: frozenset.intersection(*map(frozenset, one)) for place, one in met.items()}
    return {place: names for place, names in common.items() if len(names) > 1}


def _numbers(
    unit: Unit,
    attacks: Mapping[tuple[str, str, float], frozenset[str]],
    grid: Mapping[tuple[str, str], tuple[float, ...]],
) -> dict[Number, dict[int, Run]]:
    """Return each number of a unit, by seed."""
    found: dict[Number, dict[int, Run]] = {}

    def add(number: Number, seed: int, run: Run | None) -> None:
        if run is not None:
            found.setdefault(number, {}).setdefault(seed, run)

    for cell in unit.cells:
        seed = cell.name.seed
        for one in sorted(cell.evaluations, key=lambda one: -len(one.example)):
            add(Number(one.weights, None, None, "clean", ""), seed, Run(one.example, one.clean))
        for one in cell.evaluations:
            place = Number(one.weights, one.norm, one.epsilon, one.attack, one.name)
            add(place, seed, Run(one.example, one.robust))
        for (weights, norm, epsilon), names in attacks.items():
            here = [
                one
                for one in cell.evaluations
                if (one.weights, one.norm, one.epsilon) == (weights, norm, epsilon)
            ]
            add(Number(weights, norm, epsilon, "worst case", ""), seed, withstood(here, names))
        for proof in cell.certificates:
            within = grid[proof.certificate, proof.norm] if proof.epsilon is None else ()
            for radius in within or (proof.epsilon or 0.0,):
                what = f"certified by {proof.certificate}"
                place = Number("last", proof.norm, radius, what, proof.name)
                add(place, seed, Run(proof.example, proof.certified(radius)))
    return found


def _row(unit: Unit, number: Number, old: Runs, new: Runs, *, same_data: bool) -> MovedRow:
    seeds = sorted(old.keys() & new.keys())
    theirs = [old[seed] for seed in seeds or old]
    ours = [new[seed] for seed in seeds or new]
    before, after = estimate(theirs), estimate(ours)
    if before is None or after is None:
        return MovedRow(unit, number, "only after" if after else "only before", before, after)
    gap = difference(ours, theirs, same_runs=True) if same_data and seeds else None
    if gap is None:
        gap, p = _unpaired(theirs, ours)
        return MovedRow(
            unit,
            number,
            "not beyond noise",
            before,
            after,
            gap,
            paired=False,
            seeds=len(seeds),
            p=p,
        )
    pairs = list(zip(ours, theirs, strict=True))
    tests = [mcnemar(one, other) for one, other in pairs]
    agree = len({np.sign(only - lonely) for only, lonely, _ in tests}) == 1
    p = max(p for _, _, p in tests) if agree else 1.0
    same = all(_same(one, other) for one, other in pairs)
    word: Word = "same" if same else "not beyond noise"
    return MovedRow(unit, number, word, before, after, gap, paired=True, seeds=len(seeds), p=p)


def _same(one: Run, other: Run) -> bool:
    return np.array_equal(one.example, other.example) and np.array_equal(one.correct, other.correct)


def _unpaired(theirs: Sequence[Run], ours: Sequence[Run]) -> tuple[Difference, float]:
    """Compare two shares of different examples.

    The interval is Newcombe's (1998, method 10) from the two of Wilson, the p-value that of the
    pooled score test. As everywhere, seeds share their examples and count them once.
    """
    (old, n), (new, m) = (
        (
            float(np.mean([run.correct.mean() for run in runs])),
            len(np.unique(np.concatenate([run.example for run in runs]))),
        )
        for runs in (theirs, ours)
    )
    (old_low, old_high), (new_low, new_high) = wilson(old, n), wilson(new, m)
    low = new - old - math.hypot(new - new_low, old_high - old)
    high = new - old + math.hypot(new_high - new, old - old_low)
    pooled = (n * old + m * new) / (n + m)
    deviation = math.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m))
    p = 2 * NormalDist().cdf(-abs(new - old) / deviation) if deviation else 1.0
    spreads = [mean_and_spread([run.correct.mean() for run in runs])[1] for runs in (theirs, ours)]
    known = [one for one in spreads if one is not None]
    spread = math.hypot(*known) if len(known) == len(spreads) else None
    return Difference(new - old, max(-1.0, low), min(1.0, high), spread, min(n, m)), p


def _judged(rows: Sequence[MovedRow]) -> list[MovedRow]:
    """Correct the p-values for the numbers that are not the same, and say what is beyond noise."""
    tested = [place for place, row in enumerate(rows) if row.word == "not beyond noise"]
    judged = list(rows)
    adjusted = holm([rows[place].p for place in tested])
    for place, p in zip(tested, adjusted, strict=True):
        row = rows[place]
        word: Word = "beyond noise" if p < LEVEL and _beyond_seeds(row.gap) else "not beyond noise"
        judged[place] = replace(row, adjusted=p, word=word)
    return judged


def _beyond_seeds(gap: Difference | None) -> bool:
    if gap is None or gap.spread is None:
        return True
    return abs(gap.mean) > DEVIATIONS * gap.spread


def _evaluated(before: Version, after: Version, cells: Sequence[str], number: Number) -> list[str]:
    """Say what changed in the evaluations that a number is read from."""
    return [
        one
        for cell in cells
        for name in ([number.evaluation] if number.evaluation else _read(after, cell, number))
        for one in evaluation_changes(before, after, cell, name)
    ]


def _read(version: Version, cell: str, number: Number) -> list[str]:
    """List the attacks that a worst case is over; of clean images no attack matters."""
    if number.what == "clean":
        return []
    return [
        name
        for name, one in version.cells[cell]["evaluations"].items()
        if one["weights"] == number.weights
        and one["params"].get("threat") == {"norm": number.norm, "epsilon": number.epsilon}
        and "attack" in one["params"]
    ]


def _common(rows: Sequence[MovedRow]) -> tuple[str, ...]:
    """List the changes of every number that both versions have: they are said once."""
    both = [row.changes for row in rows if row.gap is not None]
    if len(both) < 2:
        return ()
    return tuple(one for one in both[0] if all(one in changes for changes in both))


def _reading(rows: Sequence[MovedRow], common: Sequence[str]) -> str:
    counts = Counter(row.word for row in rows if row.gap is not None)
    alone = Counter(row.word for row in rows if row.gap is None)
    if not rows:
        return "There is nothing to compare."
    words: tuple[Word, ...] = ("same", "not beyond noise", "beyond noise")
    told = [f"{counts[word]} {word}" for word in words if counts[word]]
    told += [f"{count} rows {word}" for word, count in sorted(alone.items())]
    said = f"Of {counts.total()} numbers: {', '.join(told)}. Same: no example differs."
    differ = [row for row in rows if row.gap is not None and row.word != "same"]
    if any(row.paired for row in differ):
        said += (
            " Numbers on the same data are compared example by example, with the 95 % interval of "
            "Agresti and Min (2005) and McNemar's exact test in each seed that both have: the "
            "least certain seed counts, and the seeds have to agree."
        )
    if not all(row.paired for row in differ):
        said += (
            " Numbers on other data, or of other seeds, are compared as independent shares, with "
            "Newcombe's interval (1998) and the score test."
        )
    if differ:
        said += (
            f" Beyond noise: at a level of {LEVEL:.2f} over all numbers that are not the same "
            f"(Holm's correction) and, with several seeds, by more than {DEVIATIONS} deviations of "
            f"the difference over seeds. An interval is of its number alone, without the "
            f"correction: one that excludes 0 may stand beside 'not beyond noise'. With one seed "
            f"the test is about these two networks: it does not know how much another training of "
            f"the same kind would differ."
        )
    return said + (f" Changed for every number shown: {'; '.join(common)}." if common else "")


def _laid(row: MovedRow, common: Sequence[str], *, several: bool) -> tuple[Cell, ...]:
    number = row.number
    origin = row.unit.cells[0].cell if len(row.unit.cells) == 1 else row.unit.name
    epsilon = number.epsilon if number else None
    return (
        Cell(row.unit.method),
        Cell(wording.budget(row.unit.epsilon)),
        Cell(number.what if number else "all"),
        Cell((number and number.norm) or wording.NOTHING),
        Cell(wording.budget(epsilon)),
        *([Cell(number.weights if number else wording.NOTHING)] * several),
        Cell(wording.accuracy(row.before), wording.interval(row.before)),
        Cell(wording.accuracy(row.after), wording.interval(row.after), "", origin),
        Cell(wording.gap(row.gap), wording.gap_interval(row.gap), _tested(row)),
        Cell(str(row.gap.examples) if row.gap else wording.NOTHING),
        Cell(str(row.seeds) if row.gap else wording.NOTHING),
        Cell(row.word),
        Cell(notes=tuple(one for one in row.changes if one not in common)),
    )


def _tested(row: MovedRow) -> str:
    if row.gap is None:
        return ""
    how = "paired by example" if row.paired else "independent shares"
    return f"{how}, p = {row.p:.2g}, corrected {row.adjusted:.2g}"
