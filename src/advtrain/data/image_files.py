"""Image files in folders: which are images, what identifies them, how they are read."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from advtrain.data.source import CHUNK, Images, Labels, Part, Positions

SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})
THREADS = 4
"""Images decoded at a time; Pillow works outside the interpreter lock."""


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


def opened(name: str, path: Path) -> Image.Image:
    """Decode an image as RGB.

    Args:
        name: of the data set, for messages.
        path: the file.

    Raises:
        ValueError: if it is damaged.
    """
    try:
        with Image.open(path) as file:
            return file.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(
            f"{name}: {path} cannot be decoded ({error}); replace the file by an intact copy"
        ) from error


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
