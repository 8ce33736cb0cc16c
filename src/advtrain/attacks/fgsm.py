"""The fast gradient sign method: one full step from the clean image."""

from torch import Tensor, nn

from advtrain.attacks.attack import Attacked
from advtrain.attacks.objectives import cross_entropy
from advtrain.attacks.restarts import restarted_ascent
from advtrain.noise import Noise
from advtrain.threat import ThreatModel


def fgsm(model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, noise: Noise) -> Attacked:
    """One step of epsilon along the sign of the gradient (Goodfellow et al. 2015, section 4).

    x_adv = x + epsilon * sign(gradient of the cross-entropy at x), clamped to [0, 1].
    For l2 it is the fast gradient method: epsilon along the normalised gradient.

    Args:
        model: maps (N, C, H, W) in [0, 1] to (N, K) logits.
        x: (N, C, H, W) in [0, 1].
        y: (N,) int64 labels.
        threat: the norm and epsilon.
        noise: not drawn from; the start is the clean image.

    Returns:
        The perturbed images and the cross-entropy there; 2 forward passes, 1 backward.
    """
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
    )
