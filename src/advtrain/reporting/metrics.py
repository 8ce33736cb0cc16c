"""The metrics that `dvc metrics diff` compares between commits."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from advtrain.reporting.budgets import withstood
from advtrain.reporting.certified import radii
from advtrain.reporting.measure import Evaluated, Measured, measure
from advtrain.reporting.study import StudyReport, check_info
from advtrain.results.collect import read_collected
from advtrain.results.files import write_bytes
from advtrain.results.names import epsilon_text


def write_metrics(studies: Sequence[StudyReport], out: Path) -> None:
    """Write the metrics of all studies as JSON.

    Args:
        studies: one whose collected folder is not there has no metrics.
        out: the file: study -> cell -> `clean_accuracy`, `robust_accuracy` (by evaluation),
            `worst_case` (by norm and budget; over all attacks of the study),
            `worst_case_best_minus_last` (likewise, where both weights met them) and
            `certified_accuracy` (by evaluation, with the radius where there is no budget), each a
            share in [0, 1] or a difference of two, rounded to six places.
    """
    metrics = {}
    for study in studies:
        info = check_info(study.info)
        measured = measure(read_collected(study.collected)) if study.collected.is_dir() else []
        metrics[info["name"]] = cell_metrics(measured, info["attacks"])
    write_bytes(out, (json.dumps(metrics, indent=1, sort_keys=True) + "\n").encode())


def cell_metrics(measured: Sequence[Measured], attacks: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Compute the metrics of a study's cells.

    The worst case stands only at the budgets at which a cell met all attacks of the study, not the
    curve's alone. Clean accuracy is that of the last weights, where they were attacked.
    """
    metrics = {}
    grid = radii([one for cell in measured for one in cell.certificates])
    for cell in measured:
        found: dict[str, Any] = {"robust_accuracy": {}, "worst_case": {}}
        budgets: dict[str, list[Evaluated]] = {}
        # Of the last weights, and on the most examples, is the clean accuracy.
        order = sorted(cell.evaluations, key=lambda e: (e.weights != "last", -len(e.example)))
        for one in order:
            found.setdefault("clean_accuracy", _share(one.clean))
            found["robust_accuracy"][one.name] = _share(one.robust)
            if one.epsilon is None:
                continue
            budget = f"{one.norm}-{epsilon_text(one.epsilon).replace('/', '_')}"
            ending = "" if one.weights == "last" else f"-{one.weights}"
            budgets.setdefault(budget + ending, []).append(one)
        for budget, evaluations in budgets.items():
            run = withstood(evaluations, attacks)
            if run is not None:
                found["worst_case"][budget] = _share(run.correct)
        worst = found["worst_case"]
        both = [budget for budget in worst if f"{budget}-best" in worst]
        gaps = {budget: round(worst[f"{budget}-best"] - worst[budget], 6) for budget in both}
        if gaps:
            found["worst_case_best_minus_last"] = gaps
        if cell.certificates:
            found["certified_accuracy"] = _certified(cell, grid)
        metrics[cell.cell] = found
    return metrics


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
