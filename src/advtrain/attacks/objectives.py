"""What an attacker raises: functions of the logits, one value per example."""

import math
from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

Objective = Callable[[Tensor, Tensor], Tensor]
"""(logits (N, K), labels (N,)) -> (N,) values."""


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """The cross-entropy -log softmax(z)_y (Madry et al. 2018, eq. 2.1).

    Args:
        logits: (N, K).
        y: (N,) int64 labels.

    Returns:
        (N,) values, 0 or more.
    """
    return F.cross_entropy(logits, y, reduction="none")


def margin(logits: Tensor, y: Tensor, kappa: float = math.inf) -> Tensor:
    """The margin of the best wrong class, up to kappa: min(max_{i != y} z_i - z_y, kappa).

    It is the negative of Carlini and Wagner 2017's f_6, untargeted: positive once the example is
    misclassified, and flat once it is so by kappa, where the attacker stops gaining.

    Args:
        logits: (N, K), K >= 2.
        y: (N,) int64 labels.
        kappa: the margin at which the attacker stops; infinity means never.

    Returns:
        (N,) values, at most kappa.

    Raises:
        ValueError: with a single class, which has no margin.
    """
    if logits.shape[1] < 2:
        raise ValueError(f"the margin needs 2 classes or more, the model has {logits.shape[1]}")
    own = y[:, None]
    others = logits.scatter(1, own, -math.inf).amax(1)
    return (others - logits.gather(1, own).squeeze(1)).clamp(max=kappa)


def kl(logits: Tensor, reference: Tensor) -> Tensor:
    """KL(softmax(reference) || softmax(logits)), TRADES' objective (Zhang et al. 2019, eq. 5).

    Args:
        logits: (N, K) at the perturbed input.
        reference: (N, K) logits at the clean input; detach them to raise the value through
            `logits` alone.

    Returns:
        (N,) values, 0 where the two agree.
    """
    target = F.log_softmax(reference, dim=1)
    return F.kl_div(F.log_softmax(logits, dim=1), target, reduction="none", log_target=True).sum(1)
