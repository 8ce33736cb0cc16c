"""Probe rows: what a model's gradients look like, one per (cell, example)."""

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa

from advtrain.results.outcomes import Value, read_rows, write_rows
from advtrain.results.schema import PROBES


def write_probes(path: Path, columns: Mapping[str, Value], stamps: Mapping[str, str]) -> None:
    """Write the probe of one cell, sorted by example.

    Args:
        path: the Parquet file.
        columns: the columns of `schema.PROBES`: (N,) arrays; `cell` may be one value for all rows.
        stamps: one text for each of `schema.STAMPS`.

    Raises:
        ValueError: if a column or a stamp is missing or unknown, the lengths differ, a value does
            not fit its column, or an example comes twice.
        OSError: if it cannot be written; no half file is left.
    """
    write_rows(path, "probe rows", PROBES, columns, stamps)


def read_probes(path: Path) -> pa.Table:
    """Read the probe of one cell, or those of a whole study.

    Raises:
        DamagedFileError: if the file is damaged or holds other columns.
    """
    return read_rows(path, "probe rows", PROBES)
