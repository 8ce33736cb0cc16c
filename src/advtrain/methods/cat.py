"""Curriculum adversarial training: Cai, Liu and Song 2018, "Curriculum adversarial training"."""

from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from advtrain.attacks.ascent import ascend
from advtrain.attacks.frozen import Mode, crafting
from advtrain.attacks.objectives import cross_entropy
from advtrain.methods.method import Batch, Cost, Method, Passes
from advtrain.noise import Noise
from advtrain.params.quantities import Count, Share, StepSize
from advtrain.params.quantities import step_size as resolve
from advtrain.threat import ThreatModel

# Below every accuracy: nothing was measured at this strength.
UNMEASURED = -1.0


@dataclass
class Cat(Method):
    """Train on attacks of growing strength, a lesson each (Cai et al. 2018, algorithm 2).

        for k = 0 .. steps:                     (a lesson)
            repeat an epoch on PGD(k)           (k steps from a random start; PGD(0) is the image)
            until the accuracy on the validation split has not grown for `patience` epochs

    Batch mixing, against forgetting: each minibatch is shared equally among PGD(0) .. PGD(k), the
    larger strengths first where it does not divide. Rows take the strengths in turn, so that a
    minibatch that is in some order mixes too. The last lesson lasts until the end.

    The accuracy of lesson 0 is the clean one, that of the others the robust one as the recipe
    measures it (the clean one where it measures none).

    Departs from the official code: a lesson starts from the last weights, as in algorithm 2, not
    from the best ones of the lesson before; validation is against the recipe's PGD, not PGD(k) on
    images quantised to 16 levels; the step size of a lesson is fixed, where there a factor between
    1 and 10/k is drawn for each attack; and k stops at `steps`.

    Args:
        steps: K, of the strongest attack.
        path: length of the steps of an attack together; each of k steps is path / k long.
        patience: epochs without a better validation accuracy that end a lesson.
        least_train_accuracy: that the training accuracy must be above for a lesson to end, as in
            the official code; algorithm 2 has no such condition (0 is nearest to it).
        mixing: whether minibatches are mixed, else all of it is attacked by PGD(k).
        crafting: mode of the model while it is attacked; in train mode each part of the minibatch
            has its own statistics, as in the official code.
    """

    by_place = True

    steps: Count = 7
    path: StepSize = "2*epsilon"
    patience: Count = 10
    least_train_accuracy: Share = 0.9
    mixing: bool = True
    crafting: Mode = "train"
    strength: int = field(init=False, default=0, repr=False, compare=False)
    best: float = field(init=False, default=UNMEASURED, repr=False, compare=False)
    waited: int = field(init=False, default=0, repr=False, compare=False)
    spent: float = field(init=False, default=0.0, repr=False, compare=False)

    def perturb(self, model: nn.Module, batch: Batch, threat: ThreatModel, noise: Noise) -> Tensor:
        """Attack each part of the minibatch with its own number of steps."""
        x_adv, spent = batch.x.clone(), 0
        everyone = torch.arange(len(batch.x), device=batch.x.device)
        # Strongest first: an odd row, or a minibatch of one, is not wasted on the clean image.
        strengths = range(self.strength, -1, -1) if self.mixing else (self.strength,)
        with crafting(model, self.crafting):
            for part, steps in enumerate(strengths):
                rows = everyone[part :: len(strengths)]
                if steps == 0 or len(rows) == 0:
                    continue
                x = batch.x[rows]
                x_adv[rows] = ascend(
                    model,
                    x,
                    threat.random_start(x, noise.take(rows)),
                    partial(cross_entropy, y=batch.y[rows]),
                    threat,
                    steps=steps,
                    step_size=resolve(self.path, threat.epsilon) / steps,
                )
                spent += steps * len(rows)
        self.spent = spent / len(batch.x)
        return x_adv

    def after_epoch(
        self,
        model: nn.Module,
        batch: Batch,
        row: dict[str, float],
        threat: ThreatModel,
        noise: Noise,
    ) -> str:
        """End the lesson if it has nothing more to teach.

        Raises:
            ValueError: if the lesson could end but no validation was made in all of it.
        """
        accuracy = row.get("validation_clean_accuracy")
        if self.strength > 0:
            accuracy = row.get("validation_robust_accuracy", accuracy)
        self.waited += 1
        if accuracy is not None and accuracy > self.best:
            self.best, self.waited = accuracy, 0
        elif self.waited >= self.patience and self.strength < self.steps:
            if self.best == UNMEASURED:
                raise ValueError(
                    f"cat: no validation accuracy in {self.waited} epochs at strength "
                    f"{self.strength}; the lessons end by it, so the data set needs a validation "
                    f"split, and validate_every at most the patience, which is {self.patience}"
                )
            if accuracy is not None and row["train_accuracy"] > self.least_train_accuracy:
                self.strength, self.best, self.waited = self.strength + 1, UNMEASURED, 0
        return ""

    def measures(self) -> dict[str, float]:
        """Return the strength of the lesson."""
        return {"strength": float(self.strength)}

    def cost(self) -> Cost:
        """The mean steps of the parts, a pair of passes each, and one pair for the weights."""
        return Cost(crafting=Passes(self.spent, self.spent), loss=Passes(1, 1))

    def state_dict(self) -> dict[str, Tensor]:
        """Return the lesson and how it goes."""
        return {
            "strength": torch.tensor(self.strength),
            "best": torch.tensor(self.best, dtype=torch.float64),
            "waited": torch.tensor(self.waited),
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue a lesson."""
        self.strength = int(state["strength"]) if "strength" in state else 0
        self.best = float(state["best"]) if "best" in state else UNMEASURED
        self.waited = int(state["waited"]) if "waited" in state else 0
