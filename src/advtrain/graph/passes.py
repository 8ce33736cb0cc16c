"""The passes of an evaluation, told before it runs: what its time grows by."""

from collections.abc import Mapping
from typing import Any

CLASSES = 10
"""How many classes an attack that asks for all of them is taken to meet."""


def evaluation_passes(module: str, parameters: Mapping[str, Any], norm: str) -> float:
    """Count the passes of an example that withstands an evaluation to its end.

    Forward and backward passes count alike, and the one of the clean image, which all have, does
    not. What is not known here by its name is taken to spend them as PGD does.

    Args:
        module: of the attack or certificate.
        parameters: of it, the defaults filled in.
        norm: of the budget.

    Returns:
        The number, 1 or more.
    """
    if module == "autoattack":
        stages = _stages(parameters["version"], norm)
        return sum(evaluation_passes(stage, own, norm) for stage, own in stages)
    own = parameters
    tries = float(own.get("restarts") or 1) * float(own.get("targets") or 1)
    steps = float(own.get("steps") or 1)
    if module == "fab":
        # Untargeted, each step takes the gradients of all classes but one.
        return tries * steps * (3 if own["targets"] else 1 + CLASSES)
    if module == "deepfool":
        return steps * (1 + float(own["candidates"]))
    if module == "spatial":
        return float(own["tries"] or own["angles"] * own["shifts"] ** 2)
    for name in ("queries", "draws", "samples"):
        if name in own:
            return tries * float(own[name])
    if module in ("corruption", "probe", "ibp", "crown"):
        return 1.0
    repeated = float(own.get("search_steps") or 1) * float(own.get("eot") or 1)
    return tries * repeated * (2 * steps + 1)


def _stages(version: str, norm: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the stages of AutoAttack, as far as they decide its passes."""
    ascent: dict[str, Any] = {"steps": 100}
    apgd, square = ("apgd", ascent), ("square", {"queries": 5000})
    several = ("apgd", ascent | {"restarts": 5})
    towards = ("apgd", ascent | {"targets": 9})
    fab = ("fab", ascent | {"targets": 9})
    if version == "rand":
        return [("apgd", ascent | {"eot": 20})] * 2
    if version == "plus":
        untargeted = ("fab", ascent | {"targets": 0, "restarts": 5})
        return [several, several, untargeted, square, towards, fab]
    if norm == "l1":
        return [several, ("apgd", ascent | {"targets": 5}), fab, square]
    return [apgd, towards, fab, square]
