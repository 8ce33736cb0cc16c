"""The metrics that `dvc metrics diff` compares between commits."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from advtrain.reporting import wording
from advtrain.reporting.budgets import (
    Expected,
    Threat,
    clean_evaluation,
    expected_attacks,
    last_and_best,
    row_threats,
    table_threats,
    worst_run,
)
from advtrain.reporting.certified import radii
from advtrain.reporting.measure import Measured, Unit
from advtrain.reporting.study import StudyInfo
from advtrain.reporting.study_report import StudyReport
from advtrain.results.files import write_bytes
from advtrain.results.names import epsilon_text


def write_metrics(studies: Sequence[StudyReport], out: Path) -> None:
    """Write the metrics of all studies as JSON.

    Args:
        studies: one whose collected folder is not there has no metrics.
        out: the file: study -> cell -> `clean_accuracy`, `robust_accuracy` (by evaluation),
            `worst_case` (by norm and budget, as in the results table),
            `worst_case_best_minus_last` (likewise, over the attacks that both weights met) and
            `certified_accuracy` (by evaluation, with the radius where there is no budget), each a
            share in [0, 1] or a difference of two, rounded to six places.
    """
    metrics = {
        study.info["name"]: cell_metrics(study.shown.units, study.shown.info) for study in studies
    }
    write_bytes(out, (json.dumps(metrics, indent=1, sort_keys=True) + "\n").encode())


def cell_metrics(grouped: Sequence[Unit], info: StudyInfo) -> dict[str, dict[str, Any]]:
    """Compute the metrics of a study's cells.

    The worst case is that of the results table: at its budgets, and over the attacks that are
    expected there. Clean accuracy is that of the last weights, where they were attacked.
    """
    metrics = {}
    grid = radii([one for unit in grouped for cell in unit.cells for one in cell.certificates])
    expected, table = expected_attacks(grouped, info), table_threats(grouped, info)
    for unit in grouped:
        threats = row_threats(unit, info, table)
        for cell in unit.cells:
            found: dict[str, Any] = {
                "robust_accuracy": {one.name: _share(one.robust) for one in cell.evaluations}
            }
            if one := clean_evaluation(cell):
                found["clean_accuracy"] = _share(one.clean)
            metrics[cell.cell] = found | _worst_cases(cell, threats, expected)
            if cell.certificates:
                metrics[cell.cell]["certified_accuracy"] = _certified(cell, grid)
    return metrics


def _worst_cases(cell: Measured, threats: Sequence[Threat], expected: Expected) -> dict[str, Any]:
    """Return the worst cases of last and best weights, and what the best ones gain."""
    found, gaps = {}, {}
    for threat in threats:
        norm, epsilon = threat
        budget = wording.threat_name(norm, epsilon)
        for weights, ending in (("last", ""), ("best", "-best")):
            run = worst_run(cell, threat, weights, expected.get((threat, weights), ()))
            if run is not None:
                found[budget + ending] = _share(run.correct)
        if pair := last_and_best(cell, threat, expected):
            last, best = (_share(run.correct) for run in pair)
            gaps[budget] = round(best - last, 6)
    return {"worst_case": found} | ({"worst_case_best_minus_last": gaps} if gaps else {})


def _certified(
    cell: Measured, grid: Mapping[tuple[str, str], tuple[float, ...]]
) -> dict[str, float]:
    found = {}
    for one in cell.certificates:
        if one.epsilon is not None:
            found[one.name] = _share(one.certified(one.epsilon))
        else:
            for radius in grid[one.certificate, one.norm]:
                found[f"{one.name}-{epsilon_text(radius)}"] = _share(one.certified(radius))
    return found


def _share(correct: Any) -> float:
    return round(float(np.mean(correct)), 6)
