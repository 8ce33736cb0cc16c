"""Examples crafted on one network and judged on another."""

import math

import torch
from torch import Tensor, nn

from advtrain.attacks.ascent import ascend
from advtrain.attacks.attack import Attacked, check_norm, predictions
from advtrain.attacks.frozen import crafting
from advtrain.attacks.objectives import cross_entropy
from advtrain.attacks.restarts import best_of_restarts
from advtrain.noise import Noise
from advtrain.params import quantities
from advtrain.params.quantities import Count, StepSize
from advtrain.threat import ThreatModel

NORMS = ("linf", "l2")


def transfer(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    noise: Noise,
    *,
    source: nn.Module,
    steps: Count = 20,
    step_size: StepSize = "epsilon/4",
    restarts: Count = 1,
) -> Attacked:
    """PGD on a network of one's own, tried on the one under attack (Papernot et al. 2016).

    The ascent is PGD's on the cross-entropy of the source, from PGD's random starts, and its final
    iterate counts. It sees nothing of the model and therefore shows what gradients of the model
    may hide: an example that falls to a transferred image and not to the model's own gradient is a
    sign of masking (Athalye et al. 2018). Of several restarts an example keeps the one that the
    model misclassifies, then the one of larger cross-entropy on the model.

    Args:
        model: maps (N, C, H, W) in [0, 1] to (N, K) logits; it is only asked.
        x: (N, C, H, W) in [0, 1].
        y: (N,) int64 labels.
        threat: the norm and epsilon.
        noise: for these N examples; the random starts.
        source: the network that the examples are crafted on, of the same classes; left as found.
        steps: gradient steps on the source, of one restart.
        step_size: pixel units, or relative to epsilon; epsilon/4 is 2/255 at 8/255.
        restarts: starts per example; those that have fooled the model are dropped.

    Returns:
        The perturbed images and the model's cross-entropy there. Passes are counted for both
        networks: 1 forward for the clean image, and for each restart that the example took part in
        `steps` forward and backward on the source and 1 forward on the model.

    Raises:
        ValueError: for another norm.
    """
    check_norm("transfer", threat, NORMS)
    step = quantities.step_size(step_size, threat.epsilon)

    def crafted(centre: Tensor, labels: Tensor, noise: Noise, restart: int) -> Tensor:
        with crafting(source):
            return ascend(
                source,
                centre,
                threat.random_start(centre, noise, restart),
                lambda logits: cross_entropy(logits, labels),
                threat,
                steps=steps,
                step_size=step,
            )

    def attempt(rows: Tensor, trial: int) -> tuple[Attacked, Tensor]:
        """The clean image first, then one restart after the other.

        A clean image that is classified rightly is no result: any transferred one replaces it.
        """
        x_adv, labels, spent = x[rows], y[rows], torch.zeros_like(rows)
        if trial > 0:
            x_adv = crafted(x_adv, labels, noise.take(rows), trial - 1)
            spent += steps
        logits = model(x_adv)
        value, fooled = cross_entropy(logits, labels), predictions(logits) != labels
        if trial == 0:
            value = value.masked_fill(~fooled, -math.inf)
        return Attacked(x_adv, value, spent + 1, spent), fooled

    with crafting(model):
        return best_of_restarts(attempt, y, restarts + 1)
