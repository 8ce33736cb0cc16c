"""What a method learnt for each training example: its distribution, and its extremes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from advtrain.results.files import DamagedFileError, read_table
from advtrain.results.images import PreparedSplit, class_name

FILE = "examples.parquet"
"""The values beside a training's history: one row per (epoch, example)."""

PERCENTS = (0, 5, 25, 50, 75, 95, 100)
"""The quantiles that are kept of each epoch."""

EXTREME = 6
"""How many examples are shown of the smallest values, and of the largest."""

EXAMPLE_VALUES = pa.schema(
    [
        pa.field("cell", pa.string(), nullable=False),
        pa.field("value", pa.string(), nullable=False),
        pa.field("epoch", pa.int64(), nullable=False),
        pa.field("examples", pa.int64(), nullable=False),
        pa.field("zeros", pa.int64(), nullable=False),
        pa.field("mean", pa.float64(), nullable=False),
        *(pa.field(f"quantile_{percent}", pa.float64(), nullable=False) for percent in PERCENTS),
    ]
)
"""One row per (cell, value, epoch): how what a method learns for each training example (`value`:
`epsilon`) is distributed over them after the epoch. `zeros` counts those that are exactly 0; a
quantile is the smallest number that so many percent of the examples do not exceed."""

EXTREMES = pa.schema(
    [
        pa.field("cell", pa.string(), nullable=False),
        pa.field("value", pa.string(), nullable=False),
        pa.field("end", pa.string(), nullable=False),
        pa.field("number", pa.float64(), nullable=False),
        pa.field("example", pa.int64(), nullable=False),
        pa.field("label", pa.int16(), nullable=False),
        pa.field("label_name", pa.string(), nullable=False),
        pa.field("channels", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("image", pa.binary(), nullable=False),
    ]
)
"""The labelled training examples for which a method learnt the `smallest` and the `largest` values
(`end`), after the last epoch; of equal ones, those of the lowest ids. `number` is the value and
`image` the bytes of (C, H, W) uint8."""


def read_values(path: Path) -> pa.Table:
    """Read what a training learnt of its examples.

    Returns:
        `example` and `epoch` int64, and float64 values by name.

    Raises:
        FileNotFoundError: if it is not there.
        DamagedFileError: if it is damaged or holds other columns.
    """
    table = read_table(path)
    if not {"example", "epoch"} < set(table.schema.names):
        raise DamagedFileError(
            f"{path}: expected the columns example, epoch and a value, "
            f"got {', '.join(table.schema.names)}; delete it and run snakemake again"
        )
    return table


def distribution_rows(cell: str, values: pa.Table) -> pa.Table:
    """Sum up the values of each epoch, by name and epoch: the rows of `EXAMPLE_VALUES`."""
    epoch = values["epoch"].to_numpy()
    rows = [
        _distribution(cell, name, int(one), values[name].to_numpy()[epoch == one])
        for name in _names(values)
        for one in np.unique(epoch)
    ]
    return pa.Table.from_pylist(rows, EXAMPLE_VALUES)


def extreme_rows(cell: str, values: pa.Table, train: PreparedSplit | None) -> pa.Table:
    """Show the examples of the smallest and the largest values: the rows of `EXTREMES`.

    Args:
        cell: the cell's name.
        values: of its examples; those that are not in the split have no place here.
        train: the split that they are shown from; without it, or if it lists photographs, there
            are no rows.
    """
    epoch = values["epoch"].to_numpy()
    if train is None or train.image.null_count or len(epoch) == 0:
        return EXTREMES.empty_table()
    place = {example: row for row, example in enumerate(train.example.tolist())}
    shown = np.isin(values["example"].to_numpy(), train.example)
    last = values.filter(pa.array(shown & (epoch == epoch.max())))
    example = last["example"].to_numpy()
    rows = []
    for name in _names(values):
        for end, one, number in _ends(example, last[name].to_numpy()):
            seen = _picture(train, place[one]) | {"image": train.image[place[one]].as_py()}
            rows.append({"cell": cell, "value": name, "end": end, "number": number, **seen})
    return pa.Table.from_pylist(rows, EXTREMES)


def _names(values: pa.Table) -> list[str]:
    return sorted(set(values.schema.names) - {"example", "epoch"})


def _distribution(cell: str, name: str, epoch: int, numbers: NDArray[np.float64]) -> dict[str, Any]:
    ordered = np.sort(numbers)
    # The value of an example, and no mixture of two.
    places = np.maximum(np.ceil(np.array(PERCENTS) * len(ordered) / 100).astype(int) - 1, 0)
    return {
        "cell": cell,
        "value": name,
        "epoch": epoch,
        "examples": len(ordered),
        "zeros": int(np.count_nonzero(ordered == 0)),
        "mean": float(ordered.mean()),
        **{
            f"quantile_{percent}": float(ordered[place])
            for percent, place in zip(PERCENTS, places, strict=True)
        },
    }


def _ends(
    example: NDArray[np.int64], numbers: NDArray[np.float64]
) -> Iterator[tuple[str, int, float]]:
    """Yield which end, whose example and its value, the extreme ones first."""
    for end, sign in (("smallest", 1), ("largest", -1)):
        for row in np.lexsort((example, sign * numbers))[:EXTREME].tolist():
            yield end, int(example[row]), float(numbers[row])


def _picture(split: PreparedSplit, row: int) -> dict[str, Any]:
    channels, height, width = split.shape
    label = int(split.label[row])
    return {
        "example": int(split.example[row]),
        "label": label,
        "label_name": class_name(split.classes, label),
        "channels": channels,
        "height": height,
        "width": width,
    }
