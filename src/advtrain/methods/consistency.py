"""Consistency: Tack et al. 2022, "Consistency regularization for adversarial robustness"."""

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advtrain.attacks.ascent import ascend
from advtrain.attacks.frozen import Mode, crafting
from advtrain.attacks.objectives import cross_entropy, kl
from advtrain.methods.method import Batch, Cost, Method, Passes, Terms
from advtrain.noise import Noise
from advtrain.params.quantities import Count, NonNegative, Positive, StepSize
from advtrain.params.quantities import step_size as resolve
from advtrain.threat import ThreatModel


@dataclass(frozen=True)
class Consistency(Method):
    """Force the predictions on two attacked augmentations to be similar (Tack et al. 2022).

        delta_i by PGD on CE(f_w(x_i + delta_i), y), i = 1, 2
        p_i = softmax(f_w(x_i + delta_i) / temperature)
        min_w E[ mean_i CE(f_w(x_i + delta_i), y) + weight * JS(p_1 || p_2) ]
        JS(p || q) = (KL(p || m) + KL(q || m)) / 2,  m = (p + q) / 2

    The recipe draws both augmentations (crop, flip, policy, cutout); where it has none, the two
    images differ in the start of the attack alone.

    Departs from the official code: the divergence is computed from logarithms, where there the mean
    of the two predictions is raised to 1e-8 at least.

    Args:
        weight: of the divergence (lambda).
        temperature: of the predictions in the divergence; below 1 sharpens them.
        steps: of the ascent on the cross-entropy, from a uniform draw of the ball.
        step_size: of each step (2 at epsilon 8, of 255).
        crafting: mode of the model while it is attacked.
    """

    views = 2

    weight: NonNegative = 1.0
    temperature: Positive = 0.5
    steps: Count = 10
    step_size: StepSize = "epsilon/4"
    crafting: Mode = "eval"

    def perturb(self, model: nn.Module, batch: Batch, threat: ThreatModel, noise: Noise) -> Tensor:
        """Attack both views at once, each by itself; the final iterates."""
        with crafting(model, self.crafting):
            return ascend(
                model,
                batch.x,
                threat.random_start(batch.x, noise),
                partial(cross_entropy, y=batch.y),
                threat,
                steps=self.steps,
                step_size=resolve(self.step_size, threat.epsilon),
            )

    def loss(
        self, model: nn.Module, batch: Batch, x_adv: Tensor, threat: ThreatModel, noise: Noise
    ) -> Terms:
        """Evaluate both terms on one pass of both views; both sides of the divergence learn."""
        if len(x_adv) % 2:
            raise ValueError(
                f"consistency: a minibatch holds the first views of all examples, then the "
                f"second; got {len(x_adv)} rows, which are not pairs"
            )
        logits = model(x_adv)
        adversarial = F.cross_entropy(logits, batch.target)
        first, second = (logits / self.temperature).chunk(2)
        divergence = jensen_shannon(first, second).mean()
        return Terms(
            adversarial + self.weight * divergence,
            logits,
            {"adversarial": adversarial, "consistency": divergence},
        )

    def cost(self) -> Cost:
        """One pair of passes per attack step and one for the weights, of each view."""
        return Cost(crafting=Passes(self.steps, self.steps), loss=Passes(1, 1))


def jensen_shannon(one: Tensor, other: Tensor) -> Tensor:
    """The Jensen-Shannon divergence of two predictions, in nats.

    Args:
        one: (N, K) logits.
        other: (N, K) logits.

    Returns:
        (N,) values in [0, log 2].
    """
    # Twice the mean of the two, which a softmax divides by two again.
    middle = torch.logaddexp(F.log_softmax(one, dim=1), F.log_softmax(other, dim=1))
    return (kl(middle, one) + kl(middle, other)) / 2
