"""Kept adversarial images: the same few examples of every evaluation that kept them."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from advtrain.results.files import DamagedFileError
from advtrain.results.images import PreparedSplit, class_name, prepared_split
from advtrain.results.schema import ADVERSARIAL

SHOWN = 4
"""How many examples are shown."""

FILE = "adversarial.safetensors"
"""The images beside the rows: `x_adv` (N, C, H, W) float32 or float16, `example` (N,) int64."""


@dataclass(frozen=True)
class Kept:
    """One attack on the last weights of a cell that kept its images.

    Attributes:
        cell: the cell's name.
        attack: the evaluation's name, `pgd_20-linf-0.2`.
        path: the file of the images.
        rows: the outcomes, sorted by example.
    """

    cell: str
    attack: str
    path: Path
    rows: pa.Table


def adversarial_rows(kept: Sequence[Kept], prepared: Path | None) -> pa.Table:
    """Read what the kept images are of the chosen examples, and the clean images beside them.

    Args:
        kept: in the order of the rows.
        prepared: the folder of the prepared data set; without it there are no rows.

    Returns:
        The rows of `schema.ADVERSARIAL`.

    Raises:
        FileNotFoundError: if the images or the test split are not there.
        DamagedFileError: if one of them is damaged, or they do not belong to the rows.
    """
    if prepared is None or not kept:
        return ADVERSARIAL.empty_table()
    split = prepared_split(prepared, "test")
    chosen = chosen_examples(kept, split.example)
    rows = [row for one in kept for row in _rows(one, split, chosen)]
    return pa.Table.from_pylist(rows, ADVERSARIAL)


def chosen_examples(kept: Sequence[Kept], order: NDArray[np.int64]) -> list[int]:
    """Choose the first `SHOWN` examples that most cells classify right without an attack.

    They are the same for every cell and every attack, and what an attack does to them plays no
    part in the choice.

    Args:
        kept: the evaluations; an example has to be in all of them.
        order: (N,) ids, in the order of the test split.
    """
    common = functools.reduce(np.intersect1d, (one.rows["example"].to_numpy() for one in kept))
    cells = {one.cell: one.rows for one in kept}
    votes = np.zeros(len(common), dtype=np.int64)
    for rows in cells.values():
        right = rows["clean_prediction"].to_numpy() == rows["label"].to_numpy()
        votes += right[np.searchsorted(rows["example"].to_numpy(), common)]
    found: list[int] = order[np.isin(order, common[2 * votes > len(cells)])][:SHOWN].tolist()
    return found


def _rows(one: Kept, split: PreparedSplit, chosen: Sequence[int]) -> list[dict[str, Any]]:
    found = []
    for example, x_adv in _images(one.path, chosen).items():
        (place,) = np.flatnonzero(split.example == example)
        row = one.rows.slice(np.searchsorted(one.rows["example"].to_numpy(), example), 1)
        outcome = row.select(("label", "clean_prediction", "adversarial_prediction"))
        classes: Mapping[str, int] = outcome.to_pylist()[0]
        clean = np.frombuffer(split.image[place].as_py(), np.uint8)
        if clean.size != x_adv.size or classes["label"] != split.label[place]:
            raise DamagedFileError(
                f"{one.path}: example {example} is of the class {classes['label']} with "
                f"{x_adv.size} pixel values, in {split.path} of the class {split.label[place]} "
                f"with {clean.size}; delete {one.path.parent} and run snakemake again"
            )
        names = {f"{name}_name": class_name(split.classes, k) for name, k in classes.items()}
        channels, height, width = x_adv.shape
        found.append(
            {
                "cell": one.cell,
                "attack": one.attack,
                "example": example,
                **classes,
                **names,
                "channels": channels,
                "height": height,
                "width": width,
                "clean": (clean.astype("<f4") / np.float32(255)).tobytes(),
                "x_adv": x_adv.astype("<f4").tobytes(),
            }
        )
    return found


def _images(path: Path, chosen: Sequence[int]) -> dict[int, NDArray[np.floating[Any]]]:
    """Read the attacked images of some examples, (C, H, W) each."""
    mend = f"delete {path.parent} and run `dvc checkout` or snakemake again"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is not there; `dvc pull` fetches it, `snakemake --cores all` makes it"
        )
    try:
        with safe_open(path, framework="numpy") as file:
            example = file.get_tensor("example").tolist()
            place = dict(zip(example, range(len(example)), strict=True))
            x_adv = file.get_slice("x_adv")
            return {one: x_adv[place[one] : place[one] + 1][0] for one in chosen}
    except SafetensorError as error:
        raise DamagedFileError(f"{path}: damaged, {error}; {mend}") from error
    except KeyError as error:
        raise DamagedFileError(
            f"{path}: expected the examples of the rows beside it, has none {error}; {mend}"
        ) from error
