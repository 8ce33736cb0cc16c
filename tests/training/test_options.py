"""No dead option: every parameter of every method and of the recipe moves the key and the numbers.

The parameters are read from the signatures, so that a new one is walked as soon as it exists.
"""

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from advtrain.methods.method import Method
from advtrain.params import signatures
from advtrain.params.quantities import step_size
from advtrain.params.signatures import Parameter, Value
from advtrain.threat import ThreatModel
from advtrain.training.extra_data import EXTRA_ORDER
from advtrain.training.loop import Trained, TrainingData, train
from tests.graph.conftest import MakeGraph, make_graph
from tests.training.tiny import network, split_of, tiny_data

__all__ = ["make_graph"]

RECIPE = "recipe"
EPSILON = 0.2
EPOCHS = 6

WITH: dict[tuple[str, str], dict[str, Any]] = {
    (RECIPE, "milestones"): {"schedule": "piecewise"},
    (RECIPE, "factor"): {"schedule": "piecewise"},
    (RECIPE, "peak_share"): {"schedule": "cyclic"},
    (RECIPE, "awp_gamma"): {"update": "awp"},
    (RECIPE, "awp_warmup"): {"update": "awp"},
    (RECIPE, "ema_decay"): {"averaging": "ema"},
    (RECIPE, "swa_start"): {"averaging": "swa"},
    (RECIPE, "policy_start"): {"cutout": 2},
    ("fgsm_rs", "stop_steps"): {"early_stop": True, "stop_drop": 1.0},
    ("fgsm_rs", "stop_drop"): {"early_stop": True, "step_size": "2*epsilon"},
    ("cat", "patience"): {"least_train_accuracy": 0.0},
    ("cat", "least_train_accuracy"): {"patience": 1},
    ("cat", ""): {"least_train_accuracy": 0.0, "patience": 1},
}
"""What an option (an owner's others, where it is named "") needs beside it to act."""

OTHER: dict[tuple[str, str], list[Value]] = {
    ("fgsm_rs", "stop_drop"): [1.0],
    ("cat", "steps"): [1],
    ("cat", "patience"): [1],
    ("cat", "least_train_accuracy"): [0.0],
    ("trades", "start_deviation"): [0.1],
    (RECIPE, "precision"): ["bfloat16", "float16"],
}
"""Values to change an option to, where the rule of `others` does not fit."""

UNSEEN = ("determinism", "halve_on_out_of_memory", "channels_last", "compile_mode", "micro_batch")
"""Options of the recipe that move no more than a rounding, and on this network not even that; what
they do is in test_engine.py and test_micro_batches.py."""

OPTIONS = [
    *(
        (RECIPE, parameter)
        for parameter in signatures.signature("training", "loop", "train").values()
    ),
    *(
        (module, parameter)
        for module in signatures.modules("methods")
        if signatures.is_trained(module)  # `given` is walked in tests/graph/test_given.py
        for parameter in signatures.signature("methods", module).values()
    ),
]


def others(owner: str, parameter: Parameter) -> list[Value]:
    """Other values than the default: all of them where they can be counted."""
    if found := OTHER.get((owner, parameter.name)):
        return found
    default = parameter.default
    if parameter.quantity == "bool":
        return [not default]
    if parameter.quantity == "Literal":
        return [choice for choice in parameter.choices if choice != default]
    if parameter.quantity in ("Count", "Whole"):
        assert isinstance(default, int)
        return [default + 1]
    if parameter.quantity == "StepSize":
        return ["0.37*epsilon"]
    if parameter.quantity == "Shares":
        return [(0.2,)]
    if parameter.quantity == "Share":
        return [0.5 if default != 0.5 else 0.2]
    assert isinstance(default, float), f"{owner}.{parameter.name}: give a value in OTHER"
    return [2 * default or 0.3]


def named(option: tuple[str, Parameter]) -> str:
    return f"{option[0]}-{option[1].name}"


def trained(owner: str, workspace: Path, options: dict[str, Any]) -> Trained:
    """Train the tiny network with PGD-AT and a recipe, or with a method and the plain recipe."""
    recipe = {"epochs": EPOCHS, "batch_size": 8, "learning_rate": 0.05, "validation_steps": 2}
    module = "pgd_at"
    own: dict[str, Any] = {"steps": 2}
    if owner == RECIPE:
        recipe |= options
    else:
        known = signatures.signature("methods", owner)
        module, own = owner, dict(options)
        for name, value in own.items():
            if known[name].quantity == "StepSize":
                own[name] = step_size(value, EPSILON)
    made = getattr(
        importlib.import_module(f"advtrain.methods.{module}"), signatures.camel_case(module)
    )
    method: Method = made(**own)
    data = TrainingData(*tiny_data()[:2], extra=split_of(10, seed=5))
    threat = ThreatModel("linf", EPSILON) if method.needs_threat else None
    # Bounds are known for plain layers only, which a dropout is not.
    model = nn.Sequential(*(one for one in network() if not isinstance(one, nn.Dropout)))
    return train(
        *(model, method, threat, data, 0, workspace, lambda row: None, torch.device("cpu")),
        **recipe,
    )


def differ(one: Trained, other: Trained) -> bool:
    return one.history != other.history or any(
        not torch.equal(one.last[name], other.last[name]) for name in one.last
    )


@pytest.mark.parametrize("option", [one for one in OPTIONS if one[1].name not in UNSEEN], ids=named)
def test_an_option_moves_what_is_trained(option: tuple[str, Parameter], tmp_path: Path) -> None:
    owner, parameter = option
    beside = WITH.get((owner, parameter.name), WITH.get((owner, ""), {}))
    base = trained(owner, tmp_path / "base", beside)
    for number, value in enumerate(others(owner, parameter)):
        changed = trained(owner, tmp_path / str(number), {**beside, parameter.name: value})
        assert differ(changed, base), f"{parameter.name}: {value} does what the default does"


@pytest.mark.parametrize("option", OPTIONS, ids=named)
def test_an_option_moves_the_key(option: tuple[str, Parameter], make_graph: MakeGraph) -> None:
    owner, parameter = option

    def study(given: dict[str, Any], **options: Value) -> None:
        given["methods"] = {"one": {"module": "pgd_at" if owner == RECIPE else owner}}
        given["recipes"]["short"] = {}
        given["studies"]["tiny"]["methods"] = ["one"]
        entry = given["recipes"]["short"] if owner == RECIPE else given["methods"]["one"]
        entry |= {name: list(v) if isinstance(v, tuple) else v for name, v in options.items()}

    base = {node.key for node in make_graph(study).stage("train")}
    for value in others(owner, parameter):
        changed = make_graph(lambda given, v=value: study(given, **{parameter.name: v}))
        assert base.isdisjoint(node.key for node in changed.stage("train"))


def test_the_extra_order_is_a_stream_of_its_own() -> None:
    from advtrain.training import loop

    assert EXTRA_ORDER not in (loop.ORDER, loop.AUGMENT, loop.CRAFT, loop.VALIDATE, loop.CHECK)
