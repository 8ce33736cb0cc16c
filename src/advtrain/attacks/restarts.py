"""Several restarts, and which of their results an example keeps."""

from collections.abc import Callable

import torch
from torch import Tensor

from advtrain.attacks.attack import Attacked

# torch's CPU kernels give a row the same bits in any batch of 16 or more (measured with AVX-512,
# CNNs, an MLP and ResNets); in smaller ones the matrix products take other paths and logits move
# by 1e-8 to 1e-6.
SMALLEST_BATCH = 16

Attempt = Callable[[Tensor, int], tuple[Attacked, Tensor]]
"""(rows (M,) int64, restart) -> what was found for those rows, and (M,) bool: misclassified."""


def best_of_restarts(attempt: Attempt, examples: Tensor, restarts: int) -> Attacked:
    """The best result of each example: misclassified first, then the larger objective.

    Examples that one restart has fooled are dropped from the later ones, which changes no verdict.

    Args:
        attempt: one run of the attack on some rows of the batch.
        examples: (N,) anything with one entry per row, on the device of the rows.
        restarts: 1 or more.

    Returns:
        The best results. The passes are those of the restarts that an example took part in; a row
        that is repeated to fill a small batch is not counted.
    """
    rows = torch.arange(len(examples), device=examples.device)
    first, fooled = attempt(rows, 0)
    best = Attacked._make(part if part is None else part.clone() for part in first)
    for restart in range(1, restarts):
        rows = (~fooled).nonzero().squeeze(1)
        if len(rows) == 0:
            break
        found, won = attempt(filled(rows, min(SMALLEST_BATCH, len(examples))), restart)
        found = Attacked._make(part if part is None else part[: len(rows)] for part in found)
        won = won[: len(rows)]
        better = won | (found.objective > best.objective[rows])
        for kept, new in (
            (best.x_adv, found.x_adv),
            (best.objective, found.objective),
            (best.gain, found.gain),
            (best.late_gain, found.late_gain),
        ):
            if kept is not None and new is not None:
                kept[rows[better]] = new[better]
        best.forwards[rows] += found.forwards
        best.backwards[rows] += found.backwards
        fooled[rows] |= won
    return best


def filled(rows: Tensor, least: int) -> Tensor:
    """The rows, repeated in turn until there are at least so many; none stay none.

    Args:
        rows: (M,) int64.
        least: how many rows a batch should have.

    Returns:
        (max(M, least),) int64 that begins with `rows`.
    """
    if len(rows) == 0 or len(rows) >= least:
        return rows
    return rows.repeat(-(-least // len(rows)))[:least]
