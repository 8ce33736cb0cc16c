"""Projected gradient descent on Carlini and Wagner's margin."""

from functools import partial

from torch import Tensor, nn

from advtrain.attacks.attack import Attacked, check_norm
from advtrain.attacks.judged_ascent import Iterate, restarted_ascent
from advtrain.attacks.objectives import margin
from advtrain.noise import Noise
from advtrain.params import quantities
from advtrain.params.quantities import Count, NonNegative, StepSize, Whole
from advtrain.threat import ThreatModel

NORMS = ("linf", "l2")


def cw(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    noise: Noise,
    *,
    kappa: NonNegative = 0.0,
    steps: Count = 20,
    step_size: StepSize = "epsilon/4",
    restarts: Count = 1,
    random_start: bool = True,
    iterate: Iterate = "final",
    targets: Whole = 0,
) -> Attacked:
    """PGD on the margin of Carlini and Wagner 2017 (f_6): raise min(max_{i != y} z_i - z_y, kappa).

    The attacker stops gaining once a wrong class wins by kappa. Published "CW" numbers differ in
    kappa. With m = z_y - max_{i != y} z_i, Madry's challenge and FAT raise -relu(m + 50), which is
    this value at kappa = 50 less the constant 50; Free-AT raises -relu(m), kappa = 0. The bag of
    tricks does not clamp, a kappa that no logits reach. It is not Carlini and Wagner's own
    optimisation over a change of variables, whichever the norm.

    Args:
        model: maps (N, C, H, W) in [0, 1] to (N, K) logits, K >= 2.
        x: (N, C, H, W) in [0, 1].
        y: (N,) int64 labels.
        threat: the norm (linf or l2) and epsilon.
        noise: for these N examples; the random starts.
        kappa: in units of the logits.
        steps: gradient steps of one run.
        step_size: pixel units, or relative to epsilon; epsilon/4 is 2/255 at 8/255.
        restarts: starts per example and target; those already fooled are dropped.
        random_start: uniform in the ball; otherwise the clean image.
        iterate: which one is judged: final, best (the largest objective), or any (the first that is
            misclassified, else best).
        targets: 0 raises the margin of the best wrong class. n takes in turn the n wrong classes t
            that are the most likely at the clean image, fewer if there are fewer, and raises
            min(z_t - z_y, kappa).

    Returns:
        The perturbed images and the objective there; the passes of `pgd`.

    Raises:
        ValueError: for another norm, a model of one class, or several restarts without a random
            start.
    """
    check_norm("cw", threat, NORMS)

    def targeted(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
        gap = logits.gather(1, target[:, None]) - logits.gather(1, y[:, None])
        return gap.squeeze(1).clamp(max=kappa)

    return restarted_ascent(
        model,
        x,
        y,
        threat,
        noise,
        partial(margin, kappa=kappa),
        steps=steps,
        step_size=quantities.step_size(step_size, threat.epsilon),
        restarts=restarts,
        random_start=random_start,
        iterate=iterate,
        targets=targets,
        targeted=targeted,
    )
