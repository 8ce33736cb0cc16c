"""What a data set is before it is prepared: its labels at hand, its images as a stream."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.int64]
Images = npt.NDArray[np.uint8]
Positions = npt.NDArray[np.int64]

NO_LABEL = -1
"""What stands for the label of an example of which none is known."""

CHUNK = 256
"""Images in one piece of the stream; bounds the memory that `prepare` needs."""


@dataclass(frozen=True)
class Part:
    """One part of a data set (training, test or extra).

    Args:
        labels: (N,) class of every example, known before any image is read; of extra data it may
            be `NO_LABEL`, for all examples or for none.
        read: positions (n,) in [0, N) -> the images there, in that order, as pieces of at most
            `CHUNK` images, each (m, C, H, W) uint8.
    """

    labels: Labels
    read: Callable[[Positions], Iterator[Images]]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Source:
    """A data set as its authors published it.

    Args:
        name: short name, as the module that reads it.
        classes: class names; a label is a position in this list.
        channels: 1 (grey) or 3 (RGB).
        size: height and width of an image in pixels.
        train: the official training part, or everything there is if `test` is None.
        test: the official test part; None if the authors published none.
        citation: whom a paper that uses the data cites.
        checksums: file -> checksum, for the record; empty for data that a package carries.
        extra: data beside those of the authors, for semi-supervised training: found elsewhere or
            generated, with (pseudo-)labels or without.
    """

    name: str
    classes: tuple[str, ...]
    channels: int
    size: int
    train: Part
    test: Part | None
    citation: str
    checksums: Mapping[str, str] = field(default_factory=dict)
    extra: Part | None = None


def part_of(images: Images, labels: npt.ArrayLike) -> Part:
    """Make a part of images that are in memory.

    Args:
        images: (N, C, H, W) uint8.
        labels: (N,) whole numbers.

    Returns:
        The part.

    Raises:
        ValueError: if there are not as many labels as images.
    """
    known = np.asarray(labels, dtype=np.int64)
    if known.shape != images.shape[:1]:
        raise ValueError(f"got {len(images)} images and labels of shape {known.shape}")

    def read(positions: Positions) -> Iterator[Images]:
        for start in range(0, len(positions), CHUNK):
            yield images[positions[start : start + CHUNK]]

    return Part(known, read)
