"""What MNIST and Fashion-MNIST share: four IDX files, fetched by torchvision."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from advtrain.data.published_files import found_or_downloaded
from advtrain.data.source import Images, Part, Source, part_of

IMAGES, LABELS = 0x803, 0x801
"""Magic numbers of the files: unsigned bytes in three dimensions and in one."""


def read_idx(
    name: str,
    raw: Path,
    folder: str,
    md5: Mapping[str, str],
    download: Callable[[], object],
    *,
    classes: tuple[str, ...],
    citation: str,
) -> Source:
    """Read a data set in MNIST's format.

    Args:
        name: of the data set.
        raw: folder of raw data.
        folder: where torchvision puts the files, relative to `raw`.
        md5: file name -> md5 of the unpacked file.
        download: puts the files there.
        classes: class names.
        citation: whom to cite.

    Returns:
        The data set, with its official test part.

    Raises:
        ValueError: if a file is not in the format.
    """
    checksums = found_or_downloaded(
        name, raw, {f"{folder}/{file}": digest for file, digest in md5.items()}, download
    )
    train, test = (_part(raw / folder, stem) for stem in ("train", "t10k"))
    return Source(
        name=name,
        classes=classes,
        channels=1,
        size=28,
        train=train,
        test=test,
        citation=citation,
        checksums=checksums,
    )


def _part(folder: Path, stem: str) -> Part:
    images = _array(folder / f"{stem}-images-idx3-ubyte", IMAGES)
    return part_of(images[:, None], _array(folder / f"{stem}-labels-idx1-ubyte", LABELS))


def _array(path: Path, magic: int) -> Images:
    content = path.read_bytes()
    got = int.from_bytes(content[:4], "big")
    if got != magic:
        raise ValueError(f"{path}: magic number {got:#x}, expected {magic:#x}; not the IDX file")
    dimensions = magic & 0xFF
    shape = np.frombuffer(content, ">u4", dimensions, 4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)
