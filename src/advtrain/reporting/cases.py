"""Cases: a cell with the attacks on it, as the audits compare them."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from advtrain.reporting.budgets import (
    Expected,
    Threat,
    expected_attacks,
    row_threats,
    table_threats,
    withstood,
)
from advtrain.reporting.findings import Finding, Left
from advtrain.reporting.flags import collapse
from advtrain.reporting.measure import Evaluated, Measured, Probe, Unit
from advtrain.reporting.study import StudyInfo

BALLS = ("linf", "l2", "l1")
ENSEMBLE = "autoattack"
SQUARE = "square"
"""The stage of AutoAttack that uses no gradients, the last of its standard version."""

TRANSFERRED = "transfer"
RANDOM_NOISE = "random_noise"

Kind = Literal["white box", "black box", "random noise", "transfer"]

Place = tuple[str, float | None, str]
"""Where attacks are compared: the norm, the epsilon and the weights."""


@dataclass(frozen=True)
class Case:
    """A cell with what it is judged by.

    Attributes:
        cell: the cell.
        places: the attacks on it, without those on weights that collapsed.
        probe: the gradients of its last weights, unless those collapsed.
        trained: it was trained at a budget.
        curve: the attack of the accuracy against the budget.
        threats: the budgets of its results.
        expected: the attacks that should have been run there.
    """

    cell: Measured
    places: Mapping[Place, tuple[Evaluated, ...]]
    probe: Probe | None
    trained: bool
    curve: str | None
    threats: Sequence[Threat]
    expected: Expected

    @property
    def balls(self) -> list[tuple[Evaluated, ...]]:
        """The attacks at each budget, without transformations of the image."""
        return [found for (norm, _, _), found in self.places.items() if norm in BALLS]

    def without(self, what: str) -> Finding:
        """Say that an audit of the attacks does not apply, and why."""
        collapsed = self.cell.evaluations and not self.places
        return Finding("the weights collapsed: nothing to attack" if collapsed else what)

    def unprobed(self) -> Finding:
        """Say that an audit of the gradients does not apply, and why."""
        collapsed = self.cell.probe is not None
        return Finding("the weights collapsed" if collapsed else "the gradients were not probed")


def cases(units: Sequence[Unit], info: StudyInfo) -> list[tuple[Unit, Case]]:
    """Prepare every cell with results, in the order of the units, then by seed."""
    table, expected = table_threats(units, info), expected_attacks(units, info)
    found = []
    for unit in units:
        threats = row_threats(unit, info, table)
        for cell in unit.cells:
            alive = {which for which in ("last", "best") if not _collapsed(cell, which, info)}
            places: dict[Place, tuple[Evaluated, ...]] = {}
            for one in cell.evaluations:
                if one.weights in alive:
                    place = (one.norm, one.epsilon, one.weights)
                    places[place] = (*places.get(place, ()), one)
            case = Case(
                cell=cell,
                places=places,
                probe=cell.probe if "last" in alive else None,
                trained=unit.norm is not None,
                curve=info["curve_attack"],
                threats=threats,
                expected=expected,
            )
            found.append((unit, case))
    return found


def kind(one: Evaluated) -> Kind:
    """Say what an attack knows: the model's gradients, its outputs, another model, or nothing."""
    if one.module == TRANSFERRED:
        return "transfer"
    if one.module == RANDOM_NOISE:
        return "random noise"
    return "white box" if one.backwards else "black box"


def white_box(attacks: Sequence[Evaluated]) -> Left | None:
    """Return what all attacks with gradients leave; AutoAttack's last stage, Square, has none."""
    white = [
        replace(one, robust=one.robust | (one.stage == SQUARE)) if ends_with_square(one) else one
        for one in attacks
        if kind(one) == "white box"
    ]
    run = withstood(white, [one.attack for one in white])
    return run and Left("the worst case over attacks with gradients", run)


def with_square(attacks: Sequence[Evaluated]) -> Left | None:
    """Return what the same attacks leave with that last stage; None if none of them has it."""
    white = [one for one in attacks if kind(one) == "white box"]
    ensembles = [one.name for one in white if ends_with_square(one)]
    run = withstood(white, [one.attack for one in white]) if ensembles else None
    return run and Left(f"with the Square of {', '.join(ensembles)} it", run)


def ends_with_square(one: Evaluated) -> bool:
    """Whether it is AutoAttack in the version whose other stages come before Square."""
    return one.module == ENSEMBLE and one.parameters.get("version", "standard") == "standard"


def ladders(case: Case, name: str) -> list[tuple[Evaluated, Evaluated]]:
    """Return the attacks that differ in one parameter alone, the smaller first."""
    pairs = []
    for attacks in case.places.values():
        having = [one for one in attacks if name in one.parameters]
        having.sort(key=lambda one: one.parameters[name])
        pairs += [
            (less, more)
            for less, more in itertools.combinations(having, 2)
            if (less.module, less.precision) == (more.module, more.precision)
            and _differing(less.parameters, more.parameters) == {name}
        ]
    return pairs


def _differing(one: Mapping[str, object], other: Mapping[str, object]) -> set[str]:
    return {name for name in {*one, *other} if one.get(name) != other.get(name)}


def _collapsed(cell: Measured, weights: str, info: StudyInfo) -> bool:
    attacks = [one for one in cell.evaluations if one.weights == weights]
    clean = max(attacks, key=lambda one: len(one.example)).clean if attacks else None
    # How the training ended is said of the last weights.
    judged = cell if weights == "last" else replace(cell, status="finished")
    return collapse(judged, clean, info["classes"]) is not None
