"""From rows to what was measured: per cell and evaluation, who was right about which example."""

import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from advtrain.reporting import wording
from advtrain.reporting.statistics import Correct, Run
from advtrain.reporting.study import Failure, StudyInfo
from advtrain.results.collect import Collected
from advtrain.results.names import (
    CellName,
    EvaluationName,
    parse_cell,
    parse_evaluation,
)

Columns = Mapping[str, NDArray[Any]]
"""The columns of some rows; what is null in a column of numbers is NaN."""


@dataclass(frozen=True)
class Evaluated:
    """One attack on one cell.

    Attributes:
        name: the evaluation, `pgd_20-linf-0.2`.
        attack: the attack's name, `pgd_20`.
        norm: of the budget; `spatial` or `corruption` for a transformation of the image.
        epsilon: the budget in pixel units; None for a transformation of the image.
        weights: which of the cell's weights it attacked, `last` or `best`.
        module: the attack's file.
        parameters: its resolved parameters.
        precision: that it computed in.
        example: (N,) ids.
        clean: (N,) the clean prediction is the label.
        robust: (N,) the prediction at the attack's point is the label.
        backwards: the most backward passes that it spent on an example: 1 for a single-step
            attack, 0 for one that uses no gradient.
        passes: (N,) forward and backward passes that it spent.
        stage: (N,) texts, the part of an ensemble that broke the example; "" where none did.
        claim: (N,) texts, what a second look said of a claimed adversarial example: one of
            `results.schema.CLAIMS`.
        gain: (N,) by how much it raised its objective; NaN where it does not say.
        late_gain: (N,) what of it came in the last quarter of its steps; NaN likewise.
    """

    name: str
    attack: str
    norm: str
    epsilon: float | None
    weights: str
    module: str
    parameters: Mapping[str, Any]
    precision: str
    example: NDArray[np.int64]
    clean: Correct
    robust: Correct
    backwards: int
    passes: NDArray[np.int64]
    stage: NDArray[np.object_]
    claim: NDArray[np.object_]
    gain: NDArray[np.float64]
    late_gain: NDArray[np.float64]


@dataclass(frozen=True)
class Certified:
    """One certificate on one cell.

    Attributes:
        name: the evaluation, `ibp-linf-0.2` or `smoothing_025-l2`.
        certificate: the certificate's name, `ibp`.
        norm: of the budget or of the radii.
        epsilon: the budget that was certified for; None where a radius was found for each example,
            for a predictor of its own (the smoothed model).
        example: (N,) ids.
        clean: (N,) the prediction of the certified predictor is the label.
        abstained: (N,) it made no prediction.
        radius: (N,) up to which the prediction is proven to stay; 0 where it is not.
    """

    name: str
    certificate: str
    norm: str
    epsilon: float | None
    example: NDArray[np.int64]
    clean: Correct
    abstained: Correct
    radius: NDArray[np.float64]

    def certified(self, radius: float) -> Correct:
        """Say per example whether it is right, and proven to stay so within the radius."""
        # The tolerance takes a budget that was stored as a radius for itself.
        return self.clean & (self.radius >= radius * (1 - 1e-6))


@dataclass(frozen=True)
class Probe:
    """What the gradients of a cell's last weights look like, at (N,) clean images.

    Attributes:
        example: ids.
        clean: the prediction is the label.
        loss: the cross-entropy.
        gradient: the l2 length of its input gradient.
        margin_gradient: the l2 length of the margin's input gradient.
        zero_share: the share of the cross-entropy's gradient that is exactly 0.
        logit_change: the largest change of a logit in a second evaluation.
        gradient_cosine: the cosine of the two gradients.
        probabilities: the outputs lie in [0, 1] and sum to 1.
    """

    example: NDArray[np.int64]
    clean: Correct
    loss: NDArray[np.float64]
    gradient: NDArray[np.float64]
    margin_gradient: NDArray[np.float64]
    zero_share: NDArray[np.float64]
    logit_change: NDArray[np.float64]
    gradient_cosine: NDArray[np.float64]
    probabilities: Correct


@dataclass(frozen=True)
class Measured:
    """One cell: what it is, how it ended, what was measured on it.

    Attributes:
        cell: its name.
        name: the same in parts.
        status: finished, collapsed or stopped.
        cause: why, if not finished.
        forward: forward passes of the whole training per training example.
        backward: backward passes likewise.
        evaluations: the attacks on it.
        certificates: the certificates on its last weights.
        epochs: of the training.
        best_epoch: whose weights were kept as the best by validation.
        probe: the gradients of the last weights; None if nobody looked.
    """

    cell: str
    name: CellName
    status: str
    cause: str
    forward: float | None
    backward: float | None
    evaluations: tuple[Evaluated, ...]
    certificates: tuple[Certified, ...] = ()
    epochs: int | None = None
    best_epoch: int | None = None
    probe: Probe | None = None


@dataclass(frozen=True)
class Absent:
    """A cell without results, or an evaluation or certificate of a cell without rows, and why."""

    cell: CellName
    attack: EvaluationName | None
    certificate: EvaluationName | None
    state: str
    cause: str

    @property
    def of_the_cell(self) -> bool:
        """The training itself has no results."""
        return self.attack is None and self.certificate is None


@dataclass(frozen=True)
class Unit:
    """The cells that differ in their seed alone: what one row of a table is about.

    Attributes:
        method: the method's label.
        norm: of the training budget; None for natural training.
        epsilon: the training budget; None for natural training.
        cells: those with results, by seed.
        absent: those without, and evaluations and certificates without.
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
        return f"{self.method}-{wording.threat_name(self.norm, self.epsilon)}"

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
    for cell, name, rows in _blocks(_attacked(collected.outcomes), "cell", "attack"):
        said = described.get(cell, {}).get(name, {})
        evaluations.setdefault(cell, []).append(_evaluated(name, said, rows))
    certificates: dict[str, list[Certified]] = {}
    for cell, name, rows in _blocks(_columns(collected.certified), "cell", "certificate"):
        certificates.setdefault(cell, []).append(_certified(name, rows))
    probes = {cell: _probe(rows) for cell, rows in _blocks(_columns(collected.probes), "cell")}
    return [
        Measured(
            cell=row["cell"],
            name=parse_cell(row["cell"]),
            status=row["status"],
            cause=row["cause"],
            forward=_per_example(row, "forward_passes"),
            backward=_per_example(row, "backward_passes"),
            evaluations=tuple(evaluations.get(row["cell"], ())),
            certificates=tuple(certificates.get(row["cell"], ())),
            epochs=row["epochs"],
            best_epoch=row["best_epoch"],
            probe=probes.get(row["cell"]),
        )
        for row in cells
    ]


def read_cells(collected: Collected) -> dict[str, dict[str, Any]]:
    """Return the rows of the cells by name, with what they hold as JSON read."""
    held = ("params", "upstream", "evaluations")
    return {
        row["cell"]: row | {name: json.loads(row[name]) for name in held}
        for row in collected.cells.to_pylist()
    }


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
    """Say which cell, attack or certificate a failure is of; None if it is of none."""
    cell, _, evaluation = failure["cell"].removeprefix(f"{study}/").partition("/")
    try:
        found = parse_evaluation(evaluation) if evaluation else None
        certificate = failure["stage"] == "certify"
        return Absent(
            cell=parse_cell(cell),
            attack=None if certificate else found,
            certificate=found if certificate else None,
            state=failure["state"],
            cause=failure["cause"],
        )
    except ValueError:
        return None


def clean_runs(evaluations: Iterable[Evaluated | Certified]) -> tuple[Run, ...]:
    """Return who was right on the clean images, for each evaluation."""
    return tuple(Run(one.example, one.clean) for one in evaluations)


def robust_runs(evaluations: Iterable[Evaluated]) -> tuple[Run, ...]:
    """Return who was right at the attacked points, for each evaluation."""
    return tuple(Run(one.example, one.robust) for one in evaluations)


def _identity(name: CellName) -> tuple[str, str | None, float | None]:
    return name.label, name.norm, name.epsilon


def _columns(rows: pa.Table) -> Columns:
    """Return the columns of a table: texts as objects, each once in memory."""
    return {
        name: _texts(rows[name])
        if pa.types.is_dictionary(rows.schema.field(name).type)
        else rows[name].to_numpy()
        for name in rows.column_names
    }


def _attacked(outcomes: pa.Table) -> Columns:
    """Return the columns of all outcomes, with what is computed of them, at once for all cells."""
    rows = _columns(outcomes)
    return {
        **rows,
        "clean": rows["clean_prediction"] == rows["label"],
        "robust": rows["adversarial_prediction"] == rows["label"],
        "passes": rows["forward"].astype(np.int64) + rows["backward"],
        "gain": rows["gain"].astype(np.float64),
        "late_gain": rows["late_gain"].astype(np.float64),
    }


def _blocks(columns: Columns, *names: str) -> Iterator[tuple[Any, ...]]:
    """Cut columns where one of the named ones changes: their values, then the rows."""
    count = len(columns[names[0]])
    if count == 0:
        return
    changed = np.zeros(count - 1, dtype=np.bool_)
    for name in names:
        changed |= columns[name][1:] != columns[name][:-1]
    places = (np.flatnonzero(changed) + 1).tolist()
    for start, end in itertools.pairwise([0, *places, count]):
        rows = {name: column[start:end] for name, column in columns.items()}
        yield (*(rows[name][0] for name in names), rows)


def _evaluated(name: str, said: Mapping[str, Any], rows: Columns) -> Evaluated:
    found = parse_evaluation(name)
    params = said.get("params", {})
    attack = params.get("attack", {})
    return Evaluated(
        name=name,
        attack=found.attack,
        norm=rows["norm"][0],
        epsilon=_budget(rows),
        weights=said.get("weights", "last"),
        module=attack.get("module", ""),
        parameters=attack.get("parameters", {}),
        precision=params.get("precision", "float32"),
        example=rows["example"],
        clean=rows["clean"],
        robust=rows["robust"],
        backwards=int(rows["backward"].max()),
        passes=rows["passes"],
        stage=rows["stage"],
        claim=rows["claim"],
        gain=rows["gain"],
        late_gain=rows["late_gain"],
    )


def _probe(rows: Columns) -> Probe:
    return Probe(
        example=rows["example"],
        clean=rows["prediction"] == rows["label"],
        loss=rows["loss"].astype(np.float64),
        gradient=rows["gradient"].astype(np.float64),
        margin_gradient=rows["margin_gradient"].astype(np.float64),
        zero_share=rows["zero_share"].astype(np.float64),
        logit_change=rows["logit_change"].astype(np.float64),
        gradient_cosine=rows["gradient_cosine"].astype(np.float64),
        probabilities=rows["probabilities"].astype(np.bool_),
    )


def _budget(rows: Columns) -> float | None:
    """Return the budget of some rows; None where it is null."""
    found = float(rows["epsilon"][0])
    return None if math.isnan(found) else found


def _texts(column: pa.ChunkedArray) -> NDArray[np.object_]:
    """Return the texts of a column, each once in memory."""
    coded = column.combine_chunks()
    texts = np.array(coded.dictionary.to_pylist(), dtype=object)
    found: NDArray[np.object_] = texts[coded.indices.to_numpy()]
    return found


def _certified(name: str, rows: Columns) -> Certified:
    prediction = rows["prediction"]
    return Certified(
        name=name,
        certificate=parse_evaluation(name).attack,
        norm=rows["norm"][0],
        epsilon=_budget(rows),
        example=rows["example"],
        clean=prediction == rows["label"],
        abstained=prediction < 0,
        radius=rows["radius"],
    )


def _per_example(row: dict[str, Any], column: str) -> float | None:
    passes, examples = row[column], row["examples"]
    return None if passes is None or not examples else float(passes / examples)
