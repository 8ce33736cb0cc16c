"""Published beside ours: each published number of the trainings that a study stands beside."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from advtrain.published.protocols import (
    Departure,
    differences,
    evaluation_here,
    training_here,
    unstated,
)
from advtrain.published.registry import Evaluation, Number, Registry, Training
from advtrain.reporting.columns import estimate_columns, flag_texts, texts_column
from advtrain.reporting.flags import Flag, collapse, merge, stopped
from advtrain.reporting.measure import Certified, Evaluated, Measured, Unit, clean_runs
from advtrain.reporting.statistics import Estimate, Run, estimate
from advtrain.reporting.study import StudyInfo
from advtrain.reporting.verdicts import noise
from advtrain.results.names import parse_evaluation

Says = Literal["reproduced", "deviates", "not comparable", "not run"]

TIMES = ("minutes", "seconds_per_epoch", "seconds_per_example")
PROVEN = ("verified_accuracy", "certified_accuracy")

RULE = (
    "Each number stands beside what the study ran under the protocol that differs least from the "
    "published one; an attack of another kind does not count. Reproduced: every field of the "
    "protocol that the source states agrees (training and attack), and the two differ by no more "
    "than the noise, the largest of 1 point, two standard deviations over seeds (ours or the "
    "published, the larger) and half the 95 % Wilson interval of ours. Deviates: they differ by "
    "more, or a training of ours collapsed. Not comparable: the fields named differ, theirs → "
    "ours. Times depend on the hardware and are not compared: beside them stand passes (forward "
    "and backward, of the whole training) over those of natural training, and our seconds in the "
    "table of costs."
)
"""How a verdict is reached, for the reader of the table."""


@dataclass(frozen=True)
class Candidate:
    """What was run on the cells of a unit, and under which protocol.

    Attributes:
        name: of the evaluation.
        proven: it is a certificate.
        weights: which were evaluated.
        training: how they were trained.
        evaluation: how the evaluation was made.
    """

    name: str
    proven: bool
    weights: str
    training: Training
    evaluation: Evaluation


@dataclass(frozen=True)
class PublishedRow:
    """One published number, and ours.

    Attributes:
        method: of the study.
        number: as it was published.
        unit: the cells that it stands beside; None if the study has none.
        read_from: the name of ours in whose rows the accuracy is; empty where none was run.
        weights: of ours.
        cells: those with numbers.
        ours: the accuracy; None where nothing was run, and for a time.
        departures: the stated fields of the protocol that differ.
        unstated: the fields of our protocol that the source does not state.
        flags: what to know before our number.
        relative: of a time, our passes over those of natural training.
        published_relative: of a time, the published over that of natural training.
    """

    method: str
    number: Number
    unit: Unit | None = None
    read_from: str = ""
    weights: str = ""
    cells: tuple[Measured, ...] = ()
    ours: Estimate | None = None
    departures: tuple[Departure, ...] = ()
    unstated: tuple[str, ...] = ()
    flags: tuple[Flag, ...] = ()
    relative: float | None = None
    published_relative: float | None = None

    @property
    def evaluation(self) -> str:
        """The attack or certificate of ours that counts; none does for clean accuracy."""
        return "" if self.number.evaluation.quantity == "clean_accuracy" else self.read_from

    @property
    def timed(self) -> bool:
        """The number is a time."""
        return self.number.evaluation.quantity in TIMES

    @property
    def difference(self) -> float | None:
        """Ours minus the published, in [-1, 1]."""
        return self.ours.mean - self.number.value if self.ours else None

    @property
    def noise(self) -> float | None:
        """Up to which a difference is none."""
        if self.ours is None:
            return None
        return max(noise(self.ours), 2 * (self.number.spread or 0.0))

    @property
    def says(self) -> Says:
        """The verdict; `RULE` says how."""
        if self.timed:
            return "not comparable"
        if self.difference is None or self.noise is None:
            return "not run"
        if self.departures:
            return "not comparable"
        collapsed = any(flag.kind == "collapsed" for flag in self.flags)
        # The tolerance keeps a difference of exactly the noise within it.
        within = abs(self.difference) <= self.noise + 1e-9
        return "reproduced" if within and not collapsed else "deviates"


def published_rows(
    units: Sequence[Unit],
    cells: pa.Table,
    info: StudyInfo,
    registry: Registry,
    relative: Mapping[str, float | None],
) -> list[PublishedRow]:
    """Put every published number of the trainings that the study names beside ours.

    Args:
        units: the study's cells, grouped.
        cells: what the cells say of themselves, as collected.
        info: the study.
        registry: of published numbers.
        relative: the passes of a unit's training over those of natural training, by its name.

    Returns:
        By method and training in the order that the study names them, then in that of the registry.
    """
    said = {row["cell"]: row for row in cells.to_pylist()}
    rows = []
    for method, names in info["published"].items():
        own = [unit for unit in units if unit.method == method]
        tried = [(unit, tuple(_candidates(unit, said, info["data_set"]))) for unit in own]
        for number in (one for name in names for one in registry.numbers if one.trained == name):
            if number.evaluation.quantity in TIMES:
                rows.append(_timed(method, number, own, registry, relative))
            else:
                rows.append(_row(method, number, tried, info))
    return rows


def cell_departures(
    row: Mapping[str, Any], info: StudyInfo, registry: Registry
) -> dict[str, tuple[Departure, ...]]:
    """List in what a cell's training departs from the published ones that it stands beside.

    Args:
        row: of the collected cells.
        info: the study.
        registry: of published numbers.

    Returns:
        By the name of the published training; for last and best weights alike.
    """
    found = {}
    for name in info["published"].get(row["label"], ()):
        published = registry.trainings[name]
        weights = "last" if published.selection in (None, "last") else "best"
        ours = training_here(json.loads(row["params"]), info["data_set"], row["examples"], weights)
        found[name] = differences(published, ours)
    return found


def _candidates(
    unit: Unit, said: Mapping[str, Mapping[str, Any]], data_set: Mapping[str, Any]
) -> Iterator[Candidate]:
    """List what was run on a unit's cells: each evaluation once, the seeds being alike."""
    seen: set[str] = set()
    for cell in unit.cells:
        row = said[cell.cell]
        params, evaluations = json.loads(row["params"]), json.loads(row["evaluations"])
        found: list[Evaluated | Certified] = [*cell.evaluations, *cell.certificates]
        for one in found:
            if one.name in seen:
                continue
            seen.add(one.name)
            weights = one.weights if isinstance(one, Evaluated) else "last"
            yield Candidate(
                name=one.name,
                proven=isinstance(one, Certified),
                weights=weights,
                training=training_here(params, data_set, row["examples"], weights),
                evaluation=evaluation_here(evaluations[one.name]["params"], len(one.example)),
            )


def _row(
    method: str,
    number: Number,
    tried: Sequence[tuple[Unit, Sequence[Candidate]]],
    info: StudyInfo,
) -> PublishedRow:
    """Choose what stands beside a number: the protocol that differs least."""
    matching = [
        (unit, one, _departures(number, one))
        for unit, candidates in tried
        for one in candidates
        if _matches(number.evaluation, one)
    ]
    if not matching:
        unit = tried[0][0] if tried else None
        flags = _flags(unit, "", number, info) if unit else ()
        return PublishedRow(method, number, unit, flags=flags)
    best = (number.training.selection or "last") != "last"
    unit, one, departures = min(matching, key=lambda found: _order(found[1], found[2], best))
    pairs = [(cell, _run(cell, one, number)) for cell in unit.cells]
    found = [(cell, run) for cell, run in pairs if run]
    return PublishedRow(
        method=method,
        number=number,
        unit=unit,
        read_from=one.name,
        weights=one.weights,
        cells=tuple(cell for cell, _ in found),
        ours=estimate([run for _, run in found]),
        departures=departures,
        unstated=_unstated(number, one),
        flags=_flags(unit, one.name, number, info),
    )


def _matches(published: Evaluation, one: Candidate) -> bool:
    """Say whether an evaluation of ours measures what was published."""
    if published.quantity == "clean_accuracy":
        return not one.proven
    if published.quantity in PROVEN:
        bounds = published.attack is None and one.evaluation.epsilon is not None
        return one.proven and (bounds or one.evaluation.attack == published.attack)
    return not one.proven and one.evaluation.attack == published.attack


def _departures(number: Number, one: Candidate) -> tuple[Departure, ...]:
    # A certificate that finds radii is asked about the published one.
    radius = one.proven and one.evaluation.epsilon is None
    return (
        *differences(number.training, one.training),
        *(
            found
            for found in differences(number.evaluation, one.evaluation)
            if not (radius and found.field == "attack.epsilon")
        ),
    )


def _unstated(number: Number, one: Candidate) -> tuple[str, ...]:
    clean = number.evaluation.quantity == "clean_accuracy"
    attack = unstated(number.evaluation, one.evaluation)
    return (
        *unstated(number.training, one.training),
        *(f"attack.{name}" for name in attack if name == "examples" or not clean),
    )


def _order(
    one: Candidate, departures: tuple[Departure, ...], best: bool
) -> tuple[int, bool, bool, int]:
    """Order by the number of differences; a budget weighs more, a number of examples less.

    Weights that are the best on the test set are none of ours; our best are nearer to them.
    """
    budget = any(one.field in ("attack.norm", "attack.epsilon") for one in departures)
    examples = one.evaluation.examples or 0
    count = sum(one.field != "attack.examples" for one in departures)
    return count, budget, best != (one.weights == "best"), -examples


def _run(cell: Measured, one: Candidate, number: Number) -> Run | None:
    """Return which examples count as right in a cell; None if it was not evaluated."""
    if one.proven:
        proof = next((made for made in cell.certificates if made.name == one.name), None)
        radius = number.evaluation.epsilon if proof and proof.epsilon is None else None
        within = radius if radius is not None else (proof.epsilon or 0.0) if proof else 0.0
        return Run(proof.example, proof.certified(within)) if proof else None
    made = next((made for made in cell.evaluations if made.name == one.name), None)
    if made is None:
        return None
    if number.evaluation.quantity == "clean_accuracy":
        return clean_runs([made])[0]
    return Run(made.example, made.robust)


def _timed(
    method: str,
    number: Number,
    own: Sequence[Unit],
    registry: Registry,
    relative: Mapping[str, float | None],
) -> PublishedRow:
    """Show a time with what can be compared of it: how often natural training's it is."""
    natural = next(
        (
            one.value
            for one in registry.numbers
            if (one.work, one.column) == (number.work, number.column)
            and one.training.method == "natural"
            and one.training.dataset == number.training.dataset
        ),
        None,
    )
    unit = own[0] if own else None
    return PublishedRow(
        method=method,
        number=number,
        unit=unit,
        relative=relative.get(unit.name) if unit else None,
        published_relative=number.value / natural if natural else None,
    )


def _flags(unit: Unit, evaluation: str, number: Number, info: StudyInfo) -> tuple[Flag, ...]:
    name = parse_evaluation(evaluation) if evaluation else None
    flags = [
        (Flag(one.state, "{cause}", {"cause": one.cause}), one.cell.seed)
        for one in unit.absent
        if one.of_the_cell or (name and name in (one.attack, one.certificate))
    ]
    for cell in unit.cells:
        clean = next((one.clean for one in cell.evaluations if one.name == evaluation), None)
        warnings = (stopped(cell), collapse(cell, clean, info["classes"]))
        flags += [(flag, cell.name.seed) for flag in warnings if flag]
    return merge(flags, unit.seeds)


def published_data(rows: Sequence[PublishedRow]) -> pa.Table:
    """Write the rows as columns: accuracies and differences are shares, times in their unit."""
    numbers = [row.number for row in rows]
    columns: dict[str, pa.Array] = {
        "method": pa.array([row.method for row in rows], pa.string()),
        "training_epsilon": pa.array(
            [row.unit.epsilon if row.unit else None for row in rows], pa.float64()
        ),
        "work": pa.array([one.work for one in numbers], pa.string()),
        "table": pa.array([one.table for one in numbers], pa.string()),
        "row": pa.array([one.row for one in numbers], pa.string()),
        "column": pa.array([one.column for one in numbers], pa.string()),
        "quantity": pa.array([one.evaluation.quantity for one in numbers], pa.string()),
        "published": pa.array([one.value for one in numbers], pa.float64()),
        "published_spread": pa.array([one.spread for one in numbers], pa.float64()),
        "published_seeds": pa.array([one.seeds for one in numbers], pa.int64()),
        "source": pa.array([one.source for one in numbers], pa.string()),
        "grade": pa.array([one.grade for one in numbers], pa.string()),
        "evaluation": pa.array([row.read_from or None for row in rows], pa.string()),
        "weights": pa.array([row.weights or None for row in rows], pa.string()),
    }
    columns |= estimate_columns("ours", [row.ours for row in rows])
    columns["difference"] = pa.array([row.difference for row in rows], pa.float64())
    columns["noise"] = pa.array([row.noise for row in rows], pa.float64())
    columns["passes_over_natural"] = pa.array([row.relative for row in rows], pa.float64())
    columns["published_over_natural"] = pa.array(
        [row.published_relative for row in rows], pa.float64()
    )
    columns["verdict"] = pa.array([row.says for row in rows], pa.string())
    columns["differences"] = texts_column([[str(one) for one in row.departures] for row in rows])
    columns["not_stated"] = texts_column([row.unstated for row in rows])
    columns["examples"] = pa.array(
        [row.ours.examples if row.ours else None for row in rows], pa.int64()
    )
    columns["seeds"] = pa.array([len(row.cells) for row in rows], pa.int64())
    columns["seeds_planned"] = pa.array(
        [len(row.unit.seeds) if row.unit else 0 for row in rows], pa.int64()
    )
    columns["flags"] = texts_column([flag_texts(row.flags) for row in rows])
    return pa.table(columns)
