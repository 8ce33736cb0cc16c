"""Lineage: for each cell, everything that its numbers come from, and how to get them again."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from advtrain.reporting import wording
from advtrain.reporting.captions import unit_text
from advtrain.reporting.measure import Certified, Evaluated, Measured, Unit
from advtrain.results.collect import Collected


@dataclass(frozen=True)
class Attack:
    """An attack or a certificate: what came out, from what, and the command that makes it again."""

    name: str
    right: str
    key: str
    weights: str
    checkpoint: str
    code_digest: str
    protocol: str
    command: str


@dataclass(frozen=True)
class Lineage:
    """One cell.

    Attributes:
        cell: its name.
        seed: its seed.
        facts: names and texts: key, hashes, passes, the MLflow run.
        params: every resolved parameter, by dotted name.
        upstream: the name, key and digest of each input.
        attacks: its evaluations: the attacks, then the certificates.
        command: makes it again.
    """

    cell: str
    seed: int
    facts: tuple[tuple[str, str], ...]
    params: tuple[tuple[str, str], ...]
    upstream: tuple[tuple[str, str, str], ...]
    attacks: tuple[Attack, ...]
    command: str


@dataclass(frozen=True)
class Group:
    """The lineages of a unit: one per seed."""

    name: str
    title: str
    cells: tuple[Lineage, ...]


def lineages(study: str, units: Sequence[Unit], collected: Collected) -> tuple[Group, ...]:
    """Trace every cell with numbers, grouped as the tables group them."""
    rows = {row["cell"]: row for row in collected.cells.to_pylist()}
    return tuple(
        Group(
            name=unit.name,
            title=unit_text(unit),
            cells=tuple(_lineage(study, cell, rows[cell.cell]) for cell in unit.cells),
        )
        for unit in units
        if unit.cells
    )


def _lineage(study: str, cell: Measured, row: Mapping[str, Any]) -> Lineage:
    status = row["status"] + (f": {row['cause']}" if row["cause"] else "")
    facts = (
        ("cell", row["cell"]),
        ("key", row["key"]),
        ("status", status),
        ("data hash", row["data_hash"]),
        ("checkpoint hash", row["checkpoint_hash"]),
        ("code digest", row["code_digest"]),
        ("epochs", _count(row["epochs"])),
        ("best epoch", _count(row["best_epoch"])),
        ("forward passes per training example", wording.passes(cell.forward)),
        ("backward passes per training example", wording.passes(cell.backward)),
        ("MLflow experiment", row["mlflow_experiment"]),
        ("MLflow run name", row["mlflow_run_name"]),
        ("MLflow search filter", f"tags.\"advtrain.key\" = '{row['key']}'"),
    )
    upstream = json.loads(row["upstream"])
    described = json.loads(row["evaluations"])
    evaluated: tuple[Evaluated | Certified, ...] = (*cell.evaluations, *cell.certificates)
    return Lineage(
        cell=row["cell"],
        seed=row["seed"],
        facts=facts,
        params=tuple(_flat("", json.loads(row["params"]))),
        upstream=tuple(
            (name, found.get("key", ""), found.get("digest", ""))
            for name, found in sorted(upstream.items())
        ),
        attacks=tuple(
            _attack(study, cell.cell, one, described.get(one.name, {})) for one in evaluated
        ),
        command=f"snakemake --cores all -- .pipeline/fresh/train/{study}/{row['cell']}",
    )


def _attack(
    study: str, cell: str, one: Evaluated | Certified, described: Mapping[str, str]
) -> Attack:
    if isinstance(one, Certified):
        stage, said = "certify", "certified" if one.epsilon is not None else "right"
        correct = one.certified(one.epsilon or 0.0)
    else:
        stage, said, correct = "attack", "robust", one.robust
    return Attack(
        name=one.name,
        right=f"{int(correct.sum())} of {len(correct)} {said}",
        key=described.get("key", ""),
        weights=described.get("weights", "last"),
        checkpoint=described.get("checkpoint", ""),
        code_digest=described.get("code_digest", ""),
        protocol=described.get("protocol", ""),
        command=f"snakemake --cores all -- .pipeline/fresh/{stage}/{study}/{cell}/{one.name}",
    )


def _flat(place: str, value: Any) -> list[tuple[str, str]]:
    """Name each leaf by its dotted path; an empty mapping has none."""
    if isinstance(value, Mapping):
        return [
            leaf
            for name, inner in sorted(value.items())
            for leaf in _flat(f"{place}.{name}" if place else name, inner)
        ]
    return [(place, value if isinstance(value, str) else json.dumps(value))]


def _count(value: int | None) -> str:
    return wording.NOTHING if value is None else str(value)
