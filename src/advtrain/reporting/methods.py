"""The methods: what each costs in accuracy and gains in robustness against natural training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from advtrain.published.claims import QUANTITIES, Claims, Quantity, Variant
from advtrain.reporting.columns import estimate_columns, flag_texts, share_text, texts_column
from advtrain.reporting.measure import Unit
from advtrain.reporting.results import ResultRow
from advtrain.reporting.statistics import Difference, difference
from advtrain.reporting.study import StudyInfo
from advtrain.reporting.verdicts import Verdict, judge

ROUNDING = ("determinism", "channels_last", "compile_mode", "micro_batch", "halve_on_out_of_memory")
"""What a recipe can set that changes how it is computed, and adds nothing to what is learned."""


@dataclass(frozen=True)
class MethodRow:
    """One method at one budget.

    Attributes:
        result: its accuracies.
        cost: natural training's clean accuracy minus its own; None without natural training.
        gain: its worst-case accuracy minus natural training's, at the same budget.
        relative: its passes of the whole training, forward and backward, over natural training's.
        variant: the survey's variant that it stands for; None if it is none.
        verdicts: on the survey's words for that variant, cost and gain.
    """

    result: ResultRow
    cost: Difference | None
    gain: Difference | None
    relative: float | None
    variant: Variant | None
    verdicts: tuple[Verdict, ...]

    @property
    def unit(self) -> Unit:
        """The cells that the row is about."""
        return self.result.unit

    def verdict(self, quantity: Quantity) -> Verdict | None:
        """Return the verdict on one of the two words."""
        return next((one for one in self.verdicts if one.quantity == quantity), None)


def method_rows(results: Sequence[ResultRow], info: StudyInfo, claims: Claims) -> list[MethodRow]:
    """Compute the rows of the methods table.

    Args:
        results: the rows of the results.
        info: the study. Its natural training is the first method of that module; of several
            methods that are one of the survey's variants, the first whose recipe adds nothing
            to what is learned stands for it, or the first of all.
        claims: the survey's.

    Returns:
        One row per method besides natural training and training budget, at that budget; one per
        budget of the table for a method that trains without.
    """
    shown = [row for row in results if row.shown]
    natural_method = next(
        (m for m in info["methods"] if info["method_modules"].get(m) == "natural"), None
    )
    natural = {
        (row.norm, row.epsilon, row.weights): row
        for row in shown
        if row.unit.method == natural_method
    }
    speakers = _speakers(info, claims)
    rows = []
    for row in shown:
        if row.own_budget and row.unit.method != natural_method:
            variant = speakers.get(row.unit.method)
            reference = natural.get((row.norm, row.epsilon, row.weights))
            gain = difference(row.worst_runs, reference.worst_runs) if reference else None
            rivals = {
                speakers[other.unit.method].name: other
                for other in shown
                if other.unit.method in speakers
                and other.own_budget
                and (other.norm, other.epsilon) == (row.norm, row.epsilon)
            }
            verdicts: tuple[Verdict, ...] = ()
            if variant and row.clean:
                added = _added(info, row.unit.method)
                verdicts = _verdicts(claims, variant, row, rivals, gain, added)
            rows.append(_row(row, reference, gain, variant, verdicts))
    return rows


def methods_data(rows: Sequence[MethodRow]) -> pa.Table:
    """Write the rows as columns: accuracies and their differences are shares."""
    results = [row.result for row in rows]
    columns: dict[str, pa.Array] = {
        "method": pa.array([row.unit.method for row in rows], pa.string()),
        "norm": pa.array([row.norm for row in results], pa.string()),
        "training_epsilon": pa.array([row.unit.epsilon for row in rows], pa.float64()),
        "epsilon": pa.array([row.epsilon for row in results], pa.float64()),
        "weights": pa.array([row.weights for row in results], pa.string()),
    }
    columns |= estimate_columns("clean_accuracy", [row.clean for row in results])
    columns |= estimate_columns("accuracy_cost", [row.cost for row in rows])
    columns |= estimate_columns("worst_case_accuracy", [row.worst for row in results])
    columns |= estimate_columns("robustness_gain", [row.gain for row in rows])
    columns["passes_over_natural"] = pa.array([row.relative for row in rows], pa.float64())
    columns["examples"] = pa.array([row.examples for row in results], pa.int64())
    columns["seeds"] = pa.array([len(row.cells) for row in results], pa.int64())
    columns["seeds_planned"] = pa.array([len(row.unit.seeds) for row in rows], pa.int64())
    columns["survey_variant"] = pa.array(
        [row.variant.name if row.variant else None for row in rows], pa.string()
    )
    for quantity in QUANTITIES:
        found = [row.verdict(quantity) for row in rows]
        columns[f"survey_{quantity}"] = pa.array(
            [row.variant.word(quantity) if row.variant else None for row in rows], pa.string()
        )
        columns[f"{quantity}_verdict"] = pa.array(
            [one.says if one else None for one in found], pa.string()
        )
        columns[f"{quantity}_evidence"] = pa.array(
            [one.evidence(share_text) if one else None for one in found], pa.string()
        )
    columns["flags"] = texts_column([flag_texts(row.flags) for row in results])
    return pa.table(columns)


def _speakers(info: StudyInfo, claims: Claims) -> dict[str, Variant]:
    """Say which method stands for which variant.

    It was trained from scratch, by itself, and its recipe adds nothing to what is learned; if all
    of the variant's do, it is the first of them.
    """
    alone = [m for m in info["methods"] if not any(info["method_upstream"].get(m, {}).values())]
    found: dict[str, Variant] = {}
    for variant in claims.variants:
        of_it = [
            method
            for method in alone
            if info["method_modules"].get(method) == variant.module
            and info["method_updates"].get(method) == variant.update
        ]
        bare = [method for method in of_it if not _added(info, method)]
        if of_it:
            found[(bare or of_it)[0]] = variant
    return found


def _added(info: StudyInfo, method: str) -> list[str]:
    """List what a method's recipe adds to what is learned: `averaging ema`."""
    return [
        one
        for one in info["method_additions"].get(method, [])
        if one.partition(" ")[0] not in ROUNDING
    ]


def _row(
    row: ResultRow,
    natural: ResultRow | None,
    gain: Difference | None,
    variant: Variant | None,
    verdicts: tuple[Verdict, ...],
) -> MethodRow:
    passes, reference = (
        one.forward + one.backward
        if one and one.forward is not None and one.backward is not None
        else None
        for one in (row, natural)
    )
    return MethodRow(
        result=row,
        cost=difference(natural.clean_runs, row.clean_runs) if natural else None,
        gain=gain,
        relative=passes / reference if passes is not None and reference else None,
        variant=variant,
        verdicts=verdicts,
    )


def _verdicts(
    claims: Claims,
    variant: Variant,
    row: ResultRow,
    rivals: Mapping[str, ResultRow],
    gain: Difference | None,
    added: Sequence[str],
) -> tuple[Verdict, ...]:
    """Judge both words; natural training's part in cost and gain cancels in the differences."""
    notes = (f"Its recipe adds {', '.join(added)}",) if added else ()

    def more_cost(other: Variant) -> Difference | None:
        rival = _whole(rivals.get(other.name))
        return difference(rival.clean_runs, row.clean_runs) if rival and _whole(row) else None

    def more_gain(other: Variant) -> Difference | None:
        rival = _whole(rivals.get(other.name))
        return difference(row.worst_runs, rival.worst_runs) if rival and _whole(row) else None

    return (
        judge(claims, variant, "cost", more_cost, notes=notes),
        judge(claims, variant, "gain", more_gain, own=gain, notes=notes),
    )


def _whole(row: ResultRow | None) -> ResultRow | None:
    """Leave out a row of which a training collapsed: it says nothing of the method."""
    return row if row and not any(flag.kind == "collapsed" for flag in row.flags) else None
