"""GradAlign: Andriushchenko and Flammarion 2020, "Understanding and improving fast ..."."""

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advtrain.attacks.ascent import ascend
from advtrain.attacks.frozen import Mode, averages_kept, crafting
from advtrain.attacks.objectives import cross_entropy
from advtrain.methods.method import Batch, Cost, Method, Passes, Terms
from advtrain.noise import Noise
from advtrain.params.quantities import NonNegative, StepSize
from advtrain.params.quantities import step_size as resolve
from advtrain.threat import ThreatModel

# Stream of the points in the ball, beside whatever else draws at this weight step.
POINT = 1


@dataclass(frozen=True)
class Gradalign(Method):
    """Train on FGSM images and align the gradients inside the ball (Andriushchenko et al. 2020).

        eta ~ Uniform(S)
        x_adv = x + epsilon * sign grad_x l(x),    l(x) = CE(f_w(x), y)
        min_w E[ l(x_adv) + regularisation * (1 - cos(grad_x l(x), grad_x l(x + eta))) ]

    FGSM starts from the clean image. Both gradients are taken in the mode of the loss (train), the
    cosine is per example and averaged over the minibatch. An example without gradient at one of the
    two points (its squared length is below the smallest float) counts as cosine 0 and teaches
    nothing. With `hold_clean` the weights learn through the gradient at x + eta alone, as in the
    official code, whose authors saw no substantial difference. Their lambda is
    .02 * 10^(epsilon / 8) for epsilon in 255ths: .2 at 8, 2 at 16.

    Departs from the official code: x + eta is clamped to [0, 1], as is x_adv in both; an example
    without gradient leaves the mean there; the gradient at x is not taken over from FGSM but
    evaluated with the loss, so that both gradients are of the same weights; BatchNorm's running
    averages move with x_adv alone, there with x and x + eta too; and the step does not grow over
    the first epochs, as it does there for SVHN.

    Args:
        regularisation: lambda, the weight of the regulariser; 0 is FGSM training.
        hold_clean: whether grad_x l(x) is held fixed while the weights learn.
        step_size: of the one step.
        crafting: mode of the model while it is attacked.
    """

    second_order = True

    regularisation: NonNegative = 0.2
    hold_clean: bool = True
    step_size: StepSize = "epsilon"
    crafting: Mode = "train"

    def perturb(self, model: nn.Module, batch: Batch, threat: ThreatModel, noise: Noise) -> Tensor:
        """Step once from the clean image."""
        with crafting(model, self.crafting):
            return ascend(
                model,
                batch.x,
                batch.x,
                partial(cross_entropy, y=batch.y),
                threat,
                steps=1,
                step_size=resolve(self.step_size, threat.epsilon),
            )

    def loss(
        self, model: nn.Module, batch: Batch, x_adv: Tensor, threat: ThreatModel, noise: Noise
    ) -> Terms:
        """Evaluate the loss above, by a double backward pass through the network."""
        logits = model(x_adv)
        adversarial = F.cross_entropy(logits, batch.target)
        if self.regularisation == 0:
            return Terms(adversarial, logits, {})
        near = threat.random_start(batch.x, noise.fold_in(POINT))
        with averages_kept(model):
            clean = _input_gradient(model, batch.x, batch.y, learn=not self.hold_clean)
            aligned = _cosine(clean, _input_gradient(model, near, batch.y, learn=True))
        misalignment = (1 - aligned).mean()
        return Terms(
            adversarial + self.regularisation * misalignment,
            logits,
            {"adversarial": adversarial, "misalignment": misalignment},
        )

    def cost(self) -> Cost:
        """What passes the network's output: one pair of passes for FGSM, and for the weights.

        Three forward passes (x_adv, x, x + eta), a backward pass for each of the two gradients,
        and one at x_adv, at x + eta (the second-order one) and, unless held, at x for the weights.
        """
        if self.regularisation == 0:
            return Cost(crafting=Passes(1, 1), loss=Passes(1, 1))
        return Cost(crafting=Passes(1, 1), loss=Passes(3, 4 if self.hold_clean else 5))


def _input_gradient(model: nn.Module, x: Tensor, y: Tensor, *, learn: bool) -> Tensor:
    """(N, D), the gradient of each example's cross-entropy; with a graph if weights learn it."""
    x = x.detach().requires_grad_()
    # A sum, so that an example's gradient does not shrink with the batch.
    value = cross_entropy(model(x), y).sum()
    gradient: Tensor = torch.autograd.grad(value, x, create_graph=learn)[0]
    return gradient.flatten(1)


def _cosine(one: Tensor, other: Tensor) -> Tensor:
    """(N,) cosines; 0, with a gradient of 0, where a length is too small to be squared."""
    lengths = [torch.linalg.vector_norm(part, dim=1, keepdim=True) for part in (one, other)]
    smallest = torch.finfo(one.dtype).tiny ** 0.5
    defined = (lengths[0] > smallest) & (lengths[1] > smallest)
    # Selected before the division too: a gradient of 0 times an infinite one would be NaN.
    units = [
        part / length.where(defined, 1.0)
        for part, length in zip((one, other), lengths, strict=True)
    ]
    cosine: Tensor = (units[0] * units[1]).sum(1)
    return cosine.where(defined.squeeze(1), 0.0)
