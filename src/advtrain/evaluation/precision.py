"""The precision that an evaluation computes in, and TF32, which torch otherwise switches on."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Literal

import torch
from torch import nn

from advtrain.training.precision import lowered

AttackPrecision = Literal["float32", "tf32", "bfloat16"]


@contextmanager
def computing(
    precision: AttackPrecision, model: nn.Module | None = None, device: torch.device | None = None
) -> Iterator[None]:
    """Compute in a precision; everything is put back, also after an exception.

    `float32` switches TF32 off, which torch has on for convolutions and which keeps 10 bits of a
    product's factors; `tf32` switches it on, for matrix products too. `bfloat16` is autocast.

    Args:
        precision: of products and convolutions on CUDA; for bfloat16, of the model anywhere.
        model: what bfloat16 is for.
        device: of the model.

    Raises:
        ValueError: for bfloat16 without a model.
    """
    if precision == "bfloat16" and (model is None or device is None):
        raise ValueError("bfloat16 is the precision of a model, got none")
    # torch's stubs do not know the first yet.
    switches: tuple[Any, ...] = (torch.backends.cudnn.conv, torch.backends.cuda.matmul)  # type: ignore[attr-defined]
    before = [switch.fp32_precision for switch in switches]
    lower = (
        lowered(model, device, "bfloat16")
        if precision == "bfloat16" and model is not None and device is not None
        else nullcontext()
    )
    try:
        for switch in switches:
            switch.fp32_precision = "tf32" if precision == "tf32" else "ieee"
        with lower:
            yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.fp32_precision = value
