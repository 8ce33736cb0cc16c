"""The results: accuracies by method, training budget and evaluation budget."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from advtrain.reporting.budgets import (
    Expected,
    Threat,
    at,
    expected_attacks,
    last_and_best,
    row_threats,
    table_threats,
    worst_run,
)
from advtrain.reporting.columns import estimate_columns, flag_texts, texts_column
from advtrain.reporting.flags import (
    Flag,
    collapse,
    merge,
    overfitting,
    robust_overfitting,
    stopped,
)
from advtrain.reporting.measure import Measured, Unit, clean_runs, robust_runs
from advtrain.reporting.statistics import Estimate, Run, estimate, mean_of_all
from advtrain.reporting.study import StudyInfo


@dataclass(frozen=True)
class ResultRow:
    """One row of the results.

    Attributes:
        unit: the cells that the row is about.
        norm: of the evaluation; None in a row without numbers that no budget is known of.
        epsilon: the evaluation budget; None likewise.
        weights: which weights were attacked, `last` or `best`.
        cells: the cells with numbers in this row.
        clean_runs: who was right on the clean image, for each cell.
        worst_runs: who was right in the worst case, for each cell that met every attack.
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
    clean_runs: tuple[Run, ...]
    worst_runs: tuple[Run, ...]
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

    @property
    def shown(self) -> bool:
        """The row is of the weights that a reader is shown: the last, where they were attacked."""
        return self.weights == self.unit.weights[0]

    @property
    def own_budget(self) -> bool:
        """The evaluation budget is that of the training, or the training had none."""
        unit = self.unit
        return unit.norm is None or (self.norm, self.epsilon) == (unit.norm, unit.epsilon)


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
    table = table_threats(units, info)
    expected = expected_attacks(units, info)
    rows = []
    for unit in units:
        threats: list[Threat | None] = [*row_threats(unit, info, table)]
        for threat in threats or [None]:
            for weights in unit.weights:
                rows.append(_row(unit, threat, weights, expected, info))
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
    columns["flags"] = texts_column([flag_texts(row.flags) for row in rows])
    return pa.table(columns)


def _row(
    unit: Unit, threat: Threat | None, weights: str, expected: Expected, info: StudyInfo
) -> ResultRow:
    attacks = expected.get((threat, weights), frozenset()) if threat else frozenset()
    found = [(cell, at(cell, threat, weights)) for cell in unit.cells]
    found = [(cell, evaluations) for cell, evaluations in found if evaluations]
    clean = clean_runs(evaluations[0] for _, evaluations in found)
    worst = [worst_run(cell, threat, weights, attacks) for cell, _ in found]
    whole = tuple(run for run in worst if run is not None)
    robust = {
        attack: estimate(
            robust_runs(one for _, made in found for one in made if one.attack == attack)
        )
        for attack in info["attacks"]
    }
    return ResultRow(
        unit=unit,
        norm=threat[0] if threat else None,
        epsilon=threat[1] if threat else None,
        weights=weights,
        cells=tuple(cell for cell, _ in found),
        clean_runs=clean,
        worst_runs=whole,
        clean=estimate(clean),
        robust=robust,
        worst=estimate(whole),
        forward=mean_of_all([cell.forward for cell, _ in found]),
        backward=mean_of_all([cell.backward for cell, _ in found]),
        flags=_flags(unit, threat, weights, expected, info),
    )


def _flags(
    unit: Unit, threat: Threat | None, weights: str, expected: Expected, info: StudyInfo
) -> tuple[Flag, ...]:
    flags: list[tuple[Flag, int]] = []
    missed: set[tuple[int, str]] = set()
    without = {one.cell.seed for one in unit.absent if one.of_the_cell}
    for one in unit.absent:
        flag = Flag(one.state, "{cause}", {"cause": one.cause})
        if attack := one.attack:
            elsewhere = ((attack.norm, attack.epsilon), attack.weights) != (threat, weights)
            if elsewhere or one.cell.seed in without:
                continue
            missed.add((one.cell.seed, attack.attack))
            values = {"cause": one.cause, "attack": attack.attack}
            flag = Flag(one.state, "{attack}, {cause}", values)
        if not one.certificate:
            flags.append((flag, one.cell.seed))
    attacks = expected.get((threat, weights), frozenset()) if threat else frozenset()
    for cell in unit.cells:
        evaluations = at(cell, threat, weights)
        clean = evaluations[0].clean if evaluations else None
        warnings = [stopped(cell), collapse(cell, clean, info["classes"])]
        if evaluations and not any(one.backwards for one in evaluations):
            warnings.append(
                Flag("incomplete", "no attack with gradients, so no robustness is shown")
            )
        # A model that was never trained against a step is not overfitted to it.
        if unit.norm is not None:
            warnings.append(overfitting(evaluations))
            pair = last_and_best(cell, threat, expected)
            if pair and weights == "last":
                warnings.append(robust_overfitting(*pair))
        flags += [(found, cell.name.seed) for found in warnings if found]
        absent = sorted(
            attack
            for attack in attacks - {one.attack for one in evaluations}
            if (cell.name.seed, attack) not in missed
        )
        if absent:
            text = f"no {', '.join(absent)}, so no worst case"
            flags.append((Flag("incomplete", text), cell.name.seed))
    return merge(flags, unit.seeds)
