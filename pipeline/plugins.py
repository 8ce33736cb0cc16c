"""Plugins: the function or class that a module's name promises, imported by name."""

from collections.abc import Callable
from importlib import import_module
from typing import Any


def load(kind: str, module: str) -> Callable[..., Any]:
    """Import `advtrain.<kind>.<module>` and return what is named as it.

    Args:
        kind: `data`, `models`, `attacks` or `methods`.
        module: the file's name; `pgd_at` promises a function `pgd_at` or a class `PgdAt`.
    """
    found = import_module(f"advtrain.{kind}.{module}")
    named = getattr(found, module, None)
    if named is None:
        named = getattr(found, "".join(word.capitalize() for word in module.split("_")))
    plugin: Callable[..., Any] = named
    return plugin
