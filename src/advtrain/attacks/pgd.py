"""Projected gradient descent on the cross-entropy."""

from torch import Tensor, nn

from advtrain.attacks.attack import Attacked
from advtrain.attacks.objectives import cross_entropy
from advtrain.attacks.restarts import restarted_ascent
from advtrain.noise import Noise
from advtrain.params import quantities
from advtrain.params.quantities import Count, StepSize
from advtrain.threat import ThreatModel


def pgd(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    noise: Noise,
    *,
    steps: Count = 20,
    step_size: StepSize = "epsilon/4",
    restarts: Count = 1,
    random_start: bool = True,
) -> Attacked:
    """Projected gradient descent on the negative cross-entropy (Madry et al. 2018, section 2.1).

    The final iterate counts, not the best one on the way; of several restarts an example keeps the
    one that is misclassified, then the one of larger cross-entropy.

    Args:
        model: maps (N, C, H, W) in [0, 1] to (N, K) logits.
        x: (N, C, H, W) in [0, 1].
        y: (N,) int64 labels.
        threat: the norm and epsilon.
        noise: for these N examples; the random starts.
        steps: gradient steps of one restart.
        step_size: pixel units, or relative to epsilon; epsilon/4 is 2/255 at 8/255.
        restarts: starts per example; those already fooled are dropped.
        random_start: uniform in the ball; otherwise the clean image.

    Returns:
        The perturbed images and the cross-entropy there; `steps` + 1 forward and `steps` backward
        passes for each restart that the example took part in.

    Raises:
        ValueError: for several restarts without a random start.
    """
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
    )
