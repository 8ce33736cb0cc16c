"""SVHN: 99 289 house-number digits in colour, 32 x 32 (without the extra training set)."""

from pathlib import Path
from typing import Any

import numpy as np

from advtrain.data.published_files import found_or_downloaded
from advtrain.data.source import Part, Source, part_of


def svhn(raw: Path) -> Source:
    """Read SVHN (Netzer et al. 2011) from `raw`, or download it there.

    Args:
        raw: folder that holds, or will hold, `train_32x32.mat` and `test_32x32.mat`.

    Returns:
        The data set, with its official test part of 26 032 images.

    Raises:
        FileNotFoundError: if a file is missing and cannot be downloaded.
        ValueError: if a file is damaged.
    """
    from torchvision.datasets import SVHN

    parts = ("train", "test")
    checksums = found_or_downloaded(
        "svhn",
        raw,
        {file: md5 for _, file, md5 in (SVHN.split_list[part] for part in parts)},
        lambda: [SVHN(raw, part, download=True) for part in parts],
    )
    train, test = (_part(SVHN(raw, part)) for part in parts)
    return Source(
        name="svhn",
        classes=tuple(str(digit) for digit in range(10)),
        channels=3,
        size=32,
        train=train,
        test=test,
        citation=(
            "Y. Netzer, T. Wang, A. Coates, A. Bissacco, B. Wu and A. Y. Ng, Reading Digits in "
            "Natural Images with Unsupervised Feature Learning, NIPS Workshop on Deep Learning "
            "and Unsupervised Feature Learning, 2011"
        ),
        checksums=checksums,
    )


def _part(part: Any) -> Part:
    return part_of(np.asarray(part.data), part.labels)
