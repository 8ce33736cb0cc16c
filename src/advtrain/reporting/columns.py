"""Accuracies and their differences as columns of a table of data."""

from collections.abc import Sequence

import pyarrow as pa

from advtrain.reporting.flags import Flag
from advtrain.reporting.statistics import Difference, Estimate


def estimate_columns(
    name: str, found: Sequence[Estimate | Difference | None]
) -> dict[str, pa.Array]:
    """Write estimates as columns: the mean, the ends of the interval, the spread."""
    columns = {
        name: [one.mean if one else None for one in found],
        f"{name}_low": [one.low if one else None for one in found],
        f"{name}_high": [one.high if one else None for one in found],
        f"{name}_spread": [one.spread if one else None for one in found],
    }
    return {key: pa.array(values, pa.float64()) for key, values in columns.items()}


def texts_column(texts: Sequence[Sequence[str]]) -> pa.Array:
    """Write a list of texts for each row."""
    return pa.array([list(one) for one in texts], pa.list_(pa.string()))


def flag_texts(flags: Sequence[Flag]) -> list[str]:
    """Say flags in a table of data, where accuracies are shares."""
    return [flag.words(share_text) for flag in flags]


def share_text(share: float) -> str:
    """Write a share in a text of a table of data: `0.8134`."""
    return f"{share:.4f}"
