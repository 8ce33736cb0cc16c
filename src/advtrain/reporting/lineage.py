"""Lineage: for each cell, everything that its numbers come from, and how to get them again.

What all cells of a study share is said once for the study, and what they do not with the cell: a
thousand cells stay readable so.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

from advtrain.graph.dotted import flatten
from advtrain.graph.references import study_of
from advtrain.published.protocols import Departure
from advtrain.published.registry import Registry
from advtrain.reporting import wording
from advtrain.reporting.captions import unit_text
from advtrain.reporting.measure import Certified, Evaluated, Measured, Unit
from advtrain.reporting.published import cell_departures
from advtrain.reporting.study import StudyInfo
from advtrain.results.collect import Collected


class Fact(NamedTuple):
    """Something about a cell, and where it leads; empty for nowhere."""

    label: str
    text: str
    href: str = ""


class Parameter(NamedTuple):
    """A resolved parameter, by its dotted name."""

    name: str
    value: str


class Input(NamedTuple):
    """What a cell was made from."""

    name: str
    key: str
    digest: str


Shared = TypeVar("Shared", Parameter, Input)


class Protocol(NamedTuple):
    """How an evaluation was made: in words, and the digest of the code."""

    text: str
    code_digest: str


@dataclass(frozen=True)
class Attack:
    """An attack or a certificate: what came out, from what, and the command that makes it again.

    Attributes:
        name: of the evaluation.
        right: how many examples of how many.
        weights: which it was run on.
        key: of the result.
        protocol: None where it is the one that the study's list has under this name.
        command: makes it again.
    """

    name: str
    right: str
    weights: str
    key: str
    protocol: Protocol | None
    command: str


@dataclass(frozen=True)
class Lineage:
    """One cell.

    Attributes:
        cell: its name.
        seed: its seed.
        facts: key, hashes, passes, the MLflow run.
        params: the parameters that not all cells of the study share.
        upstream: the inputs that not all cells share.
        attacks: its evaluations: the attacks, then the certificates.
        command: makes it again.
    """

    cell: str
    seed: int
    facts: tuple[Fact, ...]
    params: tuple[Parameter, ...]
    upstream: tuple[Input, ...]
    attacks: tuple[Attack, ...]
    command: str


@dataclass(frozen=True)
class Beside:
    """A published training that a unit stands beside, and in what ours departs from it.

    Attributes:
        name: in the registry.
        departures: the fields that the source states and that differ.
    """

    name: str
    departures: tuple[Departure, ...]


@dataclass(frozen=True)
class Group:
    """The lineages of a unit: one per seed.

    Attributes:
        name: of the unit.
        title: the same for a reader.
        beside: the published trainings that it stands beside.
        cells: one per seed.
    """

    name: str
    title: str
    beside: tuple[Beside, ...]
    cells: tuple[Lineage, ...]


@dataclass(frozen=True)
class Lineages:
    """A study.

    Attributes:
        groups: one per unit.
        params: the parameters that all cells share.
        upstream: the inputs that all cells share.
        protocols: of the evaluations that are made one way on all cells, by name.
    """

    groups: tuple[Group, ...]
    params: tuple[Parameter, ...]
    upstream: tuple[Input, ...]
    protocols: Mapping[str, Protocol]

    @cached_property
    def names(self) -> frozenset[str]:
        """The cells and units that have a lineage."""
        cells = {cell.cell for group in self.groups for cell in group.cells}
        return frozenset({group.name for group in self.groups} | cells)


def lineages(
    info: StudyInfo,
    units: Sequence[Unit],
    collected: Collected,
    registry: Registry,
    *,
    kept: bool,
) -> Lineages:
    """Trace every cell with numbers, grouped as the tables group them.

    Args:
        info: the study.
        units: its cells, grouped.
        collected: its rows.
        registry: of published numbers.
        kept: its rows are those of a reference run, whose cells have no run in MLflow and no card.
    """
    rows = {row["cell"]: row for row in collected.cells.to_pylist()}
    flat = {cell: _parameters(json.loads(row["params"])) for cell, row in rows.items()}
    inputs = {cell: _inputs(row) for cell, row in rows.items()}
    described = {cell: json.loads(row["evaluations"]) for cell, row in rows.items()}
    protocols = _protocols(described.values())
    # The kept run of a study is computed again as a run of that study.
    study = study_of(info["name"])
    # A study of one cell has nothing to tell it from.
    alone = len(rows) < 2
    shared_params = {} if alone else _shared(flat.values())
    shared_inputs = {} if alone else _shared(inputs.values())

    def lineage(cell: Measured) -> Lineage:
        row, name = rows[cell.cell], cell.cell
        evaluated: tuple[Evaluated | Certified, ...] = (*cell.evaluations, *cell.certificates)
        return Lineage(
            cell=name,
            seed=row["seed"],
            facts=(*_facts(row, cell, described[name]), *(() if kept else _links(study, row))),
            params=tuple(one for one in flat[name] if one not in shared_params),
            upstream=tuple(one for one in inputs[name] if one not in shared_inputs),
            attacks=tuple(
                _attack(info, name, one, described[name].get(one.name, {}), protocols)
                for one in evaluated
            ),
            command=_command("train", info, name),
        )

    def beside(unit: Unit) -> tuple[Beside, ...]:
        """Compare the first cell: what is published says nothing of seeds."""
        departures = cell_departures(rows[unit.cells[0].cell], info, registry)
        return tuple(Beside(name, found) for name, found in departures.items())

    return Lineages(
        groups=tuple(
            Group(unit.name, unit_text(unit), beside(unit), tuple(map(lineage, unit.cells)))
            for unit in units
            if unit.cells
        ),
        params=tuple(shared_params),
        upstream=tuple(shared_inputs),
        protocols=protocols,
    )


def _facts(
    row: Mapping[str, Any], cell: Measured, described: Mapping[str, Any]
) -> tuple[Fact, ...]:
    status = row["status"] + (f": {row['cause']}" if row["cause"] else "")
    facts = [Fact("cell", row["cell"]), Fact("key", row["key"]), Fact("status", status)]
    facts += [Fact("data hash", row["data_hash"])]
    facts += _checkpoints(row, described)
    facts += [
        Fact("code digest", row["code_digest"]),
        Fact("epochs", _count(row["epochs"])),
        Fact("best epoch", _count(row["best_epoch"])),
        Fact("forward passes per training example", wording.passes(cell.forward)),
        Fact("backward passes per training example", wording.passes(cell.backward)),
    ]
    return tuple(facts)


def _links(study: str, row: Mapping[str, Any]) -> tuple[Fact, ...]:
    """Lead to what lies beside the page: the way to the run, and the model card."""
    run = f"{row['mlflow_experiment']} / {row['mlflow_run_name']}"
    return (
        Fact("MLflow run", run, f"runs.html#{row['key']}"),
        Fact("MLflow search filter", f"tags.\"advtrain.key\" = '{row['key']}'"),
        Fact("model card", f"{row['cell']}.md", f"tables/{study}/cards/{row['cell']}.md"),
    )


def _checkpoints(row: Mapping[str, Any], described: Mapping[str, Any]) -> list[Fact]:
    """Name the hash of the weights, or of each weights that were evaluated."""
    found = {one["weights"]: one["checkpoint"] for one in described.values()}
    if len(found) < 2:
        return [Fact("checkpoint hash", row["checkpoint_hash"])]
    return [Fact(f"checkpoint hash, {which}", found[which]) for which in ("last", "best")]


def _attack(
    info: StudyInfo,
    cell: str,
    one: Evaluated | Certified,
    described: Mapping[str, str],
    protocols: Mapping[str, Protocol],
) -> Attack:
    if isinstance(one, Certified):
        stage, said = "certify", "certified" if one.epsilon is not None else "right"
        correct = one.certified(one.epsilon or 0.0)
    else:
        stage, said, correct = "attack", "robust", one.robust
    return Attack(
        name=one.name,
        right=f"{int(correct.sum())} of {len(correct)} {said}",
        weights=described.get("weights", "last"),
        key=described.get("key", ""),
        protocol=None if one.name in protocols else _protocol(described),
        command=_command(stage, info, f"{cell}/{one.name}"),
    )


def _command(stage: str, info: StudyInfo, name: str) -> str:
    """Return what computes a node again; of a reference run, its study has to be named."""
    study = study_of(info["name"])
    config = f" --config 'run=[{study}]'" if study != info["name"] else ""
    return f"snakemake --cores all{config} -- .pipeline/fresh/{stage}/{study}/{name}"


def _protocols(described: Iterable[Mapping[str, Mapping[str, str]]]) -> dict[str, Protocol]:
    """List the evaluations that are made one way, whatever the cell."""
    found: dict[str, set[Protocol]] = {}
    for evaluations in described:
        for name, one in evaluations.items():
            found.setdefault(name, set()).add(_protocol(one))
    return {name: next(iter(ways)) for name, ways in sorted(found.items()) if len(ways) == 1}


def _protocol(described: Mapping[str, str]) -> Protocol:
    return Protocol(described.get("protocol", ""), described.get("code_digest", ""))


def _shared(of_cells: Iterable[Sequence[Shared]]) -> dict[Shared, None]:
    """Return what all have, in the order of the first."""
    first, *others = of_cells
    common = set(first).intersection(*others)
    return {one: None for one in first if one in common}


def _inputs(row: Mapping[str, Any]) -> list[Input]:
    found = dict(sorted(json.loads(row["upstream"]).items()))
    return [Input(name, one.get("key", ""), one.get("digest", "")) for name, one in found.items()]


def _parameters(params: Mapping[str, Any]) -> list[Parameter]:
    """Name each parameter by its dotted path; an empty mapping has none."""
    return [
        Parameter(name, value if isinstance(value, str) else json.dumps(value))
        for name, value in sorted(flatten(params).items())
        if value != {}
    ]


def _count(value: int | None) -> str:
    return wording.NOTHING if value is None else str(value)
