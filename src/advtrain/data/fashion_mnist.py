"""Fashion-MNIST: 70 000 pieces of clothing, 28 x 28, grey."""

from pathlib import Path

from advtrain.data.idx import read_idx
from advtrain.data.source import Source

# torchvision lists the md5 of the packed files only, and unpacked ones are what is found.
MD5 = {
    "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
    "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
    "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
    "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
}


def fashion_mnist(raw: Path) -> Source:
    """Read Fashion-MNIST (Xiao et al. 2017) from `raw`, or download it there.

    Args:
        raw: folder that holds, or will hold, `FashionMNIST/raw`.

    Returns:
        The data set, with its official test part of 10 000 images.

    Raises:
        FileNotFoundError: if a file is missing and cannot be downloaded.
        ValueError: if a file is damaged.
    """
    from torchvision.datasets import FashionMNIST

    return read_idx(
        "fashion_mnist",
        raw,
        "FashionMNIST/raw",
        MD5,
        lambda: FashionMNIST(raw, download=True),
        classes=tuple(FashionMNIST.classes),
        citation=(
            "H. Xiao, K. Rasul and R. Vollgraf, Fashion-MNIST: a Novel Image Dataset for "
            "Benchmarking Machine Learning Algorithms, arXiv:1708.07747, 2017"
        ),
    )
