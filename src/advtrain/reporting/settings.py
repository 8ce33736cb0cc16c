"""How a study was made, as tables: each method with its recipe, each attack, and the keys."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from advtrain.provenance import hash_json
from advtrain.reporting import wording
from advtrain.reporting.sheet import Cell, Column, Sheet
from advtrain.reporting.study import StudyInfo
from advtrain.results.collect import Collected

RECIPE = ("epochs", "batch_size", "optimizer", "learning_rate", "schedule", "weight_decay")
"""What of a recipe the table of methods shows in columns of their own."""

LENGTHS = ("epsilon", "step_size", "gamma", "sigma")
"""Parameters in pixel units, which are written as budgets are."""


def methods_sheet(collected: Collected, info: StudyInfo) -> Sheet:
    """Lay out the methods: parameters and recipe of each, over its budgets and seeds."""
    cells: dict[str, list[dict[str, Any]]] = {}
    for row in collected.cells.to_pylist():
        cells.setdefault(row["label"], []).append(json.loads(row["params"]))
    heads = ["method", "parameters", *(name.replace("_", " ") for name in RECIPE), "besides"]
    texts = []
    for method in info["methods"]:
        if found := cells.get(method):
            recipes = [(one["recipe"] or {}).get("parameters", {}) for one in found]
            texts.append(
                [
                    method,
                    _parameters([(one["method"]["parameters"], one["threat"]) for one in found]),
                    *(_values(recipe.get(name) for recipe in recipes) for name in RECIPE),
                    ", ".join(info["method_additions"].get(method, [])) or wording.NOTHING,
                ]
            )
    return _sheet(
        f"{info['title']}: the methods and their recipes",
        "Lengths in pixel units of [0, 1]; several values are those of several budgets. Besides: "
        "what the recipe does that is not its default.",
        heads,
        texts,
    )


def attacks_sheet(collected: Collected, info: StudyInfo) -> Sheet:
    """Lay out the attacks and certificates: parameters, weights and examples of each."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in collected.cells.to_pylist():
        for said in json.loads(row["evaluations"]).values():
            made = said["params"].get("attack") or said["params"]["certificate"]
            weights = said.get("weights", "last")
            found.setdefault(made["name"], []).append(
                {**said["params"], "made": made, "weights": weights}
            )
    texts = [
        [
            name,
            _parameters([(one["made"]["parameters"], one["threat"]) for one in found[name]]),
            _values(one["weights"] for one in found[name]),
            _values(one["examples"] or "all" for one in found[name]),
            _values(one.get("precision", "float32") for one in found[name]),
        ]
        for name in (*info["attacks"], *info["certificates"])
        if name in found
    ]
    return _sheet(
        f"{info['title']}: the attacks",
        "Each is crafted on the network in evaluation mode. Lengths in pixel units of [0, 1]; "
        "several values are those of several budgets. Examples: the first of the test split.",
        ["attack", "parameters", "weights", "examples", "precision"],
        texts,
    )


def keys_sheet(collected: Collected, info: StudyInfo) -> Sheet:
    """Lay out the content keys: one row per cell."""
    return _sheet(
        f"{info['title']}: the keys of the trainings",
        "The key is a hash of all that the training depends on: parameters, data, code. The data "
        "and the last weights are named by the first digits of their hashes.",
        ["cell", "key", "data", "last weights"],
        [
            [row["cell"], row["key"], row["data_hash"][:16], row["checkpoint_hash"][:16]]
            for row in collected.cells.to_pylist()
        ],
    )


def digest(collected: Collected) -> str:
    """Hash the keys of all trainings and evaluations of a study: the same for the same rows."""
    found = {}
    for row in collected.cells.to_pylist():
        said = json.loads(row["evaluations"])
        found[row["cell"]] = [row["key"], {name: one.get("key", "") for name, one in said.items()}]
    return hash_json(found)


def _sheet(title: str, reading: str, heads: Sequence[str], texts: Sequence[Sequence[str]]) -> Sheet:
    """Make a table of texts."""
    columns = tuple(Column(head, "name") for head in heads)
    rows = tuple(tuple(map(Cell, row)) for row in texts)
    data = {head: pa.array([row[place] for row in texts]) for place, head in enumerate(heads)}
    return Sheet(title, reading, columns, rows, pa.table(data))


def _parameters(found: Sequence[tuple[Mapping[str, Any], Mapping[str, Any] | None]]) -> str:
    """Say the parameters of several cells, each with its threat: `steps 10, step_size 0.25 ε`."""
    said = []
    for name in dict.fromkeys(name for parameters, _ in found for name in parameters):
        values = [parameters.get(name) for parameters, _ in found]
        shares = {
            f"{value / threat['epsilon']:.4g}"
            for value, (_, threat) in zip(values, found, strict=True)
            if name == "step_size" and value and threat and threat["epsilon"]
        }
        # A step that is the same share of each budget is said as that share.
        if len(set(map(str, values))) > 1 and len(shares) == 1:
            said.append(f"{name} {shares.pop()} ε")
        else:
            said.append(f"{name} {_values(values, name in LENGTHS)}")
    return ", ".join(said) or wording.NOTHING


def _values(values: Iterable[Any], length: bool = False) -> str:
    """Say each value once."""
    return " or ".join(dict.fromkeys(_value(value, length) for value in values))


def _value(value: Any, length: bool) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return wording.budget(value) if length else f"{value:g}"
    if isinstance(value, list):
        return "/".join(_value(one, length) for one in value)
    return wording.NOTHING if value is None else str(value)
