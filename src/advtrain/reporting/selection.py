"""The selection: the weights that were best by validation against those of the last epoch."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from advtrain.reporting.budgets import at, expected_attacks, last_and_best
from advtrain.reporting.columns import estimate_columns, flag_texts, texts_column
from advtrain.reporting.flags import Flag
from advtrain.reporting.measure import Measured, Unit, clean_runs
from advtrain.reporting.results import ResultRow
from advtrain.reporting.statistics import Difference, Estimate, Run, difference, estimate
from advtrain.reporting.study import StudyInfo

WEIGHTS = ("last", "best")


@dataclass(frozen=True)
class SelectionRow:
    """One unit at one budget.

    Attributes:
        unit: the cells that the row is about.
        norm: of the evaluation; None in a row without numbers that no budget is known of.
        epsilon: the evaluation budget; None likewise.
        cells: those whose two weights met the same attacks.
        clean: accuracy on clean images, of the last and of the best weights.
        worst: worst-case accuracy over the attacks that both met, likewise.
        gap: worst-case accuracy of the best minus that of the last; where the two are the same
            weights, 0 with an interval of 0 to 0.
        flags: what to know before the numbers.
    """

    unit: Unit
    norm: str | None
    epsilon: float | None
    cells: tuple[Measured, ...]
    clean: tuple[Estimate | None, Estimate | None]
    worst: tuple[Estimate | None, Estimate | None]
    gap: Difference | None
    flags: tuple[Flag, ...]

    @property
    def same_weights(self) -> bool:
        """The best epoch is the last whose weights were kept, in every cell."""
        return bool(self.cells) and all(_best_is_last(cell) for cell in self.cells)


def selection_rows(
    units: Sequence[Unit], results: Sequence[ResultRow], info: StudyInfo
) -> list[SelectionRow]:
    """Compute the rows of the selection table.

    Args:
        units: the study's cells, grouped.
        results: the rows of the results.
        info: the study.

    Returns:
        One row where both weights were attacked, in the order of the results.
    """
    expected = expected_attacks(units, info)
    last = {(row.unit.name, row.norm, row.epsilon): row for row in results if row.weights == "last"}
    rows = []
    for best in results:
        place = (best.unit.name, best.norm, best.epsilon)
        if best.weights != "best" or place not in last:
            continue
        threat = None if best.norm is None or best.epsilon is None else (best.norm, best.epsilon)
        pairs = [(cell, last_and_best(cell, threat, expected)) for cell in best.unit.cells]
        found = [(cell, pair) for cell, pair in pairs if pair]
        runs: list[list[Run]] = [[pair[k] for _, pair in found] for k in (0, 1)]
        clean = [clean_runs(at(cell, threat, w)[0] for cell, _ in found) for w in WEIGHTS]
        row = SelectionRow(
            unit=best.unit,
            norm=best.norm,
            epsilon=best.epsilon,
            cells=tuple(cell for cell, _ in found),
            clean=(estimate(clean[0]), estimate(clean[1])),
            worst=(estimate(runs[0]), estimate(runs[1])),
            gap=difference(runs[1], runs[0], same_runs=True),
            flags=_flags(last[place], best),
        )
        if row.gap and row.same_weights:
            spread = 0.0 if len(found) > 1 else None
            row = replace(row, gap=Difference(0.0, 0.0, 0.0, spread, row.gap.examples))
        rows.append(row)
    return rows


def selection_data(rows: Sequence[SelectionRow]) -> pa.Table:
    """Write the rows as columns: accuracies are shares, the gap is a difference of shares."""
    whole = pa.list_(pa.int64())
    columns: dict[str, pa.Array] = {
        "method": pa.array([row.unit.method for row in rows], pa.string()),
        "norm": pa.array([row.norm for row in rows], pa.string()),
        "training_epsilon": pa.array([row.unit.epsilon for row in rows], pa.float64()),
        "epsilon": pa.array([row.epsilon for row in rows], pa.float64()),
        "best_epochs": pa.array([[cell.best_epoch for cell in r.cells] for r in rows], whole),
        "epochs": pa.array([[cell.epochs for cell in row.cells] for row in rows], whole),
    }
    for place, weights in enumerate(WEIGHTS):
        columns |= estimate_columns(f"clean_accuracy_{weights}", [r.clean[place] for r in rows])
        columns |= estimate_columns(
            f"worst_case_accuracy_{weights}", [row.worst[place] for row in rows]
        )
    columns |= estimate_columns("gap", [row.gap for row in rows])
    columns["examples"] = pa.array(
        [row.gap.examples if row.gap else None for row in rows], pa.int64()
    )
    columns["seeds"] = pa.array([len(row.cells) for row in rows], pa.int64())
    columns["seeds_planned"] = pa.array([len(row.unit.seeds) for row in rows], pa.int64())
    columns["flags"] = texts_column([flag_texts(row.flags) for row in rows])
    return pa.table(columns)


def _best_is_last(cell: Measured) -> bool:
    if cell.best_epoch is None or cell.epochs is None:
        return False
    # Of the epoch that made a training stop, there is a row and no weights.
    return cell.best_epoch == cell.epochs - (cell.status == "stopped")


def _flags(last: ResultRow, best: ResultRow) -> tuple[Flag, ...]:
    """Say what the two rows of the results do not say of both, and what befell the last weights."""
    found = [
        replace(flag, text=f"last weights, {flag.text}")
        for flag in last.flags
        if flag.kind == "collapsed" and flag not in best.flags
    ]
    found += [flag for flag in last.flags if flag.kind == "robust overfitting"]
    for flag in best.flags:
        both = flag in last.flags
        found.append(flag if both else replace(flag, text=f"best weights, {flag.text}"))
    return tuple(found)
