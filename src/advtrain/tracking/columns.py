"""What a study's tables say of each cell, as columns to sort and filter runs by."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from advtrain.reporting.budgets import (
    Threat,
    at,
    clean_evaluation,
    expected_attacks,
    row_threats,
    table_threats,
    worst_run,
)
from advtrain.reporting.measure import Measured, Unit
from advtrain.reporting.statistics import mean_of_all
from advtrain.reporting.study import StudyInfo
from advtrain.reporting.wording import threat_name
from advtrain.results.files import read_table
from advtrain.tracking.finished import rounded


@dataclass(frozen=True)
class Columns:
    """What a study's tables say of one of its cells.

    Attributes:
        key: of the training that they are about.
        values: shares in [0, 1] and ratios, by name.
    """

    key: str
    values: dict[str, float]


def cell_columns(grouped: Sequence[Unit], info: StudyInfo) -> dict[str, dict[str, float]]:
    """Compute the columns of a study's cells.

    Args:
        grouped: its cells.
        info: the study.

    Returns:
        By cell: `clean_accuracy` (of the last weights, where they were attacked),
        `worst_case_accuracy` at the cell's own budget, and at any other at which it met all
        attacks, `worst_case_accuracy/linf-0.1`, both with the ending `-best` for the best weights;
        `passes_over_natural`, its training's passes over natural training's. A cell that was
        trained without a budget takes that of its row for its own, if it has one row only, and has
        its `robust_accuracy/<attack>` there.
    """
    worst = _worst_cases(grouped, info)
    natural = _natural_passes(grouped, info)
    found: dict[str, dict[str, float]] = {}
    for unit, threats in _rows(grouped, info):
        own = _own_budget(unit, threats)
        for cell in unit.cells:
            values = {}
            for threat, ending, one in worst[cell.cell]:
                place = "" if threat == own else f"/{threat_name(*threat)}"
                values[f"worst_case_accuracy{place}{ending}"] = one
            if clean := clean_evaluation(cell):
                values["clean_accuracy"] = float(clean.clean.mean())
            if unit.norm is None and own:
                values |= _robust_accuracies(unit, cell, own)
            passes = _passes(cell)
            if passes is not None and natural:
                values["passes_over_natural"] = passes / natural
            found[cell.cell] = {name: rounded(value) for name, value in values.items()}
    return found


def result_means(results: Path) -> Iterator[tuple[str, float]]:
    """Yield the means over seeds of a study's results, `clean_accuracy/trades-linf-0.2`.

    Args:
        results: the results table.
    """
    for row in read_table(results).to_pylist():
        if row["epsilon"] is not None and row["training_epsilon"] in (None, row["epsilon"]):
            budget = threat_name(row["norm"], row["epsilon"])
            for name in ("clean_accuracy", "worst_case_accuracy"):
                if row[name] is not None:
                    place = f"{row['method']}-{budget}{_ending(row['weights'])}"
                    yield f"{name}/{place}", rounded(row[name])


def _rows(grouped: Sequence[Unit], info: StudyInfo) -> list[tuple[Unit, list[Threat]]]:
    """Return the units, each with the budgets of its rows in the results table."""
    table = table_threats(grouped, info)
    return [(unit, row_threats(unit, info, table)) for unit in grouped]


def _own_budget(unit: Unit, threats: Sequence[Threat]) -> Threat | None:
    """Return the budget that a unit was trained at; without one, that of its only row."""
    if unit.norm is not None and unit.epsilon is not None:
        return unit.norm, unit.epsilon
    return threats[0] if len(threats) == 1 else None


def _worst_cases(
    grouped: Sequence[Unit], info: StudyInfo
) -> dict[str, list[tuple[Threat, str, float]]]:
    """Return, by cell, the budget, the weights' ending and the share that withstood all attacks."""
    expected = expected_attacks(grouped, info)
    found: dict[str, list[tuple[Threat, str, float]]] = {}
    for unit, threats in _rows(grouped, info):
        for cell in unit.cells:
            shares = found.setdefault(cell.cell, [])
            for threat in threats:
                for weights in unit.weights:
                    attacks = expected.get((threat, weights), frozenset())
                    run = worst_run(cell, threat, weights, attacks)
                    if run is not None:
                        shares.append((threat, _ending(weights), float(run.correct.mean())))
    return found


def _robust_accuracies(unit: Unit, cell: Measured, own: Threat) -> dict[str, float]:
    return {
        f"robust_accuracy/{one.attack}{_ending(weights)}": float(one.robust.mean())
        for weights in unit.weights
        for one in at(cell, own, weights)
    }


def _natural_passes(grouped: Sequence[Unit], info: StudyInfo) -> float | None:
    """Return natural training's passes, the mean over its seeds; None without it."""
    for unit in grouped:
        if info["method_modules"].get(unit.method) == "natural":
            return mean_of_all([_passes(cell) for cell in unit.cells])
    return None


def _passes(cell: Measured) -> float | None:
    if cell.forward is None or cell.backward is None:
        return None
    return cell.forward + cell.backward


def _ending(weights: str) -> str:
    return "" if weights == "last" else f"-{weights}"
