"""Mixed FGSM training: Kurakin, Goodfellow and Bengio 2017, "Adversarial ML at scale"."""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from advtrain.attacks.ascent import ascend
from advtrain.attacks.frozen import Mode, crafting
from advtrain.attacks.objectives import cross_entropy
from advtrain.methods.method import Batch, Cost, Method, Passes
from advtrain.noise import Noise
from advtrain.params.quantities import Share, StepSize
from advtrain.params.quantities import step_size as resolve
from advtrain.threat import ThreatModel


@dataclass(frozen=True)
class FgsmMixed(Method):
    """Replace part of each minibatch by its FGSM images (Kurakin et al. 2017, algorithm 1).

        x_adv = x + epsilon * sign grad_x CE(f_w(x), y)        (Goodfellow et al. 2015, sec. 4)
        descend the mean CE over the clean and the replaced images

    The batch is shuffled already, so the first ones stay clean, and in expectation the loss is
    Goodfellow's alpha CE(x) + (1 - alpha) CE(x_adv) with alpha = clean_fraction. One step from the
    clean image is known to overfit catastrophically at large budgets; that is a result, and the
    history shows it.

    Departs from Kurakin et al.: clean and replaced images weigh the same, and epsilon is the
    threat's for every image.

    Args:
        clean_fraction: share of each minibatch that stays clean.
        step_size: of the one step.
        crafting: mode of the model while it is attacked.
    """

    by_place = True

    clean_fraction: Share = 0.5
    step_size: StepSize = "epsilon"
    crafting: Mode = "train"

    def perturb(self, model: nn.Module, batch: Batch, threat: ThreatModel, noise: Noise) -> Tensor:
        """Step once from the clean image for the last images of the batch."""
        clean = round(self.clean_fraction * len(batch.x))
        if clean == len(batch.x):
            return batch.x
        with crafting(model, self.crafting):
            x_adv = ascend(
                model,
                batch.x[clean:],
                batch.x[clean:],
                partial(cross_entropy, y=batch.y[clean:]),
                threat,
                steps=1,
                step_size=resolve(self.step_size, threat.epsilon),
            )
        return torch.cat([batch.x[:clean], x_adv])

    def cost(self) -> Cost:
        """One pair of passes for each image that is replaced, one for the weights."""
        share = 1 - self.clean_fraction
        return Cost(crafting=Passes(share, share), loss=Passes(1, 1))
