"""The network compiled for the shapes that a training meets."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

CompileMode = Literal["none", "default", "reduce-overhead", "max-autotune"]
"""That of `torch.compile`; `reduce-overhead` and `max-autotune` replay CUDA graphs on a GPU."""

VARIANTS = 32
"""Compiled versions that one network may have: each combination of a mode (train, eval), live or
frozen weights, gradients or none, and the size of a minibatch (full, the epoch's last) is one."""


@contextmanager
def compiled(model: nn.Module, mode: CompileMode) -> Iterator[None]:
    """Run every forward pass of the model, and its backward pass, as compiled kernels.

    The network alone is compiled, once for each way it is called: frozen in the steps of an attack,
    so that no gradient of the weights is computed there, and live in the weight step. Fused kernels
    round otherwise than eager ones. The context changes calls of the model itself; names of weights
    and the type stay, and the model is left as found, also after an exception.

    Args:
        model: images -> logits (N, K).
        mode: `none` does nothing.

    Raises:
        RuntimeError: from torch, at the first call, where there is no compiler.
    """
    if mode == "none":
        yield
        return
    forward = torch.compile(model.forward, mode=mode, dynamic=False)

    def call(x: Tensor, *others: Any) -> Any:
        # Graphs that are replayed reuse their outputs' memory; what the last pass returned is read
        # after this one (both logits of TRADES), so the caller gets a copy.
        found = forward(x, *others)
        return found.clone() if x.is_cuda and mode != "default" else found

    config = torch._dynamo.config
    before = config.recompile_limit
    config.recompile_limit = max(before, VARIANTS)
    model.forward = call
    try:
        yield
    finally:
        del model.forward
        config.recompile_limit = before
