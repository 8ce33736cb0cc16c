"""Projected gradient descent on the cross-entropy."""

from torch import Tensor, nn

from advtrain.attacks.attack import Attacked, check_norm
from advtrain.attacks.judged_ascent import Iterate, restarted_ascent
from advtrain.attacks.objectives import cross_entropy
from advtrain.noise import Noise
from advtrain.params import quantities
from advtrain.params.quantities import Count, StepSize, Whole
from advtrain.threat import ThreatModel

NORMS = ("linf", "l2")


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
    iterate: Iterate = "final",
    targets: Whole = 0,
) -> Attacked:
    """Projected gradient descent on the negative cross-entropy (Madry et al. 2018, section 2.1).

    Of several runs an example keeps the one that is misclassified, then the one of larger
    objective. Published numbers differ in the iterate that is judged: Madry et al. and TRADES take
    the last, MadryLab's robustness package the one of the largest loss; Wong et al. 2020 and Rice
    et al. 2020 leave an example where it is first misclassified ("any").

    Args:
        model: maps (N, C, H, W) in [0, 1] to (N, K) logits.
        x: (N, C, H, W) in [0, 1].
        y: (N,) int64 labels.
        threat: the norm (linf or l2) and epsilon.
        noise: for these N examples; the random starts.
        steps: gradient steps of one run.
        step_size: pixel units, or relative to epsilon; epsilon/4 is 2/255 at 8/255.
        restarts: starts per example and target; those already fooled are dropped.
        random_start: uniform in the ball; otherwise the clean image.
        iterate: which one is judged: final, best (the largest objective), or any (the first that is
            misclassified, else best).
        targets: 0 raises the cross-entropy of the label. n takes in turn the n wrong classes that
            are the most likely at the clean image, fewer if there are fewer, and raises the
            logarithm of the target's probability.

    Returns:
        The perturbed images and the objective there; `steps` + 1 forward and `steps` backward
        passes for each run that the example took part in, fewer in a run with `iterate` "any" that
        fools it on the way; with targets 1 forward pass of the clean image, which is returned
        where it is misclassified.

    Raises:
        ValueError: for another norm, or several restarts without a random start.
    """
    check_norm("pgd", threat, NORMS)
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
    )
