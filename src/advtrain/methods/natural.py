"""Natural training: what every robust method is compared with."""

from dataclasses import dataclass

from torch import Tensor, nn

from advtrain.methods.method import Batch, Cost, Method, Passes
from advtrain.noise import Noise
from advtrain.threat import ThreatModel


@dataclass(frozen=True)
class Natural(Method):
    """Empirical risk minimisation: min_w E[CE(f_w(x), y)] (Madry et al. 2018, sec. 2)."""

    needs_threat = False

    def perturb(self, model: nn.Module, batch: Batch, threat: ThreatModel, noise: Noise) -> Tensor:
        """Return the images as they are."""
        return batch.x

    def cost(self) -> Cost:
        """One forward and one backward pass, for the weights."""
        return Cost(crafting=Passes(0, 0), loss=Passes(1, 1))
