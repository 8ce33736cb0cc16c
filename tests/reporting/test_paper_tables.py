"""The published beside ours, for the studies of params.yaml with the accuracies that are given."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from advtrain.graph.nodes import Graph
from advtrain.params.reader import read
from advtrain.published.registry import Number, read_registry
from advtrain.reporting.measure import units
from advtrain.reporting.published import PublishedRow, published_rows
from advtrain.reporting.study import check_info
from tests.reporting.made import evaluated, measured

ROOT = Path(__file__).resolve().parents[2]
PARAMS = read(ROOT / "params.yaml")
REGISTRY = read_registry()
TEST = 10_000  # images of CIFAR's test set


def published(name: str, quantity: str, column: str = "") -> Number | None:
    return next(
        (
            one
            for one in REGISTRY.numbers
            if one.trained == name
            and one.evaluation.quantity == quantity
            and column in ("", one.column)
        ),
        None,
    )


def table(
    study: str, robust: Callable[[str, str], float], clean: Callable[[str], float]
) -> list[PublishedRow]:
    """Make the cells of the first seed, as the graph has them, with accuracies by method."""
    graph = Graph(replace(PARAMS, run=(study,)), ROOT, names_only=True)
    attacks: dict[str, list[Any]] = {}
    for node in graph.stage("attack"):
        attacks.setdefault(node.params["cell"], []).append(node)
    cells, rows = [], []
    for node in graph.stage("train"):
        if node.params["seed"] != 0:
            continue
        cell, label = node.name.split("/")[1], node.params["method"]["name"]
        of = attacks[cell]
        made = [
            evaluated(
                one.params["evaluation"],
                robust(label, one.params["attack"]["name"]),
                clean=clean(label),
                examples=one.params["examples"] or TEST,
            )
            for one in of
        ]
        cells.append(measured(cell, made))
        described = {one.params["evaluation"]: {"params": one.params} for one in of}
        said = {"cell": cell, "label": label, "examples": 50_000}
        texts = {"params": json.dumps(node.params), "evaluations": json.dumps(described)}
        rows.append({**said, **texts})
    shown = graph.stage("tables")[0].params
    info = check_info({**shown, "classes": 10, "failures": []})
    return published_rows(units(cells, info), pa.Table.from_pylist(rows), info, REGISTRY, {})


POSTER = {"pgd_20": "PGD-20", "pgd_100": "PGD-100", "cw_100": "CW-100", "pgd_20_x10": "10xPGD-20"}


def as_published(study: str) -> list[PublishedRow]:
    """Give our cells the poster's accuracies."""
    names = {method: of[0] for method, of in PARAMS.studies[study].published.items()}

    def robust(method: str, attack: str) -> float:
        found = published(names[method], "robust_accuracy", POSTER.get(attack, "none"))
        return found.value if found else 0.0

    def clean(method: str) -> float:
        found = published(names[method], "clean_accuracy")
        return found.value if found else 0.0

    return table(study, robust, clean)


def test_the_posters_table_can_be_reproduced_at_its_own_scale() -> None:
    rows = [row for row in as_published("free_poster_cifar10") if row.number.work == "free"]
    assert Counter(row.says for row in rows if not row.timed) == {"reproduced": 29}
    assert [row.departures for row in rows] == [()] * len(rows)
    hundred = [row for row in as_published("free_poster_cifar100") if not row.timed]
    assert Counter(row.says for row in hundred) == {"reproduced": 24}


@pytest.mark.parametrize("study", ["free_poster_cifar10_h200", "free_poster_cifar100_h200"])
def test_the_same_accuracies_at_a_smaller_scale_are_not_a_reproduction(study: str) -> None:
    rows = [row for row in as_published(study) if not row.timed]
    assert {row.says for row in rows} == {"not comparable"}
    for row in rows:
        assert "model: WRN-32-10 → PreActResNet-18" in [str(one) for one in row.departures]


def test_each_number_stands_beside_the_attack_of_its_name() -> None:
    rows = [row for row in as_published("free_poster_cifar10") if row.number.work == "free"]
    for row in rows:
        if row.number.column in POSTER.values():
            attack = row.evaluation.partition("-linf")[0]
            assert POSTER[attack] == row.number.column
