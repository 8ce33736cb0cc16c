"""The cost model: how many passes a training takes, told before it runs."""

import math
from collections.abc import Mapping
from importlib import import_module
from typing import Any

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


def _method(entry: Mapping[str, Any]) -> Method | None:
    module = entry["module"]
    try:
        named = getattr(import_module(f"advtrain.methods.{module}"), camel_case(module))
        made: Method = named(**entry["parameters"])
    except (ImportError, AttributeError, TypeError):
        return None
    return made
