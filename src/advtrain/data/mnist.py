"""MNIST: 70 000 handwritten digits, 28 x 28, grey."""

from pathlib import Path

from advtrain.data.idx import read_idx
from advtrain.data.source import Source

# torchvision lists the md5 of the packed files only, and unpacked ones are what is found.
MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}


def mnist(raw: Path) -> Source:
    """Read MNIST (LeCun et al. 1998) from `raw`, or download it there.

    Args:
        raw: folder that holds, or will hold, `MNIST/raw`.

    Returns:
        The data set, with its official test part of 10 000 images.

    Raises:
        FileNotFoundError: if a file is missing and cannot be downloaded.
        ValueError: if a file is damaged.
    """
    from torchvision.datasets import MNIST

    return read_idx(
        "mnist",
        raw,
        "MNIST/raw",
        MD5,
        lambda: MNIST(raw, download=True),
        classes=tuple(str(digit) for digit in range(10)),
        citation=(
            "Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, Gradient-Based Learning Applied to "
            "Document Recognition, Proceedings of the IEEE 86(11), 1998"
        ),
    )
