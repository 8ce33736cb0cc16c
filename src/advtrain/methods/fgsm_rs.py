"""Fast adversarial training: Wong, Rice and Kolter 2020, "Fast is better than free"."""

from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from advtrain.attacks.ascent import ascend
from advtrain.attacks.frozen import Mode, crafting
from advtrain.attacks.objectives import cross_entropy
from advtrain.methods.method import Batch, Method, Passes
from advtrain.noise import Noise
from advtrain.params.quantities import StepSize
from advtrain.params.quantities import step_size as resolve
from advtrain.threat import ThreatModel


@dataclass(frozen=True)
class FgsmRs(Method):
    """One signed-gradient step from a random start (Wong et al. 2020, algorithm 3).

        delta ~ Uniform(-epsilon, epsilon)
        delta = clip(delta + step_size * sign grad_delta CE(f_w(x + delta), y), -epsilon, epsilon)
        descend CE(f_w(x + delta), y)

    Departs from the official code: no early stop when a one-step defence overfits (the collapse is
    a result that the history shows), the start is uniform in pixel units for every channel, and
    crafting leaves BatchNorm's running averages alone.

    Args:
        step_size: of the one step (10 at epsilon 8, of 255).
        crafting: mode of the model while it is attacked.
    """

    step_size: StepSize = "1.25*epsilon"
    crafting: Mode = "train"

    def perturb(self, model: nn.Module, batch: Batch, threat: ThreatModel, noise: Noise) -> Tensor:
        """Step once from a uniform draw of the ball and project."""
        with crafting(model, self.crafting):
            return ascend(
                model,
                batch.x,
                threat.random_start(batch.x, noise),
                partial(cross_entropy, y=batch.y),
                threat,
                steps=1,
                step_size=resolve(self.step_size, threat.epsilon),
            )

    def passes(self) -> Passes:
        """One pair of passes for the image, one for the weights."""
        return Passes(forward=2, backward=2)
