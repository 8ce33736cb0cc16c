"""MART: Wang et al. 2020, "Improving adversarial robustness requires revisiting ..." (ICLR)."""

import math
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
from advtrain.params.quantities import Count, NonNegative, StepSize
from advtrain.params.quantities import step_size as resolve
from advtrain.threat import ThreatModel


@dataclass(frozen=True)
class Mart(Method):
    """Weigh the divergence of each example by how far it is from being classified right.

        x_adv = argmax_{x + delta, delta in S} CE(f_w(x + delta), y)
        BCE(p, y) = -log p_y - log(1 - max_{k != y} p_k)
        min_w E[ BCE(p(x_adv), y) + beta * KL(p(x) || p(x_adv)) * (1 - p_y(x)) ],  p = softmax f_w

    Misclassification aware adversarial training (Wang et al. 2020): BCE is the boosted
    cross-entropy, beta the paper's lambda. The weights learn through every p, that of 1 - p_y(x)
    too. The ascent starts from x + start_deviation * N(0, 1).

    Departs from the official code: 1 - p is summed from the other log-probabilities, where there
    1e-12, 1.0001 and 1.0000001 keep the logarithms finite (which bounds -log(1 - p) by 9.2); and an
    l2 budget is attacked too.

    Args:
        beta: weight of the weighted divergence.
        steps: of the ascent on the cross-entropy.
        step_size: of each step (.007 at epsilon .031 in the official code).
        start_deviation: standard deviation of the start, in pixel units.
        crafting: mode of the model while it is attacked.
    """

    beta: NonNegative = 5.0
    steps: Count = 10
    step_size: StepSize = "epsilon/4"
    start_deviation: NonNegative = 0.001
    crafting: Mode = "eval"

    def perturb(self, model: nn.Module, batch: Batch, threat: ThreatModel, noise: Noise) -> Tensor:
        """Ascend the cross-entropy of the label; the final iterate."""
        # Not projected, as in the official code; the first step is.
        start = batch.x + self.start_deviation * noise.normal(tuple(batch.x.shape[1:]))
        with crafting(model, self.crafting):
            return ascend(
                model,
                batch.x,
                start,
                partial(cross_entropy, y=batch.y),
                threat,
                steps=self.steps,
                step_size=resolve(self.step_size, threat.epsilon),
            )

    def loss(
        self, model: nn.Module, batch: Batch, x_adv: Tensor, threat: ThreatModel, noise: Noise
    ) -> Terms:
        """Evaluate the loss above; smoothed labels enter its cross-entropy alone."""
        clean, adversarial = model(batch.x), model(x_adv)
        margin = _margin(adversarial, batch.y).mean()
        boosted = F.cross_entropy(adversarial, batch.target) + margin
        # 1 - p_y without cancellation where p_y is near 1.
        weight = -torch.expm1(-cross_entropy(clean, batch.y))
        weighted = (kl(adversarial, clean) * weight).mean()
        return Terms(
            boosted + self.beta * weighted, adversarial, {"boosted": boosted, "weighted": weighted}
        )

    def cost(self) -> Cost:
        """A pair of passes per attack step, and two pairs for the weights."""
        return Cost(crafting=Passes(self.steps, self.steps), loss=Passes(2, 2))


def _margin(logits: Tensor, y: Tensor) -> Tensor:
    """(N,) values of -log(1 - max_{k != y} p_k), the margin term of the boosted cross-entropy."""
    log_p = F.log_softmax(logits, dim=1)
    worst = log_p.detach().scatter(1, y[:, None], -math.inf).argmax(1, keepdim=True)
    return -log_p.scatter(1, worst, -math.inf).logsumexp(1)
