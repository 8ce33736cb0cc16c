"""Several random starts, and which of their results an example keeps."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from advtrain.attacks.ascent import ascend
from advtrain.attacks.attack import Attacked, predictions
from advtrain.attacks.frozen import crafting
from advtrain.attacks.objectives import Objective
from advtrain.noise import Noise
from advtrain.threat import ThreatModel

# torch's CPU kernels give a row the same bits in any batch of 16 or more (measured with AVX-512,
# CNNs, an MLP and a ResNet); in smaller ones the matrix products take other paths and logits move
# by 1e-8 to 1e-6. Twice that, since other processors have other kernels.
SMALLEST_BATCH = 32

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
    best = Attacked(*(part.clone() for part in first))
    for restart in range(1, restarts):
        rows = (~fooled).nonzero().squeeze(1)
        if len(rows) == 0:
            break
        found, won = attempt(filled(rows, min(SMALLEST_BATCH, len(examples))), restart)
        found, won = Attacked(*(part[: len(rows)] for part in found)), won[: len(rows)]
        better = won | (found.objective > best.objective[rows])
        best.x_adv[rows[better]] = found.x_adv[better]
        best.objective[rows[better]] = found.objective[better]
        best.forwards[rows] += found.forwards
        best.backwards[rows] += found.backwards
        fooled[rows] |= won
    return best


def restarted_ascent(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    noise: Noise,
    objective: Objective,
    *,
    steps: int,
    step_size: float,
    restarts: int,
    random_start: bool,
) -> Attacked:
    """The best of several projected ascents, each judged at its final iterate.

    Per restart it spends `steps` + 1 forward passes (the last one is the verdict) and `steps`
    backward passes.

    Raises:
        ValueError: for several restarts from one and the same start.
    """
    if restarts > 1 and not random_start:
        raise ValueError(
            f"restarts={restarts} without a random start repeats one run; "
            "set random_start to true, or restarts to 1"
        )

    def attempt(rows: Tensor, restart: int) -> tuple[Attacked, Tensor]:
        centre, labels = x[rows], y[rows]
        start = threat.random_start(centre, noise.take(rows), restart) if random_start else centre
        x_adv = ascend(
            model,
            centre,
            start,
            lambda logits: objective(logits, labels),
            threat,
            steps=steps,
            step_size=step_size,
        )
        logits = model(x_adv)
        value = objective(logits, labels)
        spent = torch.full_like(rows, steps)
        return Attacked(x_adv, value, spent + 1, spent), predictions(logits) != labels

    with crafting(model):
        return best_of_restarts(attempt, y, restarts)


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
