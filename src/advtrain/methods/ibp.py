"""IBP training: Gowal et al. 2019, "Scalable verified training ..." (ICCV)."""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advtrain.bounds.interval import layers_of, worst_case_logits
from advtrain.methods.method import Batch, Cost, Method, Passes, Terms
from advtrain.noise import Noise
from advtrain.params.quantities import Positive, Share
from advtrain.threat import ThreatModel


@dataclass
class Ibp(Method):
    """Descend a bound of the worst loss in the ball, beside the natural one (Gowal et al. 2019).

        kappa CE(z(x), y) + (1 - kappa) CE(worst-case logits at epsilon', y)

    The worst-case logits are the upper bounds of z_k - z_y by interval propagation, with the
    differences folded into the last linear layer ("elision of the last layer"). During `warmup`
    kappa is 1 and epsilon' 0, which is natural training; during `ramp` epsilon' grows to
    epsilon_factor * epsilon and kappa falls to `final_kappa`, both linearly in the weight steps.
    Nothing is crafted: the images are the clean ones.

    The bounds hold for BatchNorm by its running averages, those of the network in eval mode,
    while the natural term trains on the batch's statistics. With smoothed labels the second term
    is the cross-entropy of the worst-case logits still, but no longer a bound.

    Departs from the official code: the shares of its 2000 and 10 000 steps of 60 001 stand for any
    length of training.

    Args:
        epsilon_factor: the budget of the training over the threat's (1.1 in the official script).
        final_kappa: weight of the natural term after the ramp.
        warmup: share of the weight steps before the ramp.
        ramp: share of the weight steps of the ramp.

    Raises:
        ValueError: if the ramp would end after the training.
    """

    norms: ClassVar[tuple[str, ...]] = ("linf",)
    beside_network: ClassVar[bool] = True

    epsilon_factor: Positive = 1.1
    final_kappa: Share = 0.5
    warmup: Share = 0.033
    ramp: Share = 0.167
    reached: float | None = field(init=False, default=None, repr=False, compare=False)
    epsilon: float = field(init=False, default=0.0, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.warmup + self.ramp > 1:
            raise ValueError(
                f"ibp: warmup {self.warmup:g} and ramp {self.ramp:g} are shares of one training, "
                "together 1 at most; the ramp would never end"
            )

    def perturb(self, model: nn.Module, batch: Batch, threat: ThreatModel, noise: Noise) -> Tensor:
        """Return the images as they are, and note where on the ramp the step is.

        Raises:
            ValueError: for another norm than linf, or naming the layer that has no bounds; in the
                warm-up too, which needs no bounds yet.
        """
        if threat.norm != "linf":
            raise ValueError(f"ibp trains for linf budgets, got {threat.norm}; set norm to linf")
        layers_of(model)
        self.reached = self._ramped(batch.progress)
        self.epsilon = self._epsilon(batch, threat)
        return batch.x

    def loss(
        self, model: nn.Module, batch: Batch, x_adv: Tensor, threat: ThreatModel, noise: Noise
    ) -> Terms:
        """Evaluate both terms. The accuracy is that of the clean images."""
        logits = model(batch.x)
        natural = F.cross_entropy(logits, batch.target)
        epsilon = self._epsilon(batch, threat)
        if epsilon == 0:  # the ball is the image itself
            return Terms(natural, logits, {"natural": natural, "verified": natural})
        # bfloat16 would round a bound by more than the interval is wide.
        with torch.autocast(batch.x.device.type, enabled=False):
            worst = worst_case_logits(model, batch.x, batch.y, epsilon)
        verified = F.cross_entropy(worst, batch.target)
        kappa = self._kappa(self._ramped(batch.progress))
        return Terms(
            kappa * natural + (1 - kappa) * verified,
            logits,
            {"natural": natural, "verified": verified},
        )

    def cost(self) -> Cost:
        """One pair of passes, and where there is a ball two for the interval's centre and radius.

        Those go through the layers' weights, not through the network's own `forward`.
        """
        started = self._ramped(0.0) > 0 if self.reached is None else self.epsilon > 0
        pairs = 3 if started else 1
        return Cost(crafting=Passes(0, 0), loss=Passes(pairs, pairs))

    def measures(self) -> dict[str, float]:
        """Return kappa and epsilon' of the last step."""
        return {"kappa": self._kappa(self.reached or 0.0), "epsilon": self.epsilon}

    def _ramped(self, progress: float) -> float:
        """The share of the ramp that is done, in [0, 1]."""
        if progress < self.warmup:
            return 0.0
        return 1.0 if self.ramp == 0 else min((progress - self.warmup) / self.ramp, 1.0)

    def _kappa(self, ramped: float) -> float:
        return 1 - ramped * (1 - self.final_kappa)

    def _epsilon(self, batch: Batch, threat: ThreatModel) -> float:
        return self._ramped(batch.progress) * self.epsilon_factor * threat.epsilon
