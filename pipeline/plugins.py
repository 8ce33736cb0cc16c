"""Plugins: the function or class that a module's name promises, imported by name."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from torch import nn


def load(kind: str, module: str) -> Callable[..., Any]:
    """Import `advtrain.<kind>.<module>` and return what is named as it.

    Args:
        kind: `data`, `models`, `attacks`, `methods` or `certificates`.
        module: the file's name; `pgd_at` promises a function `pgd_at` or a class `PgdAt`.
    """
    found = import_module(f"advtrain.{kind}.{module}")
    named = getattr(found, module, None)
    if named is None:
        named = getattr(found, "".join(word.capitalize() for word in module.split("_")))
    plugin: Callable[..., Any] = named
    return plugin


def build_model(entry: Mapping[str, Any], facts: Mapping[str, Any]) -> nn.Module:
    """Build a model, with random weights, for the images of a data set.

    Args:
        entry: its module and parameters.
        facts: what `dataset.json` says of the prepared data.
    """
    model: nn.Module = load("models", entry["module"])(
        channels=facts["channels"],
        size=facts["size"],
        classes=len(facts["classes"]),
        **entry["parameters"],
    )
    return model
