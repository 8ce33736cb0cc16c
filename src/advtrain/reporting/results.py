"""The results: accuracies by method, training budget and evaluation budget."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pyarrow as pa

from advtrain.reporting.flags import Flag, collapse, merge, overfitting
from advtrain.reporting.measure import Evaluated, Measured, Unit
from advtrain.reporting.statistics import Correct, Estimate, estimate, mean_of_all, worst_case
from advtrain.reporting.study import StudyInfo
from advtrain.results.names import EvaluationName

Threat = tuple[str, float]
"""The norm and the epsilon of an evaluation."""


@dataclass(frozen=True)
class ResultRow:
    """One row of the results.

    Attributes:
        unit: the cells that the row is about.
        norm: of the evaluation; None in a row without numbers that no budget is known of.
        epsilon: the evaluation budget; None likewise.
        weights: which weights were attacked, `last` or `best`.
        cells: the cells with numbers in this row.
        clean: accuracy on clean images.
        robust: for each attack of the study, the accuracy at the points that it returned; None
            where it was not run.
        worst: the share that was right on the clean image and withstood every attack.
        forward: forward passes of the whole training per training example.
        backward: backward passes likewise.
        flags: what to know before the numbers.
    """

    unit: Unit
    norm: str | None
    epsilon: float | None
    weights: str
    cells: tuple[Measured, ...]
    clean: Estimate | None
    robust: dict[str, Estimate | None]
    worst: Estimate | None
    forward: float | None
    backward: float | None
    flags: tuple[Flag, ...]

    @property
    def examples(self) -> int | None:
        """How many distinct examples the row is over."""
        return self.clean.examples if self.clean else None


def result_rows(units: Sequence[Unit], info: StudyInfo) -> list[ResultRow]:
    """Compute the rows of the results table.

    A unit has a row at its own training budget, and at each budget at which an attack other than
    the curve's was run; natural training has one at each budget of the table. Units without any
    result have their rows too, with no numbers and their cause.

    Args:
        units: the study's cells, grouped.
        info: the study.

    Returns:
        In the order of the units, then by budget, then last before best weights.
    """
    table = _table_threats(units, info)
    expected = _expected(units, info)
    rows = []
    for unit in units:
        threats: list[Threat | None] = [*_row_threats(unit, info, table)]
        for threat in threats or [None]:
            for weights in unit.weights:
                attacks = expected.get((threat, weights), set()) if threat else set()
                rows.append(_row(unit, threat, weights, attacks, info))
    return rows


def results_data(rows: Sequence[ResultRow], attacks: Sequence[str]) -> pa.Table:
    """Write the rows as columns: accuracies are shares in [0, 1], flags are texts."""
    columns: dict[str, pa.Array] = {
        "method": pa.array([row.unit.method for row in rows], pa.string()),
        "norm": pa.array([row.norm for row in rows], pa.string()),
        "training_epsilon": pa.array([row.unit.epsilon for row in rows], pa.float64()),
        "epsilon": pa.array([row.epsilon for row in rows], pa.float64()),
        "weights": pa.array([row.weights for row in rows], pa.string()),
    }
    columns |= estimate_columns("clean_accuracy", [row.clean for row in rows])
    for attack in attacks:
        columns |= estimate_columns(
            f"{attack}_robust_accuracy", [row.robust[attack] for row in rows]
        )
    columns |= estimate_columns("worst_case_accuracy", [row.worst for row in rows])
    columns["examples"] = pa.array([row.examples for row in rows], pa.int64())
    columns["seeds"] = pa.array([len(row.cells) for row in rows], pa.int64())
    columns["seeds_planned"] = pa.array([len(row.unit.seeds) for row in rows], pa.int64())
    columns["forward_passes"] = pa.array([row.forward for row in rows], pa.float64())
    columns["backward_passes"] = pa.array([row.backward for row in rows], pa.float64())
    columns["flags"] = pa.array(
        [[flag.words(lambda share: f"{share:.4f}") for flag in row.flags] for row in rows],
        pa.list_(pa.string()),
    )
    return pa.table(columns)


def estimate_columns(name: str, estimates: Sequence[Estimate | None]) -> dict[str, pa.Array]:
    """Write estimates as columns: the mean, the ends of the interval, the spread."""
    columns = {
        name: [found.mean if found else None for found in estimates],
        f"{name}_low": [found.low if found else None for found in estimates],
        f"{name}_high": [found.high if found else None for found in estimates],
        f"{name}_spread": [found.spread if found else None for found in estimates],
    }
    return {key: pa.array(values, pa.float64()) for key, values in columns.items()}


def at(cell: Measured, threat: Threat | None, weights: str) -> tuple[Evaluated, ...]:
    """Return a cell's evaluations at one budget."""
    return tuple(
        one
        for one in cell.evaluations
        if (one.norm, one.epsilon) == threat and one.weights == weights
    )


def robust_to_all(evaluations: Sequence[Evaluated], attacks: Iterable[str]) -> Correct | None:
    """Return, per example, whether it withstood the attacks named; None if one was not run."""
    found = {one.attack: one for one in evaluations}
    wanted = list(attacks)
    if not wanted or any(attack not in found for attack in wanted):
        return None
    return worst_case(evaluations[0].clean, [found[attack].robust for attack in wanted])


def _table_threats(units: Sequence[Unit], info: StudyInfo) -> list[Threat]:
    """List the budgets that the table is about: those trained at, those of more than the curve."""
    found: set[Threat] = set()
    for unit in units:
        if unit.norm is not None and unit.epsilon is not None:
            found.add((unit.norm, unit.epsilon))
        found |= _attacked(unit, info)
    if not found:
        found = {(e.norm, e.epsilon) for u in units for c in u.cells for e in c.evaluations}
    return sorted(found)


def _attacked(unit: Unit, info: StudyInfo) -> set[Threat]:
    """List the budgets at which a unit met, or should have met, an attack besides the curve's."""
    return {
        (one.norm, one.epsilon)
        for one in _planned(unit)
        if one.attack in info["attacks"] and one.attack != info["curve_attack"]
    }


def _planned(unit: Unit) -> list[Evaluated | EvaluationName]:
    made: list[Evaluated | EvaluationName] = [e for cell in unit.cells for e in cell.evaluations]
    return made + [one.evaluation for one in unit.absent if one.evaluation]


def _row_threats(unit: Unit, info: StudyInfo, table: list[Threat]) -> list[Threat]:
    if unit.norm is None or unit.epsilon is None:
        return table
    return sorted(_attacked(unit, info) | {(unit.norm, unit.epsilon)})


def _expected(units: Sequence[Unit], info: StudyInfo) -> dict[tuple[Threat, str], set[str]]:
    """List the attacks that every row of a budget should have: all that any cell has there."""
    found: dict[tuple[Threat, str], set[str]] = {}
    for one in (one for unit in units for one in _planned(unit)):
        if one.attack in info["attacks"]:
            found.setdefault(((one.norm, one.epsilon), one.weights), set()).add(one.attack)
    return found


def _row(
    unit: Unit, threat: Threat | None, weights: str, expected: set[str], info: StudyInfo
) -> ResultRow:
    found = [(cell, at(cell, threat, weights)) for cell in unit.cells]
    found = [(cell, evaluations) for cell, evaluations in found if evaluations]
    examples = [evaluations[0].example for _, evaluations in found]
    robust = {}
    for attack in info["attacks"]:
        with_it = [one for _, evaluations in found for one in evaluations if one.attack == attack]
        robust[attack] = estimate([one.robust for one in with_it], [one.example for one in with_it])
    attacks = sorted(expected)
    worst = [(cells[0].example, robust_to_all(cells, attacks)) for _, cells in found]
    whole = [(example, correct) for example, correct in worst if correct is not None]
    return ResultRow(
        unit=unit,
        norm=threat[0] if threat else None,
        epsilon=threat[1] if threat else None,
        weights=weights,
        cells=tuple(cell for cell, _ in found),
        clean=estimate([evaluations[0].clean for _, evaluations in found], examples),
        robust=robust,
        worst=estimate([correct for _, correct in whole], [example for example, _ in whole]),
        forward=mean_of_all([cell.forward for cell, _ in found]),
        backward=mean_of_all([cell.backward for cell, _ in found]),
        flags=_flags(unit, threat, weights, expected, info),
    )


def _flags(
    unit: Unit, threat: Threat | None, weights: str, expected: set[str], info: StudyInfo
) -> tuple[Flag, ...]:
    flags: list[tuple[Flag, int]] = []
    missed: set[tuple[int, str]] = set()
    without = {one.cell.seed for one in unit.absent if one.evaluation is None}
    for one in unit.absent:
        flag = Flag(one.state, "{cause}", {"cause": one.cause})
        if attack := one.evaluation:
            elsewhere = ((attack.norm, attack.epsilon), attack.weights) != (threat, weights)
            if elsewhere or one.cell.seed in without:
                continue
            missed.add((one.cell.seed, attack.attack))
            values = {"cause": one.cause, "attack": attack.attack}
            flag = Flag(one.state, "{attack}, {cause}", values)
        flags.append((flag, one.cell.seed))
    for cell in unit.cells:
        evaluations = at(cell, threat, weights)
        # A model that was never trained against a step is not overfitted to it.
        masked = overfitting(evaluations) if unit.norm is not None else None
        for found in (collapse(cell, evaluations, info["classes"]), masked):
            if found:
                flags.append((found, cell.name.seed))
        absent = sorted(
            attack
            for attack in expected - {one.attack for one in evaluations}
            if (cell.name.seed, attack) not in missed
        )
        if absent:
            text = f"no {', '.join(absent)}, so no worst case"
            flags.append((Flag("incomplete", text), cell.name.seed))
    return merge(flags, unit.seeds)
