"""Prepared data on disk: Arrow files, checked before use, that map to one tensor or list files."""

import hashlib
import json
import mmap
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

DESCRIPTION = "dataset.json"
SPLITS = ("train", "validation", "test", "unlabelled")
LISTED_COLUMNS = ["example", "label", "photograph", "bytes", "crc32"]


@dataclass(frozen=True, eq=False)
class Photographs:
    """Files that stand where the pixels of a split stand; `data.stream` decodes them when used.

    Args:
        name: of the data set, for messages.
        raw: folder of raw data.
        files: (N,) paths relative to it; a column, which processes share without copying it.
        sizes: (N,) bytes of each file when the data set was prepared.
        checksums: (N,) CRC32 of its content at that time.
        size: height and width in pixels of what a photograph is cropped to.
        shorter_side: length in pixels that the shorter side is resized to before the centre is cut
            out.
        least_area: the smallest share of a photograph's area that a random crop covers.
    """

    name: str
    raw: Path
    files: pa.StringArray
    sizes: npt.NDArray[np.int64]
    checksums: npt.NDArray[np.uint32]
    size: int
    shorter_side: int
    least_area: float

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, rows: Tensor | slice) -> "Photographs":
        if isinstance(rows, slice):
            return self._with(self.files[rows], rows)
        places = rows.cpu().numpy()
        return self._with(self.files.take(pa.array(places)), places)

    def _with(self, files: pa.StringArray, places: npt.NDArray[np.int64] | slice) -> "Photographs":
        sizes, checksums = self.sizes[places], self.checksums[places]
        return replace(self, files=files, sizes=sizes, checksums=checksums)

    def to(self, device: torch.device | str) -> "Photographs":
        """Stay: what is decoded goes to the device batch by batch."""
        return self


@dataclass(frozen=True)
class Split:
    """One split of a prepared data set, row by row.

    Args:
        stored: (N, C, H, W) uint8, or the photographs that `data.stream.fetch` makes them of.
        labels: (N,) int64; -1 where none is known (see `prepare`).
        example: (N,) int64, the position of each example in its source: the id that noise and
            result rows carry.
    """

    stored: Tensor | Photographs
    labels: Tensor
    example: Tensor

    @property
    def images(self) -> Tensor:
        """The images (N, C, H, W) uint8.

        Raises:
            ValueError: if they are photographs, which are not pixels before they are used.
        """
        if isinstance(self.stored, Photographs):
            raise ValueError(
                f"{self.stored.name}: the images of this split are photographs that are decoded at "
                "every epoch, but here they are needed as pixels; set the data set's decode to once"
            )
        return self.stored

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> "Split":
        """Move the split to a device, once for a whole run."""
        return Split(self.stored.to(device), self.labels.to(device), self.example.to(device))

    def take(self, rows: Tensor | slice) -> "Split":
        """Take some rows; the first n (`slice(n)`) are a stratified sample (see `prepare`)."""
        return Split(self.stored[rows], self.labels[rows], self.example[rows])


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


def load_split(folder: Path, split: str, *, verify: bool = True, raw: Path | None = None) -> Split:
    """Map one split of a prepared data set into memory.

    The images are not copied: their pages are read from the file when they are first used, and
    writing to the tensor changes memory, never the file.

    Args:
        folder: where `prepare` wrote.
        split: `train`, `validation`, `test` or `unlabelled`.
        verify: compare the file with the sha256 in `dataset.json` first (reads all of it).
        raw: folder of raw data, for a split that lists photographs.

    Returns:
        The split, on the CPU.

    Raises:
        FileNotFoundError: if the data set was not prepared there.
        ValueError: if there is no such split, the file is damaged, or it lists photographs and
            there is no `raw`.
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
    if split in description.get("photographs", {}).get("splits", ()):
        return _listed(path, description, raw)
    shape = (description["channels"], description["size"], description["size"])
    return _map(path, shape)


def sha256(path: Path) -> str:
    """Digest a file without holding it in memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _listed(path: Path, description: dict[str, Any], raw: Path | None) -> Split:
    if raw is None:
        raise ValueError(
            f"{path}: lists photographs, which are decoded when they are used; "
            "say in which folder of raw data they lie (raw)"
        )
    _, rows = _record_batch(path)
    if rows is None or rows.schema.names != LISTED_COLUMNS:
        raise ValueError(
            f"{path}: expected one record batch that lists photographs, as {DESCRIPTION} says; "
            "run the prepare step again"
        )
    crops = description["photographs"]
    return _split(
        Photographs(
            name=description["name"],
            raw=raw,
            files=rows.column("photograph"),
            sizes=rows.column("bytes").to_numpy(),
            checksums=rows.column("crc32").to_numpy(),
            size=description["size"],
            shorter_side=crops["shorter_side"],
            least_area=crops["least_area"],
        ),
        rows,
    )


def _map(path: Path, shape: tuple[int, int, int]) -> Split:
    memory, rows = _record_batch(path)
    width = shape[0] * shape[1] * shape[2]
    if rows is None or rows.schema.field("image").type != pa.binary(width):
        raise ValueError(
            f"{path}: expected one record batch with images of {width} bytes, as {DESCRIPTION} "
            "says; run the prepare step again"
        )
    count = rows.num_rows
    # An empty column has no address in the file.
    address = pa.py_buffer(memory).address
    start = rows.column("image").buffers()[1].address - address if count else 0
    pixels = np.frombuffer(memory, dtype=np.uint8, count=count * width, offset=start)
    return _split(torch.from_numpy(pixels).reshape(count, *shape), rows)


def _record_batch(path: Path) -> tuple[mmap.mmap, pa.RecordBatch | None]:
    """Map a file; its record batch, or None if there is not exactly one."""
    # A copy-on-write mapping is writable, which torch asks of the memory it adopts.
    with path.open("rb") as file:
        memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    try:
        reader = pa.ipc.open_file(pa.py_buffer(memory))
        return memory, reader.get_batch(0) if reader.num_record_batches == 1 else None
    except pa.ArrowInvalid as error:
        raise ValueError(
            f"{path}: not an Arrow file ({error}); run the prepare step again"
        ) from None


def _split(stored: Tensor | Photographs, rows: pa.RecordBatch) -> Split:
    return Split(
        stored,
        labels=torch.tensor(rows.column("label").to_numpy(), dtype=torch.int64),
        example=torch.tensor(rows.column("example").to_numpy(), dtype=torch.int64),
    )
