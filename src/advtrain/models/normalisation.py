"""Normalisation as the first layer, so that every attack sees images in [0, 1]."""

import math
from typing import Literal

import torch
from torch import Tensor, nn

Normalisation = Literal[
    "none",
    "per_image",
    "cifar10",
    "cifar10_image_std",
    "cifar100",
    "svhn",
    "imagenet",
    "mnist",
    "fashion_mnist",
]
"""The choices of every model: no layer, each image by itself, or one of `TABLES`."""

TABLES: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    # Standard deviation over all pixels of the training set.
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)),
    # Mean over images of each image's own deviation: the other table in circulation (.2023, ...).
    "cifar10_image_std": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "svhn": ((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "mnist": ((0.1307,), (0.3081,)),
    "fashion_mnist": ((0.2860,), (0.3530,)),
}


class Normalize(nn.Module):
    """Shift and scale each channel: (x - mean) / std.

    The table is part of the weights file: weights loaded elsewhere bring what they were trained
    with, and weights of a model without a table do not load into one with it.

    Args:
        mean: per channel, in pixel units [0, 1].
        std: per channel, in pixel units, above 0.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).reshape(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).reshape(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise images (N, C, H, W) in [0, 1]."""
        return (x - self.mean) / self.std


class NormalizeEach(nn.Module):
    """Standardise each image by its own mean and deviation (Madry et al. 2018, cifar10_challenge).

    The deviation is at least 1 / (255 sqrt(C H W)), which is TensorFlow's bound in [0, 1] units.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Standardise images (N, C, H, W) in [0, 1]."""
        variance, mean = torch.var_mean(x, dim=(1, 2, 3), correction=0, keepdim=True)
        # Bounded under the root: its gradient at a constant image would be infinite.
        return (x - mean) / variance.clamp_min(1 / (255**2 * math.prod(x.shape[1:]))).sqrt()


def normalize(normalisation: str, channels: int) -> nn.Module:
    """Make the first layer of a model.

    Args:
        normalisation: `none`, `per_image` or a name in `TABLES`.
        channels: of the images.

    Returns:
        The layer.

    Raises:
        ValueError: if there is no such table, or it is for other channels.
    """
    if normalisation == "none":
        return nn.Identity()
    if normalisation == "per_image":
        return NormalizeEach()
    if normalisation not in TABLES:
        raise ValueError(
            f"normalisation {normalisation!r} is unknown; expected none, per_image, "
            + ", ".join(TABLES)
        )
    mean, std = TABLES[normalisation]
    if len(mean) != channels:
        fitting = [name for name, (table, _) in TABLES.items() if len(table) == channels]
        raise ValueError(
            f"normalisation {normalisation!r} is for {len(mean)} channels, the images have "
            f"{channels}; expected none, per_image" + "".join(f", {name}" for name in fitting)
        )
    return Normalize(mean, std)
