"""Certification by interval bound propagation: Gowal et al. 2019."""

import torch
from torch import Tensor, nn

from advtrain.bounds.interval import worst_case_logits
from advtrain.certificates.certificate import Certified, by_bounds
from advtrain.noise import Noise
from advtrain.threat import ThreatModel


def ibp(model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, noise: Noise) -> Certified:
    """Certify a prediction if its worst-case margin is positive (Gowal et al. 2019, sec. 3).

        max_k (upper bound of z_k - z_prediction over the ball) < 0

    It proves little of networks that were not trained for it.

    Args:
        model: a network in a row of the layers that `bounds.interval` knows.
        x: (N, C, H, W) in [0, 1].
        y: not used: what is certified is the prediction.
        threat: an linf budget.
        noise: not used.

    Returns:
        The radius is epsilon where the prediction is verified.

    Raises:
        ValueError: for another norm, or naming the layer that has no bounds.
    """

    def worst_case(network: nn.Module, x: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        return worst_case_logits(network, x, label, threat.epsilon), torch.zeros_like(label)

    return by_bounds("ibp", model, x, threat, worst_case)
