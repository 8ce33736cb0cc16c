"""Nested parameters by their dotted names, as `params.yaml` has them."""

from collections.abc import Mapping
from typing import Any

SECTIONS = {
    "dataset": "datasets",
    "model": "models",
    "method": "methods",
    "recipe": "recipes",
    "attack": "attacks",
    "certificate": "certificates",
}
"""The sections of `params.yaml` by what a node calls an entry of theirs."""

ABSENT = "absent"
"""What stands for a parameter that one of two sides does not have."""


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Turn nested parameters into dotted names."""
    if isinstance(value, Mapping) and value:
        found: dict[str, Any] = {}
        for name, one in value.items():
            found |= flatten(one, f"{prefix}.{name}" if prefix else str(name))
        return found
    if isinstance(value, list) and value and all(isinstance(one, Mapping) for one in value):
        return flatten({str(one.get("name", i)): one for i, one in enumerate(value)}, prefix)
    return {prefix: value}


def place(name: str, params: Mapping[str, Any]) -> str:
    """Turn `method.parameters.beta` into the place in `params.yaml`: `methods.trades.beta`."""
    kind, _, rest = name.partition(".")
    group, _, parameter = rest.partition(".")
    entry = params.get(kind)
    if kind in SECTIONS and group in ("parameters", "split") and isinstance(entry, Mapping):
        return f"{SECTIONS[kind]}.{entry['name']}.{parameter}"
    return name


def changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """List the parameters that differ, by their place in `params.yaml`: from what to what."""
    if before == now:  # as most are
        return {}
    old, new = flatten(before), flatten(now)
    return {
        place(name, now): (old.get(name, ABSENT), new.get(name, ABSENT))
        for name in sorted(old.keys() | new.keys())
        if old.get(name, ABSENT) != new.get(name, ABSENT)
    }
