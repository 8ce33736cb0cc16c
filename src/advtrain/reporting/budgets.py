"""Which attacks a row of a table is over: those that were run, or should have been, at a budget."""

import functools
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from advtrain.reporting.measure import Evaluated, Measured, Unit
from advtrain.reporting.statistics import Run, worst_case
from advtrain.reporting.study import StudyInfo
from advtrain.results.names import EvaluationName

Threat = tuple[str, float]
"""The norm and the epsilon of an evaluation."""

Expected = Mapping[tuple[Threat, str], frozenset[str]]
"""The attacks that every row of a budget should have, for each of the weights."""


def at(cell: Measured, threat: Threat | None, weights: str) -> tuple[Evaluated, ...]:
    """Return a cell's evaluations at one budget, those on the most examples first."""
    found = (
        one
        for one in cell.evaluations
        if (one.norm, one.epsilon) == threat and one.weights == weights
    )
    return tuple(sorted(found, key=lambda one: -len(one.example)))


def clean_evaluation(cell: Measured) -> Evaluated | None:
    """Return what a cell's clean accuracy is read from; None if nothing attacked it.

    It is of the last weights, where they were attacked, and on the most examples.
    """
    order = sorted(cell.evaluations, key=lambda one: (one.weights != "last", -len(one.example)))
    return order[0] if order else None


def withstood(evaluations: Sequence[Evaluated], attacks: Iterable[str]) -> Run | None:
    """Return which examples withstood the attacks named, of those that met all of them.

    Returns:
        The run; None if an attack was not run, or no example met all.
    """
    found = {one.attack: one for one in evaluations}
    wanted = list(attacks)
    if not wanted or any(attack not in found for attack in wanted):
        return None
    met = [found[attack] for attack in wanted]
    common = met[0].example
    if all(np.array_equal(one.example, common) for one in met):
        return Run(common, worst_case(met[0].clean, [one.robust for one in met]))
    common = functools.reduce(np.intersect1d, [one.example for one in met])
    if not len(common):
        return None
    places = [np.searchsorted(one.example, common) for one in met]
    robust = [one.robust[place] for one, place in zip(met, places, strict=True)]
    return Run(common, worst_case(met[0].clean[places[0]], robust))


def worst_run(
    cell: Measured, threat: Threat | None, weights: str, attacks: Iterable[str]
) -> Run | None:
    """Return who withstood the attacks named at one budget; None if one was not run."""
    return withstood(at(cell, threat, weights), attacks)


def last_and_best(
    cell: Measured, threat: Threat | None, expected: Expected
) -> tuple[Run, Run] | None:
    """Return who withstood the attacks that both weights should have met; None without both."""
    if threat is None:
        return None
    both = (expected.get((threat, weights), frozenset()) for weights in ("last", "best"))
    attacks = frozenset.intersection(*both)
    last, best = (worst_run(cell, threat, weights, attacks) for weights in ("last", "best"))
    return None if last is None or best is None else (last, best)


def expected_attacks(units: Sequence[Unit], info: StudyInfo) -> Expected:
    """List the attacks that every row of a budget should have: all that any cell has there."""
    found: dict[tuple[Threat, str], set[str]] = {}
    for one in (one for unit in units for one in _planned(unit)):
        if one.attack in info["attacks"] and one.epsilon is not None:
            found.setdefault(((one.norm, one.epsilon), one.weights), set()).add(one.attack)
    return {place: frozenset(attacks) for place, attacks in found.items()}


def table_threats(units: Sequence[Unit], info: StudyInfo) -> list[Threat]:
    """List the budgets that the table is about: those trained at, those of more than the curve."""
    found: set[Threat] = set()
    for unit in units:
        if unit.norm is not None and unit.epsilon is not None:
            found.add((unit.norm, unit.epsilon))
        found |= _attacked(unit, info)
    if not found:
        every = (e for unit in units for cell in unit.cells for e in cell.evaluations)
        found = {(e.norm, e.epsilon) for e in every if e.epsilon is not None}
    return sorted(found)


def row_threats(unit: Unit, info: StudyInfo, table: list[Threat]) -> list[Threat]:
    """List the budgets of a unit's rows: its own and those attacked at; without one, the table's.

    Args:
        unit: the cells that the rows are about.
        info: the study.
        table: what `table_threats` returned.
    """
    if unit.norm is None or unit.epsilon is None:
        return table
    return sorted(_attacked(unit, info) | {(unit.norm, unit.epsilon)})


def _attacked(unit: Unit, info: StudyInfo) -> set[Threat]:
    """List the budgets at which a unit met, or should have met, an attack besides the curve's."""
    return {
        (one.norm, one.epsilon)
        for one in _planned(unit)
        if one.attack in info["attacks"]
        and one.attack != info["curve_attack"]
        and one.epsilon is not None
    }


def _planned(unit: Unit) -> list[Evaluated | EvaluationName]:
    made: list[Evaluated | EvaluationName] = [e for cell in unit.cells for e in cell.evaluations]
    return made + [one.attack for one in unit.absent if one.attack]
