"""Outcomes: one row per (cell, attack, example), stamped, the same bytes for the same rows."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from advtrain.results.files import DamagedFileError, read_table, write_table
from advtrain.results.schema import OUTCOMES, PREFIX, STAMPS

Value = NDArray[np.generic] | str | float | None
"""A column: (N,) values, or the one that all rows have; null only where its field allows it."""

CONSTANT = ("cell", "attack", "certificate", "protocol", "norm", "epsilon")
"""The columns that may be one value; anything else comes row by row."""


def write_outcomes(path: Path, columns: Mapping[str, Value], stamps: Mapping[str, str]) -> None:
    """Write the outcomes of one evaluation, sorted by example.

    Args:
        path: the Parquet file.
        columns: the columns of `schema.OUTCOMES`: (N,) arrays; `cell`, `attack`, `protocol`, `norm`
            and `epsilon` may be one value for all rows. A NaN of `gain` and `late_gain` is a null.
        stamps: one text for each of `schema.STAMPS`.

    Raises:
        ValueError: if a column or a stamp is missing or unknown, the lengths differ, a value does
            not fit its column, or an example comes twice.
        OSError: if it cannot be written; no half file is left.
    """
    write_rows(path, "outcomes", OUTCOMES, columns, stamps)


def read_outcomes(path: Path) -> pa.Table:
    """Read the outcomes of one evaluation, or of a whole study.

    Raises:
        DamagedFileError: if the file is damaged or holds other columns.
    """
    return read_rows(path, "outcomes", OUTCOMES)


def write_rows(
    path: Path,
    what: str,
    schema: pa.Schema,
    columns: Mapping[str, Value],
    stamps: Mapping[str, str],
) -> None:
    """Write the stamped rows of one evaluation, sorted by example: the work of `write_outcomes`.

    Args:
        path: the Parquet file.
        what: the rows are, for the errors.
        schema: of the rows; one of its columns is `example`.
        columns: of the schema.
        stamps: one text for each of `schema.STAMPS`.
    """
    _same_names(path, f"stamps of the {what}", stamps, STAMPS)
    _same_names(path, f"columns of the {what}", columns, schema.names)
    example = np.asarray(columns["example"])
    order = np.argsort(example, kind="stable")
    # Sorted before they are encoded: a dictionary has its texts in the order of appearance.
    arrays = [_column(path, field, columns[field.name], order) for field in schema]
    if (np.diff(example[order]) == 0).any():
        twice = int(example[order][:-1][np.diff(example[order]) == 0][0])
        raise ValueError(f"{path}: example {twice} comes twice; expected one row per example")
    table = pa.Table.from_arrays(arrays, schema=schema)
    metadata = {f"{PREFIX}{name}": str(stamps[name]) for name in STAMPS}
    write_table(path, table.replace_schema_metadata(metadata))


def read_rows(path: Path, what: str, schema: pa.Schema) -> pa.Table:
    """Read the rows of evaluations: the work of `read_outcomes`."""
    table = read_table(path)
    if not table.schema.equals(schema):
        raise DamagedFileError(
            f"{path}: expected the columns {', '.join(schema.names)} of the {what}, "
            f"got {', '.join(table.schema.names)} or other types; it was written by another "
            f"version: delete it and run snakemake again"
        )
    return table


def read_stamps(path: Path) -> dict[str, str]:
    """Read the stamps of a file of rows.

    Raises:
        DamagedFileError: if the file is damaged or carries no stamps.
    """
    return table_stamps(read_table(path), path)


def table_stamps(table: pa.Table, path: Path) -> dict[str, str]:
    """Return the stamps of rows that were read from `path`."""
    metadata = table.schema.metadata or {}
    stamps = {name: metadata.get(f"{PREFIX}{name}".encode()) for name in STAMPS}
    if absent := [name for name, text in stamps.items() if text is None]:
        raise DamagedFileError(
            f"{path}: carries no stamp {', '.join(absent)}, so where it comes from is unknown; "
            f"delete it and run snakemake again"
        )
    return {name: text.decode() for name, text in stamps.items() if text is not None}


def _same_names(
    path: Path, what: str, given: Mapping[str, object], expected: Sequence[str]
) -> None:
    if set(given) != set(expected):
        missing = sorted(set(expected) - set(given))
        unknown = sorted(set(given) - set(expected))
        raise ValueError(
            f"{path}: {what}: missing {missing}, unknown {unknown}; expected {', '.join(expected)}"
        )


def _column(path: Path, field: pa.Field, values: Value, order: NDArray[np.int64]) -> pa.Array:
    values, rows = np.asarray(values), len(order)
    if field.name in CONSTANT and values.ndim == 0:
        values = np.full(rows, values)
    if values.shape != (rows,):
        raise ValueError(
            f"{path}: column {field.name} has the shape {values.shape}, expected ({rows},), "
            f"one value per example"
        )
    values = values[order]
    try:
        if pa.types.is_dictionary(field.type):
            texts = pa.array(values.tolist(), pa.string())
            found = pc.dictionary_encode(texts).cast(field.type)
        else:
            # float32 columns round on purpose; whole numbers must fit.
            safe = not pa.types.is_floating(field.type)
            found = pa.array(values, from_pandas=field.nullable).cast(field.type, safe=safe)
    except (pa.ArrowException, OverflowError, TypeError) as error:
        raise ValueError(f"{path}: column {field.name} is {field.type}: {error}") from error
    if found.null_count and not field.nullable:
        raise ValueError(f"{path}: column {field.name} has no value in {found.null_count} rows")
    return found
