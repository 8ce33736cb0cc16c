"""What a training method cannot be computed with: one rule for the reader and for the loop."""

from collections.abc import Callable, Mapping
from typing import Any


def unfit(name: str, fact: Callable[[str, Any], Any], recipe: Mapping[str, Any]) -> str:
    """Say which option of a recipe a training method cannot be trained with; empty if none.

    Args:
        name: of the method, for the message.
        fact: what its class says under a name (`second_order`), or the default given.
        recipe: parameters of the training loop; what is not given has its default.
    """
    second_order = fact("second_order", False)
    if recipe.get("precision") == "float16" and (second_order or fact("beside_network", False)):
        return (
            f"precision float16 scales the gradients of the network's passes, and {name} needs "
            "others; choose bfloat16"
        )
    mode = recipe.get("compile_mode", "none")
    if mode != "none" and second_order:
        return (
            f"compile_mode {mode}: compiled passes have no second derivative, which {name} needs; "
            "leave it at none"
        )
    return ""
