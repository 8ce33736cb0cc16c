"""The precision of a network's forward and backward passes; its weights are float32 in each."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn

Precision = Literal["float32", "tf32", "bfloat16", "float16"]

LOSS_SCALE = 1024.0
"""Of float16. A gradient of a mean over 1000 images is of the size of 1e-3 at the logits and falls
under float16's least number, 6e-8, where the network is 99.99 % sure; its largest, 65504, is 64
after scaling, which no gradient of a training that goes on has reached."""


@contextmanager
def computing(
    precision: Precision, model: nn.Module | None = None, device: torch.device | None = None
) -> Iterator[None]:
    """Compute in a precision; everything is put back, also after an exception.

    `float32` switches TF32 off, which torch has on for convolutions and which keeps 10 bits of a
    product's factors; `tf32` switches it on, for matrix products too. The others are those of one
    model, see `lowered`.

    Args:
        precision: of products and convolutions.
        model: what bfloat16 and float16 are for.
        device: of the model.

    Raises:
        ValueError: for another precision, or a lower one without a model.
    """
    lower = precision in ("bfloat16", "float16")
    if lower and (model is None or device is None):
        raise ValueError(f"{precision} is the precision of a model, got none")
    if not lower and precision not in ("float32", "tf32"):
        raise ValueError(
            f"precision {precision!r} is unknown; expected float32, tf32, bfloat16 or float16"
        )
    # torch's stubs do not know the first yet.
    switches: tuple[Any, ...] = (torch.backends.cudnn.conv, torch.backends.cuda.matmul)  # type: ignore[attr-defined]
    before = [switch.fp32_precision for switch in switches]
    try:
        for switch in switches:
            switch.fp32_precision = "tf32" if precision == "tf32" else "ieee"
        with lowered(model, device, precision) if model and device else nullcontext():
            yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.fp32_precision = value


@contextmanager
def lowered(model: nn.Module, device: torch.device, precision: Precision) -> Iterator[None]:
    """Run every forward pass of the model in a lower precision, and return its logits in float32.

    Mixed precision (Micikevicius et al. 2018): convolutions and products of matrices run in 16
    bits, forward and backward; losses, weights, their gradients and the gradients of images are
    float32. The exponent of bfloat16 is that of float32. That of float16 is not: inside the network
    gradients are `LOSS_SCALE` times as large as outside (section 3.2 there, with a constant
    factor), and divided by it, which is exact, where they leave it for an image or a weight.

    The context changes calls of the model itself: a call of one of its layers is not lowered, and a
    copy that is made within stays lowered. The model is left as found, also after an exception.

    Args:
        model: images -> logits (N, K).
        device: of the model.
        precision: with `float32` and `tf32`, nothing at all is done.
    """
    if precision in ("float32", "tf32"):
        yield
        return
    kind = torch.bfloat16 if precision == "bfloat16" else torch.float16
    scale = LOSS_SCALE if precision == "float16" else 1.0

    # An interrupted forward pass leaves its context here, to be closed at the end.
    with ExitStack() as running:

        def enter(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            running.enter_context(torch.autocast(device.type, kind))
            return inputs if scale == 1 else (scaled(inputs[0], 1 / scale), *inputs[1:])

        def leave(module: nn.Module, inputs: Any, logits: Tensor | None) -> Tensor | None:
            running.close()
            if logits is None:
                return None
            return logits.float() if scale == 1 else scaled(logits.float(), scale)

        handles = [
            model.register_forward_pre_hook(enter),
            # Called after an exception too, then without logits.
            model.register_forward_hook(leave, always_call=True),
        ]
        if scale != 1:
            handles += [
                weight.register_hook(lambda gradient: gradient / scale)  # type: ignore[no-untyped-call]
                for weight in model.parameters()
                if weight.requires_grad
            ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def scaled(x: Tensor, factor: float) -> Tensor:
    """Return the values as they are; the gradient that comes back through them is multiplied.

    Args:
        x: of any shape.
        factor: of the gradient; derivatives of the gradient are multiplied with it.
    """
    found: Tensor = _Scaled.apply(x, factor)
    return found


class _Scaled(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Tensor, factor: float) -> Tensor:
        context.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * context.factor, None
