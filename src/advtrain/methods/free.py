"""Free adversarial training: Shafahi et al. 2019, "Adversarial training for free!"."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from advtrain.methods.method import Batch, Cost, Method, Passes
from advtrain.noise import Noise
from advtrain.params.quantities import Count, StepSize
from advtrain.params.quantities import step_size as resolve
from advtrain.threat import ThreatModel


@dataclass
class Free(Method):
    """Replay each minibatch m times; one backward pass serves weights and perturbation (alg. 1).

        g_w, g_delta = gradients of CE(f_w(clip(x + delta, 0, 1)), y)
        w descends g_w
        delta = clip(delta + step_size * sign g_delta, -epsilon, epsilon)

    One delta belongs to the positions of a minibatch, not to images: it starts at zero, once, and
    the next minibatch starts from where the last one left it. The passes over the data are divided
    by m, so that the weight steps are those of natural training.

    Departs from the official code: delta is saved with the run, so that a resumed one is exact.

    Args:
        replays: m, the weight steps in a row on each minibatch.
        step_size: of the perturbation.
        through_clip: whether g_delta is taken through the clip to [0, 1], as in the official code:
            where the clip cuts, delta stays, which on images that are black or white in large
            parts leaves little of it to learn. Otherwise g_delta is the gradient at the clipped
            image.
    """

    input_gradient = True
    row_state = ("delta",)

    replays: Count = 8
    step_size: StepSize = "epsilon"
    through_clip: bool = True
    delta: Tensor | None = field(init=False, default=None, repr=False, compare=False)

    def perturb(self, model: nn.Module, batch: Batch, threat: ThreatModel, noise: Noise) -> Tensor:
        """Apply the perturbation that the last step left."""
        return (batch.x + self._delta_of(batch)).clamp_(0, 1)

    def after_step(
        self, batch: Batch, x_adv: Tensor, gradient: Tensor | None, threat: ThreatModel
    ) -> None:
        """Step the perturbation along the gradient that the weights' backward pass left."""
        if gradient is None:
            raise ValueError("free: no gradient at x_adv; does the network detach its input?")
        delta = self._delta_of(batch)
        if self.through_clip:
            gradient = gradient * (x_adv == batch.x + delta)
        step = threat.steepest(gradient).mul_(resolve(self.step_size, threat.epsilon))
        delta.copy_(_onto_ball(delta + step, threat))

    def cost(self) -> Cost:
        """One pair of passes, shared by the weights and the perturbation."""
        return Cost(crafting=Passes(0, 0), loss=Passes(1, 1))

    def state_dict(self) -> dict[str, Tensor]:
        """Return the perturbation."""
        return {} if self.delta is None else {"delta": self.delta}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from a perturbation."""
        self.delta = state.get("delta")

    def _delta_of(self, batch: Batch) -> Tensor:
        """A view of the perturbation for the positions of this minibatch; zero where it is new."""
        held = batch.x[:0] if self.delta is None else self.delta
        if len(held) < len(batch.x):
            held = torch.cat([held, torch.zeros_like(batch.x[len(held) :])])
            self.delta = held
        return held[: len(batch.x)]


def _onto_ball(delta: Tensor, threat: ThreatModel) -> Tensor:
    """Project onto the ball alone: delta outlives the image, so the image's box is not its own."""
    if threat.norm == "linf":
        return delta.clamp_(-threat.epsilon, threat.epsilon)
    length = threat.distance(delta, torch.zeros_like(delta)).view(-1, 1, 1, 1)
    return delta * (threat.epsilon / length.clamp_min(torch.finfo(delta.dtype).tiny)).clamp_max(1)
