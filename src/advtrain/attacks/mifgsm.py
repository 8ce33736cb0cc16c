"""The iterated fast gradient sign method with momentum."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from advtrain.attacks.attack import Attacked, check_norm
from advtrain.attacks.judged_ascent import Iterate, restarted_ascent
from advtrain.attacks.objectives import cross_entropy
from advtrain.noise import Noise
from advtrain.params import quantities
from advtrain.params.quantities import Count, NonNegative, StepSize, Whole
from advtrain.threat import ThreatModel

NORMS = ("linf", "l2")


def mifgsm(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    noise: Noise,
    *,
    decay: NonNegative = 1.0,
    steps: Count = 10,
    step_size: StepSize = "epsilon/10",
    restarts: Count = 1,
    random_start: bool = False,
    iterate: Iterate = "final",
    targets: Whole = 0,
) -> Attacked:
    """Steps along a decaying sum of the gradients (Dong et al. 2018, "Boosting ...", section 3.1).

        g_{t+1} = decay * g_t + gradient / mean|gradient|                           (eq. 6)
        x_{t+1} = project(x_t + step_size * steepest(g_{t+1}))                      (eq. 7)

    For linf the steepest direction is the sign, for l2 g over its length (section 3.3). The sum
    carries an ascent past small maxima, so that its images transfer better to other models.

    Args:
        model: maps (N, C, H, W) in [0, 1] to (N, K) logits.
        x: (N, C, H, W) in [0, 1].
        y: (N,) int64 labels.
        threat: the norm (linf or l2) and epsilon.
        noise: for these N examples; the random starts.
        decay: of the sum at each step, the paper's mu; 0 leaves the last gradient alone.
        steps: gradient steps of one run.
        step_size: pixel units, or relative to epsilon; epsilon / steps in the paper.
        restarts: starts per example and target; those already fooled are dropped.
        random_start: uniform in the ball; otherwise the clean image.
        iterate: which one is judged: final, best (the largest cross-entropy), or any (the first
            that is misclassified, else best).
        targets: 0 raises the cross-entropy of the label. n takes in turn the n wrong classes that
            are the most likely at the clean image, fewer if there are fewer, and raises the
            logarithm of the target's probability.

    Returns:
        The perturbed images and the objective there; the passes of `pgd`.

    Raises:
        ValueError: for another norm, or several restarts without a random start.

    Departs from the paper: as in its code, the mean of |gradient| takes the place of the sum, a
    constant factor that no step depends on.
    """
    check_norm("mifgsm", threat, NORMS)
    return restarted_ascent(
        model,
        x,
        y,
        threat,
        noise,
        cross_entropy,
        steps=steps,
        step_size=quantities.step_size(step_size, threat.epsilon),
        restarts=restarts,
        random_start=random_start,
        iterate=iterate,
        targets=targets,
        direction=partial(Momentum, decay, threat.steepest),
    )


class Momentum:
    """The steepest direction of the sum of past gradients, each divided by its mean magnitude.

    Args:
        decay: of the sum, before each new gradient.
        steepest: (N, C, H, W) to the direction of unit norm.
        total: (N, C, H, W), the sum so far; none yet.
    """

    def __init__(
        self, decay: float, steepest: Callable[[Tensor], Tensor], total: Tensor | None = None
    ) -> None:
        self.decay, self.steepest, self.total = decay, steepest, total

    def __call__(self, gradient: Tensor) -> Tensor:
        """Add a gradient and return the direction, a new tensor."""
        magnitude = gradient.abs().flatten(1).mean(1).view(-1, *(1,) * (gradient.dim() - 1))
        normalised = gradient / magnitude.clamp_(min=torch.finfo(gradient.dtype).tiny)
        self.total = (
            normalised if self.total is None else self.total.mul_(self.decay).add_(normalised)
        )
        return self.steepest(self.total)

    def take(self, rows: Tensor) -> "Momentum":
        """The same for a subset of the batch."""
        total = None if self.total is None else self.total[rows]
        return Momentum(self.decay, self.steepest, total)
