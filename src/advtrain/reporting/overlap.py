"""Overlap: what each attack breaks, and what no other attack breaks."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from advtrain.reporting.budgets import at
from advtrain.reporting.measure import Evaluated, Unit
from advtrain.reporting.results import ResultRow


@dataclass(frozen=True)
class Broken:
    """What one attack, or one stage of an ensemble, broke of a unit at a budget.

    Attributes:
        attack: its name, or `autoattack: square` for a stage.
        share: of the examples that are right without an attack, over all seeds.
        alone: how many of them no other attack of the study broke; None for a stage.
    """

    attack: str
    share: float
    alone: int | None


@dataclass(frozen=True)
class OverlapRow:
    """One unit at one budget.

    Attributes:
        unit: the cells that the row is about.
        norm: of the evaluation.
        epsilon: the evaluation budget.
        examples: how many were right without an attack and met every attack, over all seeds.
        any: the share that one attack or more broke.
        broken: by attack.
    """

    unit: Unit
    norm: str
    epsilon: float
    examples: int
    any: float
    broken: tuple[Broken, ...]


def overlap_rows(results: Sequence[ResultRow], attacks: Sequence[str]) -> list[OverlapRow]:
    """Count what the attacks break together and alone, for the rows of the results.

    Counted are the examples that are right without an attack and met all attacks of the row.

    Args:
        results: the rows of the results.
        attacks: of the study, in its order.
    """
    rows = []
    for result in results:
        if not result.shown or result.norm is None or result.epsilon is None:
            continue
        threat = (result.norm, result.epsilon)
        made = [at(cell, threat, result.weights) for cell in result.cells]
        kept = [[one for one in found if one.attack in attacks] for found in made]
        names = [name for name in attacks if all(name in _names(found) for found in kept)]
        tables = [_broken(found, names) for found in kept if found and names]
        if len(names) < 2 or not tables:
            continue
        broken = np.concatenate([table for table, _ in tables], axis=1)
        if not broken.shape[1]:
            continue
        times = broken.sum(0)
        counts = [
            Broken(name, float(one.mean()), int(np.sum(one & (times == 1))))
            for name, one in zip(names, broken, strict=True)
        ]
        stages: dict[str, int] = {}
        for _, found in tables:
            for stage, count in found.items():
                stages[stage] = stages.get(stage, 0) + count
        total = broken.shape[1]
        counts += [Broken(stage, count / total, None) for stage, count in stages.items()]
        rows.append(
            OverlapRow(result.unit, *threat, total, float(np.mean(times > 0)), tuple(counts))
        )
    return rows


def broken_by(result: ResultRow, names: Sequence[str]) -> NDArray[np.bool_]:
    """Say which attacks broke which examples of a row, over all its seeds.

    Args:
        result: a row whose cells all met the attacks.
        names: the attacks.

    Returns:
        (attacks, examples), of the examples that are right without an attack and met all of them.
    """
    threat = (result.norm or "", result.epsilon or 0.0)
    met = [at(cell, threat, result.weights) for cell in result.cells]
    return np.concatenate([_broken(found, names)[0] for found in met], axis=1)


def overlap_data(rows: Sequence[OverlapRow]) -> pa.Table:
    """Write one line per row and attack: shares, and counts of examples."""
    lines = [(row, one) for row in rows for one in row.broken]
    return pa.table(
        {
            "method": pa.array([row.unit.method for row, _ in lines], pa.string()),
            "norm": pa.array([row.norm for row, _ in lines], pa.string()),
            "training_epsilon": pa.array([row.unit.epsilon for row, _ in lines], pa.float64()),
            "epsilon": pa.array([row.epsilon for row, _ in lines], pa.float64()),
            "attack": pa.array([one.attack for _, one in lines], pa.string()),
            "broken": pa.array([one.share for _, one in lines], pa.float64()),
            "broken_by_any": pa.array([row.any for row, _ in lines], pa.float64()),
            "alone": pa.array([one.alone for _, one in lines], pa.int64()),
            "examples": pa.array([row.examples for row, _ in lines], pa.int64()),
        }
    )


def _names(found: Sequence[Evaluated]) -> set[str]:
    return {one.attack for one in found}


def _broken(found: Sequence[Evaluated], names: Sequence[str]) -> tuple[np.ndarray, dict[str, int]]:
    """Return (attacks, examples) which broke which, and how many each stage of an ensemble did."""
    by_name = {one.attack: one for one in found}
    chosen = [by_name[name] for name in names]
    common = chosen[0].example
    for one in chosen[1:]:
        common = np.intersect1d(common, one.example)
    places = [np.searchsorted(one.example, common) for one in chosen]
    right = chosen[0].clean[places[0]]
    broken = np.stack([~one.robust[place] for one, place in zip(chosen, places, strict=True)])[
        :, right
    ]
    stages: dict[str, int] = {}
    for name, one, place in zip(names, chosen, places, strict=True):
        texts = one.stage[place][right]
        for stage in dict.fromkeys(text for text in texts.tolist() if text):
            stages[f"{name}: {stage}"] = int(np.sum(texts == stage))
    return broken, stages
