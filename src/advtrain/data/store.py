"""Prepared data on disk: Arrow files that map to one tensor, checked before use."""

import hashlib
import json
import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

DESCRIPTION = "dataset.json"
SPLITS = ("train", "validation", "test", "unlabelled")


@dataclass(frozen=True)
class Split:
    """One split of a prepared data set, row by row.

    Args:
        images: (N, C, H, W) uint8.
        labels: (N,) int64; -1 where none is known (see `prepare`).
        example: (N,) int64, the position of each example in its source: the id that noise and
            result rows carry.
    """

    images: Tensor
    labels: Tensor
    example: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> "Split":
        """Move the split to a device, once for a whole run."""
        return Split(self.images.to(device), self.labels.to(device), self.example.to(device))

    def take(self, rows: Tensor | slice) -> "Split":
        """Take some rows; the first n (`slice(n)`) are a stratified sample (see `prepare`)."""
        return Split(self.images[rows], self.labels[rows], self.example[rows])


def load_description(folder: Path) -> dict[str, Any]:
    """Read `dataset.json` of a prepared data set.

    Args:
        folder: where `prepare` wrote.

    Returns:
        The facts: name, classes, channels, size, counts, class_counts, sha256, ...

    Raises:
        FileNotFoundError: if the data set was not prepared there.
        ValueError: if the file is not what `prepare` writes.
    """
    path = folder / DESCRIPTION
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{path}: not found; the data set was not prepared, run the prepare step first"
        ) from None
    except ValueError as error:
        raise ValueError(f"{path}: not valid JSON ({error}); run the prepare step again") from None
    if not isinstance(description, dict) or "sha256" not in description:
        raise ValueError(f"{path}: no entry 'sha256'; run the prepare step again")
    return description


def load_split(folder: Path, split: str, *, verify: bool = True) -> Split:
    """Map one split of a prepared data set into memory.

    The images are not copied: their pages are read from the file when they are first used, and
    writing to the tensor changes memory, never the file.

    Args:
        folder: where `prepare` wrote.
        split: `train`, `validation`, `test` or `unlabelled`.
        verify: compare the file with the sha256 in `dataset.json` first (reads all of it).

    Returns:
        The split, on the CPU.

    Raises:
        FileNotFoundError: if the data set was not prepared there.
        ValueError: if there is no such split, or the file is damaged.
    """
    if split not in SPLITS:
        raise ValueError(f"{folder}: no split {split!r}; expected one of {', '.join(SPLITS)}")
    description = load_description(folder)
    path = folder / f"{split}.arrow"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: not found; run the prepare step again, or `dvc pull`")
    if verify:
        expected = description["sha256"].get(path.name)
        if (got := sha256(path)) != expected:
            raise ValueError(
                f"{path}: damaged, sha256 is {got}, {DESCRIPTION} says {expected}; "
                "delete the folder and run the prepare step again, or `dvc checkout`"
            )
    shape = (description["channels"], description["size"], description["size"])
    return _map(path, shape)


def sha256(path: Path) -> str:
    """Digest a file without holding it in memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _map(path: Path, shape: tuple[int, int, int]) -> Split:
    # A copy-on-write mapping is writable, which torch asks of the memory it adopts.
    with path.open("rb") as file:
        memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    whole = pa.py_buffer(memory)
    try:
        reader = pa.ipc.open_file(whole)
        rows = reader.get_batch(0) if reader.num_record_batches == 1 else None
    except pa.ArrowInvalid as error:
        raise ValueError(
            f"{path}: not an Arrow file ({error}); run the prepare step again"
        ) from None
    width = shape[0] * shape[1] * shape[2]
    if rows is None or rows.schema.field("image").type != pa.binary(width):
        raise ValueError(
            f"{path}: expected one record batch with images of {width} bytes, as {DESCRIPTION} "
            "says; run the prepare step again"
        )
    count = rows.num_rows
    # An empty column has no address in the file.
    start = rows.column("image").buffers()[1].address - whole.address if count else 0
    pixels = np.frombuffer(memory, dtype=np.uint8, count=count * width, offset=start)
    return Split(
        images=torch.from_numpy(pixels).reshape(count, *shape),
        labels=torch.tensor(rows.column("label").to_numpy(), dtype=torch.int64),
        example=torch.tensor(rows.column("example").to_numpy(), dtype=torch.int64),
    )
