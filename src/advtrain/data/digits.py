"""Handwritten digits, 8 x 8, bundled with scikit-learn: the data that needs no network."""

from pathlib import Path

import numpy as np

from advtrain.data.source import Source, part_of


def digits(raw: Path) -> Source:
    """Read the 1797 digits of scikit-learn; there is no official test part.

    Grey levels 0 to 16 become round(level * 255 / 16), exactly.

    Args:
        raw: not used: the data is part of the package.

    Returns:
        The data set.
    """
    from sklearn.datasets import load_digits

    bundled = load_digits()
    levels = bundled.images.astype(np.int64)
    pixels = (levels * 255 + 8) // 16  # round(level * 255 / 16) without floats, half up
    return Source(
        name="digits",
        classes=tuple(str(digit) for digit in range(10)),
        channels=1,
        size=8,
        train=part_of(pixels.astype(np.uint8)[:, None], bundled.target),
        test=None,
        citation=(
            "E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, "
            "UCI Machine Learning Repository, 1998, doi:10.24432/C50P49"
        ),
    )
