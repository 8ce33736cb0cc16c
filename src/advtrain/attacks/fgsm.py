"""The fast gradient sign method: one full step from the clean image."""

from torch import Tensor, nn

from advtrain.attacks.attack import Attacked, check_norm
from advtrain.attacks.judged_ascent import restarted_ascent
from advtrain.attacks.objectives import cross_entropy
from advtrain.noise import Noise
from advtrain.params.quantities import Whole
from advtrain.threat import ThreatModel

NORMS = ("linf", "l2")


def fgsm(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    noise: Noise,
    *,
    targets: Whole = 0,
) -> Attacked:
    """One step of epsilon along the sign of the gradient (Goodfellow et al. 2015, section 4).

    x_adv = x + epsilon * sign(gradient of the cross-entropy at x), clamped to [0, 1].
    For l2 it is the fast gradient method: epsilon along the normalised gradient.

    Args:
        model: maps (N, C, H, W) in [0, 1] to (N, K) logits.
        x: (N, C, H, W) in [0, 1].
        y: (N,) int64 labels.
        threat: the norm (linf or l2) and epsilon.
        noise: not drawn from; the start is the clean image.
        targets: 0 raises the cross-entropy of the label. n takes a step towards each in turn of the
            n wrong classes that are the most likely at the clean image, fewer if there are fewer,
            and raises the logarithm of the target's probability (Kurakin et al. 2017, "Adversarial
            machine learning at scale", which takes the least likely one).

    Returns:
        The perturbed images and the objective there; 2 forward passes, 1 backward. With targets
        that much for each that the example withstands and for the first that it does not, and 1
        forward pass of the clean image, which is returned where it is misclassified.

    Raises:
        ValueError: for another norm.
    """
    check_norm("fgsm", threat, NORMS)
    return restarted_ascent(
        model,
        x,
        y,
        threat,
        noise,
        cross_entropy,
        steps=1,
        step_size=threat.epsilon,
        restarts=1,
        random_start=False,
        targets=targets,
    )
