"""Projected gradient descent on Carlini and Wagner's margin."""

from functools import partial

from torch import Tensor, nn

from advtrain.attacks.attack import Attacked
from advtrain.attacks.objectives import margin
from advtrain.attacks.restarts import restarted_ascent
from advtrain.noise import Noise
from advtrain.params import quantities
from advtrain.params.quantities import Count, NonNegative, StepSize
from advtrain.threat import ThreatModel


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
        threat: the norm and epsilon.
        noise: for these N examples; the random starts.
        kappa: in units of the logits.
        steps: gradient steps of one restart.
        step_size: pixel units, or relative to epsilon; epsilon/4 is 2/255 at 8/255.
        restarts: starts per example; those already fooled are dropped.
        random_start: uniform in the ball; otherwise the clean image.

    Returns:
        The perturbed images and the margin there; `steps` + 1 forward and `steps` backward passes
        for each restart that the example took part in.

    Raises:
        ValueError: for several restarts without a random start.
    """
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
    )
