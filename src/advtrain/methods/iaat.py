"""Instance adaptive adversarial training: Balaji, Goldstein and Hoffman 2019."""

from dataclasses import dataclass, field

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
from advtrain.threat import PerExampleBall, ThreatModel

# Which random start: the attack that is trained on has that of PGD-AT.
TRAINED_ON, AT_PRESENT, GROWN = 0, 1, 2


@dataclass
class Iaat(Method):
    """Enforce a margin of its own around every training example (Balaji et al. 2019, alg. 1, 2).

        warm-up:    epsilon_i = epsilon if f_w(x_i) is right, else 0
        afterwards: new = epsilon_i + gamma   if PGD of radius epsilon_i + gamma does not fool f_w
                          epsilon_i           if PGD of radius epsilon_i does not
                          epsilon_i - gamma   else
                    new = max(new, 0) if f_w(x_i) is right, else 0
                    epsilon_i = beta * new + (1 - beta) * epsilon_i
        descend CE at the image that PGD of radius epsilon_i finds

    The radii begin at 0 and have no upper bound: the budget of the study is that of the warm-up,
    and the perturbed images leave it. PGD of radius r starts at random, with steps of
    max(2 r / steps, least_step).

    Departs from the official code: crafting uses the batch's BatchNorm statistics, as there, but
    leaves the running averages alone; an example that a minibatch holds twice keeps the smaller of
    its two new radii.

    Args:
        steps: of each of the three attacks.
        least_step: the shortest step (2 at epsilon 8, of 255).
        warmup: share of the training before the radii adapt (10 of the paper's 110 epochs).
        gamma: by how much a radius tries to grow (1.9 at epsilon 8, of 255).
        beta: share of the new radius in what is remembered.
        crafting: mode of the model while it is attacked and asked.
    """

    within_budget = False
    per_example = ("epsilon",)

    steps: Count = 10
    least_step: StepSize = "epsilon/4"
    warmup: Share = 0.090909
    gamma: StepSize = "0.2375*epsilon"
    beta: Share = 0.1
    crafting: Mode = "train"
    example: Tensor = field(init=False, repr=False, compare=False)
    epsilon: Tensor = field(init=False, repr=False, compare=False)
    selected: Tensor = field(init=False, repr=False, compare=False)
    adapting: bool = field(init=False, default=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.adapting = self.warmup <= 0
        self.start(torch.zeros(0, dtype=torch.int64))

    def start(self, examples: Tensor) -> None:
        """Remember a radius of 0 for every example."""
        self.example = torch.unique(examples)  # sorted
        self.epsilon = torch.zeros(len(self.example), device=examples.device)
        self.selected = self.epsilon[:0]

    def perturb(self, model: nn.Module, batch: Batch, threat: ThreatModel, noise: Noise) -> Tensor:
        """Select the radii of the minibatch, then attack with them; the final iterates."""
        self.adapting = batch.progress >= self.warmup
        with crafting(model, self.crafting):
            right = self._right(model, batch.x, batch)
            if self.adapting:
                epsilon = self._adapted(model, batch, right, threat, noise)
            else:
                epsilon = threat.epsilon * right.to(torch.float32)
            self.selected = epsilon
            return self._attack(model, batch, epsilon, threat, noise, TRAINED_ON)

    def after_step(
        self, batch: Batch, x_adv: Tensor, gradient: Tensor | None, threat: ThreatModel
    ) -> None:
        """Remember the radii that were selected for the minibatch."""
        rows = self._rows(batch)
        # A minimum does not depend on the order in which a device writes an example twice.
        self.epsilon = self.epsilon.scatter_reduce(
            0, rows, self.selected, "amin", include_self=False
        )

    def measures(self) -> dict[str, float]:
        """Return the mean radius."""
        return {"mean_epsilon": float(self.epsilon.mean())}

    def example_values(self) -> dict[str, Tensor]:
        """Return the radius of each example."""
        return self.state_dict()

    def cost(self) -> Cost:
        """The clean prediction and one attack; afterwards two more attacks and their verdicts."""
        attacks, verdicts = (3, 3) if self.adapting else (1, 1)
        steps = attacks * self.steps
        return Cost(crafting=Passes(steps + verdicts, steps), loss=Passes(1, 1))

    def state_dict(self) -> dict[str, Tensor]:
        """Return the examples, in ascending order, and their radii."""
        return {"example": self.example, "epsilon": self.epsilon}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from remembered radii; from 0 where there are none."""
        self.example = state.get("example", self.example)
        self.epsilon = state.get("epsilon", torch.zeros_like(self.epsilon))

    def _adapted(
        self, model: nn.Module, batch: Batch, right: Tensor, threat: ThreatModel, noise: Noise
    ) -> Tensor:
        """(N,) the radii that algorithm 2 selects."""
        present = self.epsilon[self._rows(batch)]
        gamma = resolve(self.gamma, threat.epsilon)
        grown = present + gamma
        withstood = self._attack(model, batch, present, threat, noise, AT_PRESENT)
        withstands = self._right(model, withstood, batch)
        could = self._attack(model, batch, grown, threat, noise, GROWN)
        could_grow = self._right(model, could, batch)
        new = torch.where(could_grow, grown, torch.where(withstands, present, present - gamma))
        new = new.clamp(min=0) * right
        return self.beta * new + (1 - self.beta) * present

    def _attack(
        self,
        model: nn.Module,
        batch: Batch,
        epsilon: Tensor,
        threat: ThreatModel,
        noise: Noise,
        start: int,
    ) -> Tensor:
        """PGD on the cross-entropy, each example within its own radius."""
        ball = PerExampleBall(threat.norm, epsilon)
        least = resolve(self.least_step, threat.epsilon)
        return ascend(
            model,
            batch.x,
            ball.random_start(batch.x, noise, start),
            lambda logits: cross_entropy(logits, batch.y),
            ball,
            steps=self.steps,
            step_size=(epsilon / (0.5 * self.steps)).clamp(min=least).view(-1, 1, 1, 1),
        )

    def _right(self, model: nn.Module, x: Tensor, batch: Batch) -> Tensor:
        """(N,) bool: whether the model classifies these images of the minibatch correctly."""
        with torch.no_grad():
            return predictions(model(x)) == batch.y

    def _rows(self, batch: Batch) -> Tensor:
        """(N,) positions of the minibatch's examples in the memory."""
        if len(self.example) == 0:
            raise ValueError("iaat: no example has a radius; call start() with all of them first")
        return torch.searchsorted(self.example, batch.example)
