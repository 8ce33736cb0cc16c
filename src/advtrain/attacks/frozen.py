"""The model while an attack is crafted on it: frozen, in a chosen mode, left as it was found."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Literal

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

Mode = Literal["eval", "train"]
"""How BatchNorm normalises while crafting: running averages (eval) or the batch's own (train)."""


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Weights without gradients: a backward pass then costs the input's gradient alone."""
    live = [weight for weight in model.parameters() if weight.requires_grad]
    try:
        for weight in live:
            weight.requires_grad_(False)
        yield
    finally:
        for weight in live:
            weight.requires_grad_(True)


@contextmanager
def averages_kept(model: nn.Module) -> Iterator[None]:
    """BatchNorm in train mode normalises by the batch as ever, but stores nothing."""
    tracking = [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.track_running_stats
    ]
    try:
        for module in tracking:
            module.track_running_stats = False
        yield
    finally:
        for module in tracking:
            module.track_running_stats = True


@contextmanager
def crafting(model: nn.Module, mode: Mode = "eval") -> Iterator[None]:
    """The model frozen and in the given mode; everything is put back, also after an exception.

    The mode changes what a method learns and is part of its definition: TRADES crafts in eval mode,
    Madry et al. and Rice et al. in train mode. Train mode uses the statistics of the adversarial
    batch.

    Departs from the official code: crafting in train mode never moves the running averages.

    Args:
        model: any module.
        mode: of all its layers while the context lasts.

    Raises:
        ValueError: for another mode.
    """
    if mode not in ("eval", "train"):
        raise ValueError(f"the mode while crafting is 'eval' or 'train', got {mode!r}")
    modes = [(module, module.training) for module in model.modules()]
    # In eval mode, BatchNorm without tracking would normalise by the batch.
    keep = averages_kept(model) if mode == "train" else nullcontext()
    with frozen(model), keep:
        try:
            model.train(mode == "train")
            yield
        finally:
            for layer, training in modes:
                layer.training = training
