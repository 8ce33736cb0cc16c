"""The random state and the determinism of a training run, put back when it ends."""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch

Determinism = Literal["deterministic", "fast"]
"""What a run promises: the same bits each time, or the fastest kernels."""


@contextmanager
def reproducible(
    seed: int, device: torch.device, determinism: Determinism = "deterministic"
) -> Iterator[None]:
    """Seed the global generators and allow deterministic operations only, while the context lasts.

    The library draws from `noise` alone; the global generators are for models that draw by
    themselves (dropout, stochastic depth).

    Args:
        seed: of every global generator.
        device: whose generator is seeded beside the CPU's.
        determinism: `fast` seeds too, but lets cuDNN time its kernels and torch add in any order on
            CUDA: two runs then differ by rounding. On a CPU both are the same.
    """
    found = state(device)
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    benchmark = torch.backends.cudnn.benchmark
    # cuBLAS reads this at its first call; without it, it has no deterministic mode.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    try:
        torch.use_deterministic_algorithms(determinism == "deterministic")
        # Filling new memory would only show reads of unset values, and costs a pass each time.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        torch.backends.cudnn.benchmark = determinism == "fast"
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.manual_seed(seed)
        yield
    finally:
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]
        torch.backends.cudnn.benchmark = benchmark
        restore(found, device)


def state(device: torch.device) -> dict[str, Any]:
    """Return the state of every global generator, as tensors, numbers and lists.

    Args:
        device: whose generator is read beside the CPU's.
    """
    version, words, spare = random.getstate()
    name, keys, *rest = np.random.get_state()
    return {
        "python": [version, list(words), spare],
        "numpy": [name, np.asarray(keys).tolist(), *rest],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


def restore(found: dict[str, Any], device: torch.device) -> None:
    """Put back what `state` returned.

    Args:
        found: the states.
        device: that they were read on.
    """
    version, words, spare = found["python"]
    random.setstate((version, tuple(words), spare))
    name, keys, *rest = found["numpy"]
    np.random.set_state((name, np.asarray(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(found["torch"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(found["cuda"], device)
