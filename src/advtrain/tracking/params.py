"""Resolved parameters as the flat columns that people filter runs by."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from advtrain.results.names import epsilon_text


def flatten(params: Mapping[str, Any]) -> dict[str, str]:
    """Flatten a manifest's parameters.

    Args:
        params: nested; an entry with `name`, `module` and `parameters` is a plugin or a recipe,
            `threat` is a norm and a budget.

    Returns:
        `method: trades`, `method.beta: 6.0`, `norm: linf`, `epsilon: 8/255`, `seed: 0`: text as
        it is, the budget as it is spoken of, everything else as JSON. What is null at the top (the
        threat of a natural cell) is left out.
    """
    return {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in _columns("", params)
    }


def _columns(prefix: str, params: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in params.items():
        column = f"{prefix}{name}"
        if not isinstance(value, Mapping):
            if prefix or value is not None:
                yield column, value
        elif column == "threat":
            yield "norm", value["norm"]
            if value["epsilon"] is not None:
                yield "epsilon", epsilon_text(value["epsilon"])
        elif "name" in value and isinstance(value.get("parameters"), Mapping):
            yield column, value["name"]
            if value.get("module", value["name"]) != value["name"]:
                yield f"{column}.module", value["module"]
            yield from _columns(f"{column}.", value["parameters"])
        else:
            yield from _columns(f"{column}.", value)
