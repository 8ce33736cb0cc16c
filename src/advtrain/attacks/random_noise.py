"""Random noise of the full budget: what an attack has to be stronger than."""

import torch
from torch import Tensor, nn

from advtrain.attacks.attack import Attacked, check_norm, predictions
from advtrain.attacks.frozen import crafting
from advtrain.attacks.objectives import cross_entropy
from advtrain.attacks.restarts import best_of_restarts
from advtrain.noise import Noise
from advtrain.params.quantities import Count
from advtrain.threat import ThreatModel

NORMS = ("linf", "l2", "l1")


def random_noise(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    noise: Noise,
    *,
    draws: Count = 10,
) -> Attacked:
    """Move each image to a random point on the edge of the ball, and keep the worst of several.

    For linf every pixel moves by epsilon up or down; for l2 in a uniformly random direction; for
    l1 by exponential sizes with random signs, uniform on the sphere. Then the image is projected,
    which the box can draw inwards. It asks no gradient: Carlini et al. 2019 (section 5.3) advise it
    as a test that an attack is better than luck.

    Args:
        model: maps (N, C, H, W) in [0, 1] to (N, K) logits.
        x: (N, C, H, W) in [0, 1].
        y: (N,) int64 labels.
        threat: the norm and epsilon.
        noise: for these N examples.
        draws: points per example; those already fooled are dropped.

    Returns:
        The worst point of each example (misclassified first, then the larger cross-entropy) and
        the cross-entropy there; one forward pass for each draw that the example took part in.

    Raises:
        ValueError: for another norm.
    """
    check_norm("random_noise", threat, NORMS)

    def attempt(rows: Tensor, draw: int) -> tuple[Attacked, Tensor]:
        centre = x[rows]
        direction = _direction(tuple(x.shape[1:]), threat, noise.take(rows), draw)
        x_adv = threat.project(centre + threat.epsilon * direction.to(x.dtype), centre)
        logits = model(x_adv)
        once = torch.ones_like(rows)
        found = Attacked(x_adv, cross_entropy(logits, y[rows]), once, torch.zeros_like(rows))
        return found, predictions(logits) != y[rows]

    with crafting(model):
        return best_of_restarts(attempt, y, draws)


def _direction(shape: tuple[int, ...], threat: ThreatModel, noise: Noise, draw: int) -> Tensor:
    """(N, *shape) of unit norm."""
    if threat.norm == "linf":
        return torch.where(noise.uniform(shape, restart=draw) < 0.5, -1.0, 1.0)
    direction = noise.normal(shape, restart=draw)
    if threat.norm == "l1":
        # The sizes of a Laplace variable are exponential: of any direction, the sign is kept.
        sizes = noise.fold_in(1).uniform(shape, restart=draw).neg().add_(1).log_().neg_()
        direction = direction.sign() * sizes
    length = torch.linalg.vector_norm(direction.flatten(1), ord=threat.order, dim=1)
    unit: Tensor = direction / length.view(-1, *(1,) * len(shape))
    return unit
