"""CIFAR-10: 60 000 colour images of 10 classes, 32 x 32."""

from pathlib import Path

from advtrain.data.cifar import read_cifar
from advtrain.data.source import Source


def cifar10(raw: Path, *, extra: str | None = None) -> Source:
    """Read CIFAR-10 (Krizhevsky 2009) from `raw`, or download it there.

    Args:
        raw: folder that holds, or will hold, `cifar-10-batches-py`.
        extra: file or folder of extra images for semi-supervised training, relative to `raw` or
            absolute; see `read_extra` for what is understood. It is this text that decides whether
            the data are prepared again: a file that changes under the same name is not noticed,
            so give it another name. The checksum in `dataset.json` says which one was used.

    Returns:
        The data set, with its official test part of 10 000 images.

    Raises:
        FileNotFoundError: if a file is missing and cannot be downloaded.
        ValueError: if a file is damaged, or the extra images are not what is expected.
    """
    from torchvision.datasets import CIFAR10

    return read_cifar("cifar10", raw, CIFAR10, extra)
