"""Fast adversarial training: Wong, Rice and Kolter 2020, "Fast is better than free"."""

from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from advtrain.attacks.ascent import ascend
from advtrain.attacks.attack import predictions
from advtrain.attacks.frozen import Mode, crafting
from advtrain.attacks.objectives import cross_entropy
from advtrain.methods.method import Batch, Cost, Method, Passes
from advtrain.noise import Noise
from advtrain.params.quantities import Count, Share, StepSize
from advtrain.params.quantities import step_size as resolve
from advtrain.threat import ThreatModel


@dataclass
class FgsmRs(Method):
    """One signed-gradient step from a random start (Wong et al. 2020, algorithm 3).

        delta ~ Uniform(-epsilon, epsilon)
        delta = clip(delta + step_size * sign grad_delta CE(f_w(x + delta), y), -epsilon, epsilon)
        descend CE(f_w(x + delta), y)

    With `early_stop`, PGD attacks the first minibatch of every epoch when the epoch is over, from a
    uniform start in the mode of the crafting; if fewer of its images than in the epoch before
    withstand it, by more than `stop_drop` of them, the weights have overfitted catastrophically to
    the one step, and the training ends with those of the epoch before.

    Departs from the official code: the start is uniform in pixel units for every channel, crafting
    and the check leave BatchNorm's running averages alone, and the check's PGD steps by epsilon/4
    (2 of 255 at every budget there) also for images that are fooled already.

    Args:
        step_size: of the one step (10 at epsilon 8, of 255).
        crafting: mode of the model while it is attacked.
        early_stop: whether to check for catastrophic overfitting after each epoch.
        stop_steps: of the check's PGD.
        stop_drop: share of the minibatch by which the accuracy under that PGD may fall from an
            epoch to the next.
    """

    step_size: StepSize = "1.25*epsilon"
    crafting: Mode = "train"
    early_stop: bool = False
    stop_steps: Count = 5
    stop_drop: Share = 0.2
    checked: Tensor | None = field(init=False, default=None, repr=False, compare=False)

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

    def after_epoch(
        self,
        model: nn.Module,
        batch: Batch,
        row: dict[str, float],
        threat: ThreatModel,
        noise: Noise,
    ) -> str:
        """Compare the accuracy under PGD with that of the last epoch; remember it."""
        if not self.early_stop:
            return ""
        with crafting(model, self.crafting):
            x_adv = ascend(
                model,
                batch.x,
                threat.random_start(batch.x, noise),
                partial(cross_entropy, y=batch.y),
                threat,
                steps=self.stop_steps,
                step_size=threat.epsilon / 4,
            )
            with torch.no_grad():
                accuracy = (predictions(model(x_adv)) == batch.y).double().mean()
        row["stop_check_accuracy"] = accuracy.item()
        if self.checked is not None and (self.checked - accuracy).item() > self.stop_drop:
            return (
                f"catastrophic overfitting in epoch {row['epoch']:g}: the accuracy under PGD-"
                f"{self.stop_steps} on its first minibatch fell from {self.checked:.1%} to "
                f"{accuracy:.1%}, by more than {self.stop_drop:.1%} of the minibatch"
            )
        self.checked = accuracy
        return ""

    def cost(self) -> Cost:
        """One pair of passes for the image, one for the weights."""
        return Cost(crafting=Passes(1, 1), loss=Passes(1, 1))

    def state_dict(self) -> dict[str, Tensor]:
        """Return the accuracy that the last check found."""
        return {} if self.checked is None else {"checked": self.checked}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from the accuracy of an earlier check."""
        self.checked = state.get("checked")
