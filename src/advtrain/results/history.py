"""Histories: one row of numbers per epoch."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from advtrain.results.files import read_table, write_table

Row = dict[str, float | int]


def write_history(path: Path, rows: Sequence[Row]) -> None:
    """Write rows of numbers; a key that a row lacks is null in its column.

    Args:
        path: the Parquet file.
        rows: one mapping per epoch. Columns come in the order in which their keys appear; one that
            holds a float anywhere is float64, else int64.

    Raises:
        TypeError: if a value is not a number.
        OSError: if it cannot be written; no half file is left.
    """
    write_table(path, history_table(rows))


def read_history(path: Path) -> list[Row]:
    """Read rows of numbers, without the keys that are null.

    Raises:
        DamagedFileError: if the file is damaged.
    """
    return [
        {key: value for key, value in row.items() if value is not None}
        for row in read_table(path).to_pylist()
    ]


def history_table(rows: Sequence[Row]) -> pa.Table:
    """Turn rows of numbers into a table; a key that a row lacks is null."""
    names = list(dict.fromkeys(name for row in rows for name in row)) or ["epoch"]
    arrays = []
    for name in names:
        values = [row.get(name) for row in rows]
        for value in values:
            if isinstance(value, bool) or not isinstance(value, int | float | None):
                raise TypeError(f"history: {name} is a number, got {value!r}")
        whole = not any(isinstance(value, float) for value in values)
        arrays.append(pa.array(values, pa.int64() if whole else pa.float64()))
    return pa.Table.from_arrays(arrays, names=names)
