"""What CIFAR-10 and CIFAR-100 share: the layout of the files, read through torchvision."""

from pathlib import Path
from typing import Any

import numpy as np

from advtrain.data.extra_files import read_extra
from advtrain.data.published_files import found_or_downloaded
from advtrain.data.source import Part, Source, part_of

CITATION = (
    "A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, "
    "University of Toronto, 2009"
)


def read_cifar(name: str, raw: Path, dataset: Any, extra: str | None) -> Source:
    """Read a CIFAR data set.

    Args:
        name: of the data set.
        raw: folder of raw data.
        dataset: torchvision's class, which knows the files, their md5 and where they come from.
        extra: file or folder of extra images, relative to `raw` or absolute.

    Returns:
        The data set, with its official test part.
    """
    listed = [*dataset.train_list, *dataset.test_list]
    listed.append((dataset.meta["filename"], dataset.meta["md5"]))
    checksums = found_or_downloaded(
        name,
        raw,
        {f"{dataset.base_folder}/{file}": md5 for file, md5 in listed},
        lambda: dataset(raw, download=True),
    )
    train, test = dataset(raw, train=True), dataset(raw, train=False)
    classes, part = tuple(train.classes), None
    if extra is not None:
        part, found = read_extra(name, raw, extra, classes, size=32)
        checksums |= found
    return Source(
        name=name,
        classes=classes,
        channels=3,
        size=32,
        train=_part(train),
        test=_part(test),
        citation=CITATION,
        checksums=checksums,
        extra=part,
    )


def _part(part: Any) -> Part:
    return part_of(np.moveaxis(part.data, 3, 1), part.targets)
