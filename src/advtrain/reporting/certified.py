"""The certified accuracies: what is proven, beside what attacks have found."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from advtrain.reporting.budgets import Expected, expected_attacks, worst_run
from advtrain.reporting.columns import estimate_columns, flag_texts, texts_column
from advtrain.reporting.flags import Flag, collapse, merge, stopped, unsound
from advtrain.reporting.measure import Certified, Measured, Unit, clean_runs
from advtrain.reporting.statistics import Estimate, Run, estimate
from advtrain.reporting.study import StudyInfo
from advtrain.results.names import EvaluationName

Certificate = tuple[str, str, float | None]
"""The certificate's name, the norm and the budget; None where it finds radii."""

USUAL_STEP = 0.25
"""The step between radii in the tables of randomised smoothing."""

STEPS = (0.01, 0.025, 0.05, 0.1, USUAL_STEP, 0.5, 1.0)


@dataclass(frozen=True)
class CertifiedRow:
    """One certificate of one unit, within one radius.

    Attributes:
        unit: the cells that the row is about.
        certificate: the certificate's name.
        norm: of the radius.
        epsilon: the budget that was certified for; None where the certificate finds radii.
        radius: within which the prediction is proven to stay; None in a row without numbers.
        cells: the cells with numbers in this row.
        clean: accuracy of the certified predictor on clean images.
        certified: the share that it has right, proven within the radius.
        abstained: the share that it does not classify.
        robust: worst-case accuracy over the study's attacks at the same budget, of the same
            weights and examples; None where there is none, or the predictor is another.
        flags: what to know before the numbers.
    """

    unit: Unit
    certificate: str
    norm: str
    epsilon: float | None
    radius: float | None
    cells: tuple[Measured, ...]
    clean: Estimate | None
    certified: Estimate | None
    abstained: Estimate | None
    robust: Estimate | None
    flags: tuple[Flag, ...]


def certified_rows(units: Sequence[Unit], info: StudyInfo) -> list[CertifiedRow]:
    """Compute the rows of the certified table.

    Args:
        units: the study's cells, grouped.
        info: the study.

    Returns:
        In the order of the units, then of the study's certificates, then by budget and radius.
    """
    expected = expected_attacks(units, info)
    grid = radii([one for unit in units for cell in unit.cells for one in cell.certificates])
    rows = []
    for unit in units:
        for place in sorted(_certificates(unit), key=lambda place: _order(place, info)):
            name, norm, epsilon = place
            steps: tuple[float | None, ...] = (None,)
            if any(_one(cell, place) for cell in unit.cells):
                steps = grid[name, norm] if epsilon is None else (epsilon,)
            rows += [_row(unit, place, radius, expected, info) for radius in steps]
    return rows


def radii(found: Sequence[Certified]) -> dict[tuple[str, str], tuple[float, ...]]:
    """Choose the radii at which a certificate that finds its own is shown.

    They are 0 and the multiples of 0.25, as in the literature, up to the largest radius proven for
    an image that is classified right. The step is 0.5 or 1 where there would be more than eight of
    them, and the largest below that fits twice where the largest radius is under 0.5.

    Args:
        found: all that a study has, so that its methods share the radii.

    Returns:
        By the certificate's name and norm, ascending.
    """
    largest: dict[tuple[str, str], float] = {}
    for one in found:
        if one.epsilon is None:
            place = (one.certificate, one.norm)
            here = float(one.radius[one.clean].max(initial=0.0))
            largest[place] = max(here, largest.get(place, 0.0))
    return {place: _multiples(radius) for place, radius in largest.items()}


def certified_data(rows: Sequence[CertifiedRow]) -> pa.Table:
    """Write the rows as columns: accuracies are shares."""
    columns: dict[str, pa.Array] = {
        "method": pa.array([row.unit.method for row in rows], pa.string()),
        "training_norm": pa.array([row.unit.norm for row in rows], pa.string()),
        "training_epsilon": pa.array([row.unit.epsilon for row in rows], pa.float64()),
        "certificate": pa.array([row.certificate for row in rows], pa.string()),
        "norm": pa.array([row.norm for row in rows], pa.string()),
        "epsilon": pa.array([row.epsilon for row in rows], pa.float64()),
        "radius": pa.array([row.radius for row in rows], pa.float64()),
    }
    columns |= estimate_columns("clean_accuracy", [row.clean for row in rows])
    columns |= estimate_columns("certified_accuracy", [row.certified for row in rows])
    columns |= estimate_columns("abstained", [row.abstained for row in rows])
    columns |= estimate_columns("worst_case_accuracy", [row.robust for row in rows])
    columns["examples"] = pa.array(
        [row.clean.examples if row.clean else None for row in rows], pa.int64()
    )
    columns["seeds"] = pa.array([len(row.cells) for row in rows], pa.int64())
    columns["seeds_planned"] = pa.array([len(row.unit.seeds) for row in rows], pa.int64())
    columns["flags"] = texts_column([flag_texts(row.flags) for row in rows])
    return pa.table(columns)


def _multiples(largest: float) -> tuple[float, ...]:
    wide = [step for step in STEPS if step >= USUAL_STEP and largest / step <= 8]
    narrow = [step for step in STEPS if step < USUAL_STEP and largest / step >= 2]
    step = min(wide, default=STEPS[-1]) if largest >= 2 * USUAL_STEP else max(narrow, default=0.0)
    count = int(largest / step + 1e-9) if step else 0
    # Rounded: three steps of 0.1 are 0.3.
    return tuple(round(step * place, 6) for place in range(count + 1))


def _certificates(unit: Unit) -> set[Certificate]:
    """List what was, or should have been, certified of a unit."""
    made: list[Certified | EvaluationName] = [c for cell in unit.cells for c in cell.certificates]
    made += [one.certificate for one in unit.absent if one.certificate]
    return {_place(one) for one in made}


def _place(one: Certified | EvaluationName) -> Certificate:
    name = one.attack if isinstance(one, EvaluationName) else one.certificate
    return name, one.norm, one.epsilon


def _order(place: Certificate, info: StudyInfo) -> tuple[int, str, str, float]:
    name, norm, epsilon = place
    known = info["certificates"]
    return known.index(name) if name in known else len(known), name, norm, epsilon or 0.0


def _one(cell: Measured, place: Certificate) -> Certified | None:
    return next((one for one in cell.certificates if _place(one) == place), None)


def _row(
    unit: Unit, place: Certificate, radius: float | None, expected: Expected, info: StudyInfo
) -> CertifiedRow:
    name, norm, epsilon = place
    pairs = [(cell, _one(cell, place)) for cell in unit.cells]
    found = [(cell, one) for cell, one in pairs if one]
    attacked = [_attacked(cell, one, expected) for cell, one in found]
    return CertifiedRow(
        unit=unit,
        certificate=name,
        norm=norm,
        epsilon=epsilon,
        radius=radius,
        cells=tuple(cell for cell, _ in found),
        clean=estimate(clean_runs(one for _, one in found)),
        certified=estimate([Run(one.example, one.certified(radius or 0.0)) for _, one in found]),
        abstained=estimate([Run(one.example, one.abstained) for _, one in found]),
        robust=estimate([run for run in attacked if run]),
        flags=_flags(unit, place, info),
    )


def _attacked(cell: Measured, one: Certified, expected: Expected) -> Run | None:
    """Return who withstood the attacks at the certified budget, among the certified examples."""
    if one.epsilon is None:
        return None
    threat = (one.norm, one.epsilon)
    run = worst_run(cell, threat, "last", expected.get((threat, "last"), frozenset()))
    if run is None:
        return None
    both = np.isin(run.example, one.example)
    return Run(run.example[both], run.correct[both]) if both.any() else None


def _flags(unit: Unit, place: Certificate, info: StudyInfo) -> tuple[Flag, ...]:
    flags: list[tuple[Flag, int]] = []
    for absent in unit.absent:
        here = absent.certificate is not None and _place(absent.certificate) == place
        if here or absent.of_the_cell:
            flags.append((Flag(absent.state, "{cause}", {"cause": absent.cause}), absent.cell.seed))
    for cell in unit.cells:
        one = _one(cell, place)
        if one:
            warnings = (
                stopped(cell),
                collapse(cell, one.clean, info["classes"]),
                unsound(cell, one),
            )
            flags += [(flag, cell.name.seed) for flag in warnings if flag]
    return merge(flags, unit.seeds)
