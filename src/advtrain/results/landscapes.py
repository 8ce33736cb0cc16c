"""Landscapes: the loss around a few images and its gradient there, one row per (cell, example)."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from advtrain.results.outcomes import Value, read_rows, write_rows

LANDSCAPES = pa.schema(
    [
        pa.field("cell", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("norm", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("epsilon", pa.float64(), nullable=False),
        pa.field("example", pa.int64(), nullable=False),
        pa.field("label", pa.int16(), nullable=False),
        pa.field("prediction", pa.int16(), nullable=False),
        pa.field("label_name", pa.string(), nullable=False),
        pa.field("channels", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("image", pa.binary(), nullable=False),
        pa.field("gradient", pa.binary(), nullable=False),
        pa.field("largest", pa.float32(), nullable=False),
        pa.field("side", pa.int32(), nullable=False),
        pa.field("reach", pa.float64(), nullable=False),
        pa.field("loss", pa.binary(), nullable=False),
    ]
)
"""One row per (cell, example) of the few examples around which the last weights' loss is shown.
`image` is the bytes of (C, H, W) uint8; `gradient` of (C, H, W) little-endian float16, the
cross-entropy's input gradient there, in units of its `largest` entry (0 where the output does not
depend on the input). `loss` is the bytes of (side, side) little-endian float32: the cross-entropy
at image + epsilon (a g + b r), where g raises it fastest and r is random, both of unit `norm`; rows
of equal b, columns of equal a, both from -reach to reach in equal steps."""


def write_landscapes(
    path: Path,
    columns: Mapping[str, NDArray[np.generic]],
    facts: Mapping[str, Value],
    stamps: Mapping[str, str],
) -> None:
    """Write the loss around some examples of one cell, sorted by example.

    Args:
        path: the Parquet file.
        columns: `example`, `label`, `prediction` and `label_name` (N,), `image` (N, C, H, W) uint8,
            `gradient` (N, C, H, W) and `loss` (N, side, side).
        facts: what all rows share: `cell`, `norm`, `epsilon` and `reach`.
        stamps: one text for each of `schema.STAMPS`.

    Raises:
        ValueError: if a column or a stamp is missing or unknown, the lengths differ, a value does
            not fit its column, or an example comes twice.
        OSError: if it cannot be written; no half file is left.
    """
    image, gradient, loss = (columns[name] for name in ("image", "gradient", "loss"))
    largest = np.abs(gradient).max(axis=(1, 2, 3))
    scaled = np.zeros_like(gradient)
    np.divide(gradient, largest[:, None, None, None], out=scaled, where=gradient != 0)
    names = ("channels", "height", "width", "side")
    sizes = dict(zip(names, (*image.shape[1:], loss.shape[1]), strict=True))
    stored = {
        **columns,
        **{name: np.full(len(image), size) for name, size in sizes.items()},
        "reach": np.full(len(image), facts["reach"]),
        "image": _bytes(image),
        "gradient": _bytes(scaled.astype("<f2")),
        "largest": largest,
        "loss": _bytes(loss.astype("<f4")),
        **{name: facts[name] for name in ("cell", "norm", "epsilon")},
    }
    write_rows(path, "landscapes", LANDSCAPES, stored, stamps)


def read_landscapes(path: Path) -> pa.Table:
    """Read the loss around some examples of one cell, or of a whole study.

    Raises:
        DamagedFileError: if the file is damaged or holds other columns.
    """
    return read_rows(path, "landscapes", LANDSCAPES)


def _bytes(values: NDArray[np.generic]) -> NDArray[np.object_]:
    """(N,) the bytes of each entry."""
    found = np.empty(len(values), dtype=object)
    found[:] = [one.tobytes() for one in values]
    return found
