"""What an attacker raises: functions of the logits, one value per example."""

import math
from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

Objective = Callable[[Tensor, Tensor], Tensor]
"""(logits (N, K), labels (N,)) -> (N,) values."""

# Equal logits have no ratio; the published code adds the same.
SMALLEST_SPREAD = 1e-12


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


def dlr(logits: Tensor, y: Tensor) -> Tensor:
    """The difference of logits ratio (Croce and Hein 2020, "Reliable evaluation ...", section 4).

    (max_{i != y} z_i - z_y) / (z_(1) - z_(3)), with z_(k) the k-th largest logit: the margin, which
    neither a shift nor a scale of the logits changes.

    Args:
        logits: (N, K), K >= 3.
        y: (N,) int64 labels.

    Returns:
        (N,) values; at most 0 exactly where y is a most likely class, and then at least -1.

    Raises:
        ValueError: with fewer than 3 classes.
    """
    if logits.shape[1] < 3:
        raise ValueError(
            f"the difference of logits ratio needs 3 classes or more, the model has "
            f"{logits.shape[1]}; take the cross-entropy"
        )
    largest = logits.topk(3).values
    return margin(logits, y) / (largest[:, 0] - largest[:, 2] + SMALLEST_SPREAD)


def targeted_dlr(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """The targeted difference of logits ratio (Croce and Hein 2020, section 4).

    (z_t - z_y) / (z_(1) - (z_(3) + z_(4)) / 2), with z_(k) the k-th largest logit.

    Args:
        logits: (N, K), K >= 4.
        y: (N,) int64 labels.
        target: (N,) int64, the class t to be predicted instead.

    Returns:
        (N,) values, positive once t is more likely than y.

    Raises:
        ValueError: with fewer than 4 classes.
    """
    if logits.shape[1] < 4:
        raise ValueError(
            f"the targeted difference of logits ratio needs 4 classes or more, the model has "
            f"{logits.shape[1]}; take the cross-entropy, or no targets"
        )
    largest = logits.topk(4).values
    spread = largest[:, 0] - (largest[:, 2] + largest[:, 3]) / 2
    gap = logits.gather(1, target[:, None]) - logits.gather(1, y[:, None])
    return gap.squeeze(1) / (spread + SMALLEST_SPREAD)


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
