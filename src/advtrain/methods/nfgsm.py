"""N-FGSM: de Jorge et al. 2022, "Make some noise: reliable and efficient single-step ..."."""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from torch import Tensor, nn

from advtrain.attacks.ascent import ascend
from advtrain.attacks.frozen import Mode, crafting
from advtrain.attacks.objectives import cross_entropy
from advtrain.methods.method import Batch, Cost, Method, Passes
from advtrain.noise import Noise
from advtrain.params.quantities import NonNegative, StepSize
from advtrain.params.quantities import step_size as resolve
from advtrain.threat import ThreatModel


@dataclass(frozen=True)
class Nfgsm(Method):
    """Augment the image with strong noise, step once from there and do not clip (de Jorge 2022).

        eta ~ Uniform(-k epsilon, k epsilon)
        x_adv = x + eta + step_size * sign grad CE(f_w(x + eta), y)
        descend CE(f_w(x_adv), y)

    Both x + eta and x_adv are clamped to [0, 1] and to nothing else: a pixel moves by up to
    k epsilon + step_size, which is outside the budget and is the method's point. Without noise it
    is FGSM from the clean image. The official scripts give k = 2 to every run but two, which are at
    the largest budgets of their data sets and have 3 and 4.

    Departs from the official code: the noise is uniform in pixel units for every channel, crafting
    leaves BatchNorm's running averages alone, and the budget does not grow over the first epochs,
    as it does there for SVHN.

    Args:
        noise_scale: k, of the noise relative to the budget.
        step_size: of the one step.
        crafting: mode of the model while it is attacked.
    """

    within_budget: ClassVar[bool] = False
    norms: ClassVar[tuple[str, ...]] = ("linf",)

    noise_scale: NonNegative = 2.0
    step_size: StepSize = "epsilon"
    crafting: Mode = "train"

    def perturb(self, model: nn.Module, batch: Batch, threat: ThreatModel, noise: Noise) -> Tensor:
        """Step once from the noisy image.

        Raises:
            ValueError: for a norm other than linf.
        """
        if threat.norm != "linf":
            raise ValueError(
                f"nfgsm: its noise and its step are made for linf budgets, got {threat.norm}; "
                "train with pgd_at or fgsm_rs instead"
            )
        eta = noise.uniform(tuple(batch.x.shape[1:])).mul_(2).sub_(1)
        start = (batch.x + eta.mul_(self.noise_scale * threat.epsilon)).clamp_(0, 1)
        step_size = resolve(self.step_size, threat.epsilon)
        # The ball of the step around the noisy image: the projection cuts to [0, 1] alone.
        reach = ThreatModel("linf", min(step_size, 1.0))
        with crafting(model, self.crafting):
            return ascend(
                model,
                start,
                start,
                partial(cross_entropy, y=batch.y),
                reach,
                steps=1,
                step_size=reach.epsilon,
            )

    def cost(self) -> Cost:
        """One pair of passes for the image, one for the weights."""
        return Cost(crafting=Passes(1, 1), loss=Passes(1, 1))
