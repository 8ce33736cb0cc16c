"""CIFAR-10: 60 000 colour images of 10 classes, 32 x 32."""

from pathlib import Path

from advtrain.data.cifar import read_cifar
from advtrain.data.source import Source


def cifar10(raw: Path) -> Source:
    """Read CIFAR-10 (Krizhevsky 2009) from `raw`, or download it there.

    Args:
        raw: folder that holds, or will hold, `cifar-10-batches-py`.

    Returns:
        The data set, with its official test part of 10 000 images.

    Raises:
        FileNotFoundError: if a file is missing and cannot be downloaded.
        ValueError: if a file is damaged.
    """
    from torchvision.datasets import CIFAR10

    return read_cifar("cifar10", raw, CIFAR10)
