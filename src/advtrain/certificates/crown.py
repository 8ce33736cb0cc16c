"""Certification by linear relaxation: Zhang et al. 2018 (CROWN)."""

from torch import Tensor, nn

from advtrain.bounds.crown import Intermediate, worst_case_logits
from advtrain.certificates.certificate import Certified, by_bounds
from advtrain.noise import Noise
from advtrain.threat import ThreatModel


def crown(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    noise: Noise,
    *,
    intermediate: Intermediate = "crown",
) -> Certified:
    """Certify a prediction if the linear bound of its margin is positive (Zhang et al. 2018).

        min_k (lower bound of z_prediction - z_k over the ball) > 0

    On a network that was trained by IBP it can prove a little less than intervals do; where
    intervals prove nothing it still can. The cost of `crown` grows with the neurons whose sign is
    open, up to two backward passes each, thousands for images of 28 x 28; that of `ibp` is one per
    class.

    Args:
        model: a network in a row of the layers that `bounds.interval` knows.
        x: (N, C, H, W) in [0, 1].
        y: not used: what is certified is the prediction.
        threat: an linf budget.
        noise: not used.
        intermediate: how the inputs of the ReLUs are bounded: `crown`, or `ibp` for the bounds of
            CROWN-IBP (Zhang et al. 2020).

    Returns:
        The radius is epsilon where the prediction is verified. A backward pass is one linear
        function substituted back, through the whole network or the part below its ReLU.

    Raises:
        ValueError: for another norm, or naming the layer that has no bounds.
    """

    def worst_case(network: nn.Module, x: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        return worst_case_logits(network, x, label, threat.epsilon, intermediate=intermediate)

    return by_bounds("crown", model, x, threat, worst_case)
