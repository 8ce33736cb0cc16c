"""Friendly adversarial training: Zhang et al. 2020, "Attacks which do not kill training ..."."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from advtrain.attacks.ascent import ascend
from advtrain.attacks.attack import predictions
from advtrain.attacks.frozen import Mode, crafting
from advtrain.attacks.objectives import cross_entropy
from advtrain.methods.method import Batch, Cost, Method, Passes
from advtrain.noise import Noise
from advtrain.params.quantities import Count, Shares, StepSize, Whole
from advtrain.params.quantities import step_size as resolve
from advtrain.threat import ThreatModel


@dataclass
class Fat(Method):
    """Train on the least adversarial image among those misclassified (Zhang et al. 2020, alg. 1).

        x_0 ~ Uniform(ball); at t = 0 .. steps - 1:
            if f_w(x_t) errs: stop if tau = 0, else tau = tau - 1
            x_{t+1} = project(x_t + step_size * sign grad_x CE(f_w(x_t), y))
        descend CE at the last image

    Each example counts down a tau of its own, from a value that grows by one at each milestone.
    With tau = steps nothing stops, and it is PGD-AT. An example that has stopped is not forwarded
    again, which makes the method cheap; the forward and backward pass that told so are counted.

    Departs from the official code: no normal noise (.001 there) is added at every step.

    Args:
        steps: K, the most that an example takes.
        step_size: of each step (.007 at epsilon .031 in the official code).
        tau: how many steps an example takes from misclassified images, at first.
        tau_milestones: shares of the training after which tau is one more (epochs 50 and 90 of the
            paper's 120).
        crafting: mode of the model while it is attacked; in train mode the statistics are those of
            the examples that have not stopped.
    """

    uneven = True

    steps: Count = 10
    step_size: StepSize = "epsilon/4"
    tau: Whole = 0
    tau_milestones: Shares = (0.416666, 0.75)
    crafting: Mode = "eval"
    spent: float | None = field(init=False, default=None, repr=False, compare=False)

    def perturb(self, model: nn.Module, batch: Batch, threat: ThreatModel, noise: Noise) -> Tensor:
        """Ascend the cross-entropy, each example until it has been wrong for long enough."""
        tau = self.tau + sum(batch.progress >= milestone for milestone in self.tau_milestones)
        x_adv, spent = threat.random_start(batch.x, noise), 0
        rows = torch.arange(len(batch.x), device=batch.x.device)
        left = torch.full_like(rows, tau)
        with crafting(model, self.crafting):
            for _ in range(self.steps):
                moved, wrong = self._step(model, batch, x_adv, rows, threat)
                spent += len(rows)
                going = ~wrong | (left > 0)
                rows, left = rows[going], (left - wrong.long())[going]
                if len(rows) == 0:
                    break
                x_adv[rows] = moved[going]
        self.spent = spent / len(batch.x)
        return x_adv

    def _step(
        self, model: nn.Module, batch: Batch, x_adv: Tensor, rows: Tensor, threat: ThreatModel
    ) -> tuple[Tensor, Tensor]:
        """Step once from some rows of x_adv: the next images, and which of these are wrong now."""
        y = batch.y[rows]
        wrong: list[Tensor] = []

        def objective(logits: Tensor) -> Tensor:
            # The step's own forward pass tells who is misclassified: no other one is spent.
            wrong.append(predictions(logits.detach()) != y)
            return cross_entropy(logits, y)

        moved = ascend(
            model,
            batch.x[rows],
            x_adv[rows],
            objective,
            threat,
            steps=1,
            step_size=resolve(self.step_size, threat.epsilon),
        )
        return moved, wrong[0]

    def cost(self) -> Cost:
        """The mean steps of the last minibatch, at most `steps`, and a pair for the weights."""
        spent = self.steps if self.spent is None else self.spent
        return Cost(crafting=Passes(spent, spent), loss=Passes(1, 1))
