"""Image files in folders: which are images, what identifies them, how they are read."""

import hashlib
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from advtrain.data.source import CHUNK, Images, Labels, Part, Positions

Checksums = npt.NDArray[np.uint32]

SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})
THREADS = 4
"""Files read at a time; Pillow and zlib work outside the interpreter lock."""


@dataclass(frozen=True)
class ListedPart(Part):
    """A part that `prepare` writes as a list of files, to be decoded whenever they are used.

    What is prepared as pixels all the same (a test split) is read as that of any other part.

    Args:
        files: N paths relative to the folder of raw data, with `/`.
        sizes: (N,) bytes of each file.
        checksums: positions (n,) in [0, N) -> (n,), what `checksum` says of the files there.
        crops: what `data.stream` has to know besides the size of an image: `shorter_side` in
            pixels, and `least_area`, the smallest share of a photograph that a random crop covers.
    """

    files: Sequence[str]
    sizes: npt.NDArray[np.int64]
    checksums: Callable[[Positions], Checksums]
    crops: Mapping[str, float]


def folders(path: Path) -> tuple[str, ...]:
    """Return the names of the folders in a folder, sorted."""
    return tuple(sorted(entry.name for entry in path.iterdir() if entry.is_dir()))


def images_in(name: str, path: Path) -> list[Path]:
    """List the images that lie in a folder itself, sorted by name.

    Args:
        name: of the data set, for messages.
        path: the folder.

    Raises:
        ValueError: if there is none.
    """
    inside = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
    if not inside:
        raise ValueError(
            f"{name}: {path} holds no images ({', '.join(sorted(SUFFIXES))}); "
            "unpack the data set again, or delete the folder"
        )
    return inside


def listing(root: Path, files: Sequence[Path]) -> str:
    """Digest the names and sizes of files, for the record; their content is not read."""
    digest = hashlib.sha256()
    for file in files:
        line = f"{file.relative_to(root).as_posix()}\t{file.stat().st_size}\n"
        digest.update(line.encode())
    return f"sha256 of names and sizes:{digest.hexdigest()}"


def checksum(content: bytes) -> int:
    """Return the CRC32 of a file's content, in [0, 2^32): it tells a change, not an attack."""
    return zlib.crc32(content)


def checksums(files: Sequence[Path]) -> Checksums:
    """Read N files, each once; only those in hand are in memory.

    Returns:
        (N,), the `checksum` of each.
    """
    found = np.empty(len(files), np.uint32)
    with ThreadPoolExecutor(THREADS) as pool:
        # Piece by piece: the pool would else keep a task for each of a million files.
        for start in range(0, len(files), CHUNK):
            read = pool.map(lambda file: checksum(file.read_bytes()), files[start : start + CHUNK])
            found[start : start + CHUNK] = list(read)
    return found


def opened(name: str, path: Path, content: bytes | None = None) -> Image.Image:
    """Decode an image as RGB.

    Args:
        name: of the data set, for messages.
        path: the file.
        content: what it holds, if it was read already.

    Raises:
        ValueError: if it is damaged.
    """
    try:
        with Image.open(path if content is None else BytesIO(content)) as file:
            return file.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(
            f"{name}: {path} cannot be decoded ({error}); replace the file by an intact copy"
        ) from error


def centre_crop(image: Image.Image, size: int, shorter_side: int) -> Images:
    """Resize the shorter side and cut the centre out.

    It is what torchvision's `Resize` (bilinear, antialiased) and `CenterCrop` do.

    Args:
        image: RGB.
        size: height and width of the crop in pixels.
        shorter_side: length in pixels that the shorter side is resized to first.

    Returns:
        (3, size, size) uint8.
    """
    scale = [side * shorter_side // min(image.size) for side in image.size]
    resized = image.resize((scale[0], scale[1]), Image.Resampling.BILINEAR)
    left, top = (round((side - size) / 2) for side in resized.size)
    crop = resized.crop((left, top, left + size, top + size))
    return np.asarray(crop).transpose(2, 0, 1)


def resized_crop(image: Image.Image, box: tuple[int, int, int, int], size: int) -> Images:
    """Cut a box out and resize it (bilinear, antialiased).

    Args:
        image: RGB.
        box: left, top, right and bottom in pixels.
        size: height and width of the result in pixels.

    Returns:
        (3, size, size) uint8.
    """
    crop = image.crop(box).resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(crop).transpose(2, 0, 1)


def part_of_files(files: Sequence[Path], labels: Labels, decode: Callable[[Path], Images]) -> Part:
    """Make a part of image files; only the images in hand are in memory.

    Args:
        files: N files.
        labels: (N,).
        decode: a file -> (C, H, W) uint8.

    Returns:
        The part.
    """

    def read(positions: Positions) -> Iterator[Images]:
        with ThreadPoolExecutor(THREADS) as pool:
            for start in range(0, len(positions), CHUNK):
                chosen = [files[position] for position in positions[start : start + CHUNK]]
                yield np.stack(list(pool.map(decode, chosen)))

    return Part(labels, read)
