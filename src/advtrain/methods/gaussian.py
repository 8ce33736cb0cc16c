"""Gaussian noise augmentation: the training of randomized smoothing."""

from dataclasses import dataclass

from torch import Tensor, nn

from advtrain.methods.method import Batch, Cost, Method, Passes
from advtrain.noise import Noise
from advtrain.params.quantities import Positive
from advtrain.threat import ThreatModel


@dataclass(frozen=True)
class Gaussian(Method):
    """Train on images with Gaussian noise (Lecuyer et al. 2019; Cohen et al. 2019, sec. 3.3).

        min_w E[CE(f_w(x + N(0, sigma^2 I)), y)]

    The noisy images are not clamped to [0, 1], as in the official code of Cohen et al.

    Args:
        sigma: standard deviation of the noise in pixel units; that of the certification.
    """

    needs_threat = False
    within_budget = False

    sigma: Positive = 0.25

    def perturb(self, model: nn.Module, batch: Batch, threat: ThreatModel, noise: Noise) -> Tensor:
        """Add noise to each pixel."""
        return batch.x + self.sigma * noise.normal(tuple(batch.x.shape[1:]))

    def cost(self) -> Cost:
        """One forward and one backward pass, for the weights."""
        return Cost(crafting=Passes(0, 0), loss=Passes(1, 1))
