"""The cost model: how many passes a training takes, told before it runs."""

import math
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from advtrain.methods.method import Method
from advtrain.params.signatures import camel_case, signature
from advtrain.training.extra_data import shares
from advtrain.training.updates import EVALUATIONS


def training_passes(params: Mapping[str, Any]) -> float | None:
    """Count the forward-equivalents of a training, per training image.

    A forward pass is the unit: a gradient of the input costs one more, a gradient of the weights
    another. A method whose cost changes while it trains (a curriculum, early-stopped attacks) is
    taken at what its first step costs. The validation is not counted.

    Args:
        params: its resolved parameters, with `method` and `recipe`, as a node or a manifest has
            them.

    Returns:
        The passes; None if the method is not one of today's (an old result's).
    """
    method = _method(params["method"])
    if method is None:
        return None
    defaults = {name: one.default for name, one in signature("training", "loop", "train").items()}
    recipe: dict[str, Any] = defaults | params["recipe"]["parameters"]
    epochs = math.ceil(recipe["epochs"] / method.replays)
    # AWP evaluates the loss twice, once its warm-up is over.
    plain = min(epochs, recipe["awp_warmup"])
    evaluations = plain + EVALUATIONS[recipe["update"]] * (epochs - plain)
    cost = method.cost()
    steps: float = sum(cost.crafting) * epochs
    steps += (cost.loss.forward + 2 * cost.loss.backward) * evaluations
    labelled, extra = shares(recipe["batch_size"], recipe["extra_fraction"])
    rows: float = method.views * method.replays * (labelled + extra) / labelled
    return rows * steps


def forward_flops(entry: Mapping[str, Any], channels: int, size: int, classes: int) -> float | None:
    """Count the operations of a forward pass per image: a multiplication and an addition are two.

    Convolutions and products of matrices count. Nothing is computed: the weights are shapes.

    Args:
        entry: the network's resolved `module` and `parameters`.
        channels: of an image.
        size: its height and width in pixels.
        classes: how many.

    Returns:
        The operations; None for a network of one's own, which is not imported to count them.
    """
    module = entry["module"]
    if module == "external":
        return None
    build = getattr(import_module(f"advtrain.models.{module}"), module)
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        model = build(channels=channels, size=size, classes=classes, **entry["parameters"])
        model.eval()(torch.empty(1, channels, size, size))
    return float(counter.get_total_flops())


def _method(entry: Mapping[str, Any]) -> Method | None:
    module = entry["module"]
    try:
        named = getattr(import_module(f"advtrain.methods.{module}"), camel_case(module))
        made: Method = named(**entry["parameters"])
    except (ImportError, AttributeError, TypeError):
        return None
    return made
