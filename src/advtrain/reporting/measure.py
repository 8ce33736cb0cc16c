"""From rows to what was measured: per cell and evaluation, who was right about which example."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from advtrain.reporting.statistics import Correct
from advtrain.reporting.study import Failure, StudyInfo
from advtrain.results.collect import Collected
from advtrain.results.names import (
    CellName,
    EvaluationName,
    epsilon_text,
    parse_cell,
    parse_evaluation,
)


@dataclass(frozen=True)
class Evaluated:
    """One attack on one cell.

    Attributes:
        name: the evaluation, `pgd_20-linf-0.2`.
        attack: the attack's name, `pgd_20`.
        norm: of the budget.
        epsilon: the budget in pixel units.
        weights: which of the cell's weights it attacked, `last` or `best`.
        example: (N,) ids.
        clean: (N,) the clean prediction is the label.
        robust: (N,) the prediction at the attack's point is the label.
        backwards: the most backward passes that it spent on an example: 1 for a single-step
            attack, 0 for one that uses no gradient.
    """

    name: str
    attack: str
    norm: str
    epsilon: float
    weights: str
    example: NDArray[np.int64]
    clean: Correct
    robust: Correct
    backwards: int


@dataclass(frozen=True)
class Measured:
    """One cell: what it is, how it ended, what was measured on it."""

    cell: str
    name: CellName
    status: str
    cause: str
    forward: float | None
    backward: float | None
    evaluations: tuple[Evaluated, ...]


@dataclass(frozen=True)
class Absent:
    """A cell without results, or an evaluation of a cell without outcomes, and why."""

    cell: CellName
    evaluation: EvaluationName | None
    state: str
    cause: str


@dataclass(frozen=True)
class Unit:
    """The cells that differ in their seed alone: what one row of a table is about.

    Attributes:
        method: the method's label.
        norm: of the training budget; None for natural training.
        epsilon: the training budget; None for natural training.
        cells: those with results, by seed.
        absent: those without, and evaluations without.
    """

    method: str
    norm: str | None
    epsilon: float | None
    cells: tuple[Measured, ...]
    absent: tuple[Absent, ...]

    @property
    def name(self) -> str:
        """The unit as a name for links: `trades-linf-8_255`."""
        if self.norm is None or self.epsilon is None:
            return self.method
        return f"{self.method}-{self.norm}-{epsilon_text(self.epsilon).replace('/', '_')}"

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds that were planned: those with results and those that failed."""
        found = {cell.name.seed for cell in self.cells} | {one.cell.seed for one in self.absent}
        return tuple(sorted(found))

    @property
    def weights(self) -> tuple[str, ...]:
        """The kinds of weights that were attacked; `last` where nothing was."""
        found = {e.weights for cell in self.cells for e in cell.evaluations}
        return tuple(which for which in ("last", "best") if which in found) or ("last",)


def measure(collected: Collected) -> list[Measured]:
    """Read a study's rows, cell by cell."""
    evaluations: dict[str, list[Evaluated]] = {}
    cells = collected.cells.to_pylist()
    described = {row["cell"]: json.loads(row["evaluations"]) for row in cells}
    for cell, name, rows in _blocks(collected.outcomes):
        weights = described.get(cell, {}).get(name, {}).get("weights", "last")
        evaluations.setdefault(cell, []).append(_evaluated(name, weights, rows))
    return [
        Measured(
            cell=row["cell"],
            name=parse_cell(row["cell"]),
            status=row["status"],
            cause=row["cause"],
            forward=_per_example(row, "forward_passes"),
            backward=_per_example(row, "backward_passes"),
            evaluations=tuple(evaluations.get(row["cell"], ())),
        )
        for row in cells
    ]


def units(measured: Sequence[Measured], info: StudyInfo) -> list[Unit]:
    """Group cells by what differs in more than the seed, in the order of the study.

    Args:
        measured: the cells with results.
        info: the study; its failures become part of the units that they belong to. A failure that
            is not a cell's (the data could not be prepared) belongs to none.

    Returns:
        Methods in the study's order (unknown ones last), then by training budget.
    """
    cells: dict[tuple[str, str | None, float | None], list[Measured]] = {}
    for found in measured:
        cells.setdefault(_identity(found.name), []).append(found)
    absent: dict[tuple[str, str | None, float | None], list[Absent]] = {}
    for failure in info["failures"]:
        if located := locate(failure, info["name"]):
            absent.setdefault(_identity(located.cell), []).append(located)
    order = {method: place for place, method in enumerate(info["methods"])}
    return [
        Unit(
            *identity,
            cells=tuple(sorted(cells.get(identity, ()), key=lambda cell: cell.name.seed)),
            absent=tuple(absent.get(identity, ())),
        )
        for identity in sorted(
            {*cells, *absent},
            key=lambda i: (order.get(i[0], len(order)), i[0], i[1] or "", i[2] or 0.0),
        )
    ]


def locate(failure: Failure, study: str) -> Absent | None:
    """Say which cell or evaluation a failure is of; None if it is of neither."""
    cell, _, evaluation = failure["cell"].removeprefix(f"{study}/").partition("/")
    try:
        return Absent(
            cell=parse_cell(cell),
            evaluation=parse_evaluation(evaluation) if evaluation else None,
            state=failure["state"],
            cause=failure["cause"],
        )
    except ValueError:
        return None


def _identity(name: CellName) -> tuple[str, str | None, float | None]:
    return name.label, name.norm, name.epsilon


def _blocks(outcomes: pa.Table) -> list[tuple[str, str, pa.Table]]:
    """Cut the rows where the cell or the evaluation changes."""
    if outcomes.num_rows == 0:
        return []
    columns = [outcomes[name].combine_chunks() for name in ("cell", "attack")]
    codes = [column.indices.to_numpy() for column in columns]
    changes = np.flatnonzero((np.diff(codes[0]) != 0) | (np.diff(codes[1]) != 0)) + 1
    starts = [0, *changes.tolist()]
    ends = [*changes.tolist(), outcomes.num_rows]
    blocks = []
    for start, end in zip(starts, ends, strict=True):
        cell, attack = (column[start].as_py() for column in columns)
        blocks.append((cell, attack, outcomes.slice(start, end - start)))
    return blocks


def _evaluated(name: str, weights: str, rows: pa.Table) -> Evaluated:
    found = parse_evaluation(name)
    label = rows["label"].to_numpy()
    return Evaluated(
        name=name,
        attack=found.attack,
        norm=rows["norm"][0].as_py(),
        epsilon=rows["epsilon"][0].as_py(),
        weights=weights,
        example=rows["example"].to_numpy(),
        clean=rows["clean_prediction"].to_numpy() == label,
        robust=rows["adversarial_prediction"].to_numpy() == label,
        backwards=int(rows["backward"].to_numpy().max()),
    )


def _per_example(row: dict[str, Any], column: str) -> float | None:
    passes, examples = row[column], row["examples"]
    return None if passes is None or not examples else float(passes / examples)
