"""Random perturbations of the full budget: what any real attack has to beat."""

import math

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
    """The best of several random perturbations of length epsilon, brought into the box.

    An attack that uses the model and finds less than this is broken, or the model's gradients are
    (Athalye et al. 2018, "Obfuscated gradients ...", section 3.1; Carlini et al. 2019, "On
    evaluating adversarial robustness", section 4).

    For linf each pixel moves by epsilon up or down; for l2 and l1 the perturbation is uniform in
    direction, of that length.

    Args:
        model: maps (N, C, H, W) in [0, 1] to (N, K) logits.
        x: (N, C, H, W) in [0, 1].
        y: (N,) int64 labels.
        threat: the norm and epsilon.
        noise: for these N examples.
        draws: perturbations per example; those already fooled are dropped.

    Returns:
        A misclassified image, or the one of the largest cross-entropy, and its cross-entropy. It
        spends 1 forward pass on the clean image and 1 on each draw, no backward pass. An example
        that is misclassified without an attack is returned as it is.

    Raises:
        ValueError: for a norm that it does not know.
    """
    check_norm("random_noise", threat, NORMS)

    def attempt(rows: Tensor, number: int) -> tuple[Attacked, Tensor]:
        centre, labels = x[rows], y[rows]
        if number > 0:
            delta = _direction(x.shape[1:], threat, noise.take(rows), number).to(x.dtype)
            centre = threat.project(centre + delta * threat.epsilon, centre)
        logits = model(centre)
        value, wrong = cross_entropy(logits, labels).to(x.dtype), predictions(logits) != labels
        if number == 0:  # where an example has to be attacked, any noise is better than none
            value = value.masked_fill(~wrong, -math.inf)
        once = torch.ones_like(labels)
        return Attacked(centre, value, once, once - 1), wrong

    with crafting(model), torch.no_grad():
        return best_of_restarts(attempt, y, 1 + draws)


def _direction(shape: tuple[int, ...], threat: ThreatModel, noise: Noise, draw: int) -> Tensor:
    """(N, *shape) of unit length in the threat's norm, of a random direction."""
    if threat.norm == "l2":
        return threat.steepest(noise.normal(shape, restart=draw))
    if threat.norm == "linf":
        return torch.where(noise.uniform(shape, restart=draw) < 0.5, -1.0, 1.0)
    # Exponential sizes, divided by their sum, are uniform in the simplex.
    drawn = noise.uniform((2, *shape), restart=draw)
    sizes = (1 - drawn[:, 0]).log_().neg_()
    sizes /= sizes.sum((1, 2, 3), keepdim=True).clamp_(min=torch.finfo(sizes.dtype).tiny)
    return torch.where(drawn[:, 1] < 0.5, -sizes, sizes)
