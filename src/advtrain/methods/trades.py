"""TRADES: Zhang et al. 2019, "Theoretically principled trade-off ..." (ICML)."""

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advtrain.attacks.ascent import ascend
from advtrain.attacks.frozen import Mode, crafting
from advtrain.attacks.objectives import kl
from advtrain.methods.method import Batch, Cost, Method, Passes, Terms
from advtrain.noise import Noise
from advtrain.params.quantities import Count, NonNegative, StepSize
from advtrain.params.quantities import step_size as resolve
from advtrain.threat import ThreatModel


@dataclass(frozen=True)
class Trades(Method):
    """Trade natural error against the boundary error (Zhang et al. 2019, eq. 5, algorithm 1).

        min_w E[ CE(f_w(x), y) + beta * max_{delta in S} KL(f_w(x) || f_w(x + delta)) ]

    beta is the paper's 1 / lambda. The ascent starts from x + start_deviation * N(0, 1).

    Departs from the official code: the clean prediction is computed once, not at every attack step
    (the same value, in eval mode) nor again in the loss (there BatchNorm's running averages move
    twice with the clean batch).

    Args:
        beta: weight of the boundary term.
        steps: of the ascent on the KL divergence.
        step_size: of each step (.007 at epsilon .031 in the official code).
        start_deviation: standard deviation of the start, in pixel units.
        crafting: mode of the model while it is attacked.
    """

    beta: NonNegative = 6.0
    steps: Count = 10
    step_size: StepSize = "epsilon/4"
    start_deviation: NonNegative = 0.001
    crafting: Mode = "eval"

    def perturb(self, model: nn.Module, batch: Batch, threat: ThreatModel, noise: Noise) -> Tensor:
        """Ascend the KL divergence from the clean prediction; the final iterate."""
        with crafting(model, self.crafting):
            with torch.no_grad():
                reference = model(batch.x)
            # Not projected, as in the official code; the first step is.
            start = batch.x + self.start_deviation * noise.normal(tuple(batch.x.shape[1:]))
            return ascend(
                model,
                batch.x,
                start,
                partial(kl, reference=reference),
                threat,
                steps=self.steps,
                step_size=resolve(self.step_size, threat.epsilon),
            )

    def loss(
        self, model: nn.Module, batch: Batch, x_adv: Tensor, threat: ThreatModel, noise: Noise
    ) -> Terms:
        """Evaluate eq. 5; both sides of the divergence learn. The accuracy is that at x_adv."""
        clean, adversarial = model(batch.x), model(x_adv)
        natural = F.cross_entropy(clean, batch.target)
        robust = kl(adversarial, clean).mean()
        return Terms(
            natural + self.beta * robust, adversarial, {"natural": natural, "robust": robust}
        )

    def cost(self) -> Cost:
        """The clean prediction, a pair of passes per attack step, and two pairs for the weights."""
        return Cost(crafting=Passes(self.steps + 1, self.steps), loss=Passes(2, 2))
