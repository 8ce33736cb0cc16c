"""Certified rows: one per (cell, certificate, example), stamped as outcomes are."""

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa

from advtrain.results.outcomes import Value, read_rows, write_rows
from advtrain.results.schema import CERTIFIED


def write_certified(path: Path, columns: Mapping[str, Value], stamps: Mapping[str, str]) -> None:
    """Write what one certificate says of one cell, sorted by example.

    Args:
        path: the Parquet file.
        columns: the columns of `schema.CERTIFIED`: (N,) arrays; `cell`, `certificate`, `norm` and
            `epsilon` may be one value for all rows, `epsilon` also None.
        stamps: one text for each of `schema.STAMPS`.

    Raises:
        ValueError: if a column or a stamp is missing or unknown, the lengths differ, a value does
            not fit its column, or an example comes twice.
        OSError: if it cannot be written; no half file is left.
    """
    write_rows(path, "certified rows", CERTIFIED, columns, stamps)


def read_certified(path: Path) -> pa.Table:
    """Read what one certificate says of one cell, or those of a whole study.

    Raises:
        DamagedFileError: if the file is damaged or holds other columns.
    """
    return read_rows(path, "certified rows", CERTIFIED)
