"""The precision of a network's forward passes; its weights are float32 in either."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

Precision = Literal["float32", "bfloat16"]


@contextmanager
def lowered(model: nn.Module, device: torch.device, precision: Precision) -> Iterator[None]:
    """Run every forward pass of the model in a lower precision, and return its logits in float32.

    Mixed precision (Micikevicius et al. 2018), with bfloat16 in place of float16: its exponent is
    that of float32, so that the loss needs no scaling. Convolutions and products of matrices run in
    bfloat16, forward and backward; losses, weights, their gradients and the gradients of images are
    float32.

    The context changes calls of the model itself: a call of one of its layers is not lowered, and a
    copy that is made within stays lowered. The model is left as found, also after an exception.

    Args:
        model: images -> logits (N, K).
        device: of the model.
        precision: with `float32`, nothing at all is done.

    Raises:
        ValueError: for another precision.
    """
    if precision == "float32":
        yield
        return
    if precision != "bfloat16":
        raise ValueError(f"precision {precision!r} is unknown; expected float32 or bfloat16")

    # An interrupted forward pass leaves its context here, to be closed at the end.
    with ExitStack() as running:

        def enter(module: nn.Module, inputs: Any) -> None:
            running.enter_context(torch.autocast(device.type, torch.bfloat16))

        def leave(module: nn.Module, inputs: Any, logits: Tensor | None) -> Tensor | None:
            running.close()
            return None if logits is None else logits.float()

        before = model.register_forward_pre_hook(enter)
        # Called after an exception too, then without logits.
        after = model.register_forward_hook(leave, always_call=True)
        try:
            yield
        finally:
            before.remove()
            after.remove()
