"""PGD adversarial training: Madry et al. 2018, "Towards deep learning models resistant ..."."""

from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from advtrain.attacks.ascent import ascend
from advtrain.attacks.frozen import Mode, crafting
from advtrain.attacks.objectives import cross_entropy
from advtrain.methods.method import Batch, Cost, Method, Passes
from advtrain.noise import Noise
from advtrain.params.quantities import Count, StepSize
from advtrain.params.quantities import step_size as resolve
from advtrain.threat import ThreatModel


@dataclass(frozen=True)
class PgdAt(Method):
    """Train on the worst image that projected gradient descent finds (Madry et al. 2018, eq. 2.1).

        min_w E[ max_{delta in S} CE(f_w(x + delta), y) ]
        x_{t+1} = project(x_t + step_size * sign grad_x CE(f_w(x_t), y))        (sec. 2.1)

    `steps: 7` with the same step size is what the paper's CIFAR-10 network was trained with;
    the 10 of the published configuration are the default.

    Departs from the official code: crafting uses the batch's BatchNorm statistics, as there, but
    leaves the running averages alone, which there move with every attack step.

    Args:
        steps: of the ascent.
        step_size: of each step (2 at epsilon 8, of 255).
        random_start: start from a uniform draw of the ball, else from the clean image.
        crafting: mode of the model while it is attacked.
    """

    steps: Count = 10
    step_size: StepSize = "epsilon/4"
    random_start: bool = True
    crafting: Mode = "train"

    def perturb(self, model: nn.Module, batch: Batch, threat: ThreatModel, noise: Noise) -> Tensor:
        """Solve the inner maximisation by `steps` steps of ascent; the final iterate."""
        start = threat.random_start(batch.x, noise) if self.random_start else batch.x
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

    def cost(self) -> Cost:
        """One pair of passes per attack step, one for the weights."""
        return Cost(crafting=Passes(self.steps, self.steps), loss=Passes(1, 1))
