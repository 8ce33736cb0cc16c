"""The pass over the examples of an evaluation: batch by batch, one row per example."""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from advtrain.attacks.frozen import crafting
from advtrain.attacks.restarts import SMALLEST_BATCH, filled
from advtrain.data.store import Split

Columns = dict[str, npt.NDArray[np.generic]]


def rows_of(
    model: nn.Module,
    split: Split,
    types: Mapping[str, npt.DTypeLike],
    evaluated: Callable[[Split], Mapping[str, Tensor]],
    device: torch.device,
    batch_size: int,
    on_batch: Callable[[int], None] | None,
) -> Columns:
    """Evaluate a split, with the model in eval mode and left as it was found.

    A batch of fewer than `SMALLEST_BATCH` rows is filled by repeating some: see `evaluate`.

    Args:
        model: on `device`.
        split: the examples.
        types: of the columns, by name.
        evaluated: a batch on the device -> (N,) values of each column.
        device: where the model is.
        batch_size: examples per batch.
        on_batch: called after every batch with the number of examples done so far.

    Returns:
        The columns, in the order of the split.
    """
    columns: Columns = {name: np.empty(len(split), kind) for name, kind in types.items()}
    with crafting(model):
        for rows, batch in batches(split, torch.arange(len(split)), device, batch_size):
            for name, values in evaluated(batch).items():
                columns[name][rows.numpy()] = values[: len(rows)].cpu().numpy()
            if on_batch is not None:
                on_batch(int(rows[-1]) + 1)
    return columns


def batches(
    split: Split, rows: Tensor, device: torch.device, batch_size: int
) -> Iterator[tuple[Tensor, Split]]:
    """Cut some rows of a split into batches, filled up to `SMALLEST_BATCH` by repetition.

    Yields:
        (M,) the rows, and the batch on the device, which begins with them.
    """
    for some in torch.split(rows, batch_size) if len(rows) else ():
        yield some, split.take(filled(some, SMALLEST_BATCH)).to(device)


def images_of(batch: Split) -> Tensor:
    """Return the images of a batch as an attack gets them.

    Channels last, which changes no number's meaning and makes convolutions faster.

    Returns:
        (N, C, H, W) float32 in [0, 1].
    """
    images = batch.images.float().div_(255)
    return images.contiguous(memory_format=torch.channels_last)


def name_of(function: Callable[..., object]) -> str:
    """Return the name of an attack or a certificate, bound to its parameters or not."""
    bound = getattr(function, "func", function)
    return str(getattr(bound, "__name__", bound))
