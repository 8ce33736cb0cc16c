"""The images of a prepared split, for what is shown of them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from advtrain.provenance import hash_file
from advtrain.results.files import DamagedFileError


@dataclass(frozen=True)
class PreparedSplit:
    """A prepared split, of which no image is read before it is asked for.

    Attributes:
        path: its file.
        classes: their names.
        shape: channels, height and width of the images.
        example: (N,) ids, in the order of the split.
        label: (N,) classes.
        image: (N,) texts of bytes, C * H * W of them; nulls if the split lists photographs.
    """

    path: Path
    classes: Sequence[str]
    shape: tuple[int, int, int]
    example: NDArray[np.int64]
    label: NDArray[np.int16]
    image: pa.Array


def prepared_split(folder: Path, name: str) -> PreparedSplit:
    """Map a split, after its checksum was compared.

    Args:
        folder: of the prepared data set.
        name: of the split: `train`, `test`.

    Raises:
        FileNotFoundError: if it is not there.
        DamagedFileError: if it is not what was prepared.
    """
    path, description = folder / f"{name}.arrow", folder / "dataset.json"
    try:
        facts = json.loads(description.read_text(encoding="utf-8"))
        got = hash_file(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{error.filename} is not there; run the prepare step, or `dvc pull`"
        ) from None
    if got != facts["sha256"][path.name]:
        raise DamagedFileError(
            f"{path}: damaged, sha256 is {got}, {description.name} says "
            f"{facts['sha256'][path.name]}; delete the folder and run the prepare step again"
        )
    rows = pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)
    return PreparedSplit(
        path=path,
        classes=facts["classes"],
        shape=(facts["channels"], facts["size"], facts["size"]),
        example=rows["example"].to_numpy(),
        label=rows["label"].to_numpy(),
        image=rows["image"] if "image" in rows.schema.names else pa.nulls(len(rows)),
    )


def class_name(classes: Sequence[str], index: int) -> str:
    """Name a class; a model of one's own may know more of them, and -1 is none."""
    if index < 0:
        return "none"
    return classes[index] if index < len(classes) else str(index)
