"""What every certificate is: a pure function from a batch to what it proves of each prediction.

    (model, x, y, threat, noise) -> Certified      proved at a budget
    (model, x, y, noise) -> Certified              an l2 radius for each example, without a budget

Its further parameters are keyword-only and are bound before the call. It evaluates the model in
eval mode and leaves it as it found it.
"""

import copy
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from advtrain.attacks.attack import NO_PREDICTION, predictions
from advtrain.attacks.frozen import crafting
from advtrain.attacks.objectives import margin
from advtrain.threat import ThreatModel


class Certified(NamedTuple):
    """What is proved of each example, and the passes that were spent on it.

    What is certified is that the prediction stays, right or wrong: an example counts as certified
    and correct where the prediction is its label.

    Attributes:
        prediction: (N,) int64; -1 where the certificate abstains or a logit is not finite.
        radius: (N,) float64, how far the image can be moved without another prediction, in pixel
            units and the certificate's norm; 0 where nothing is proved.
        forwards: (N,) int64, forward passes spent on the example, or their equivalents.
        backwards: (N,) int64, backward passes, or their equivalents.
    """

    prediction: Tensor
    radius: Tensor
    forwards: Tensor
    backwards: Tensor


Certificate = Callable[..., Certified]

WorstCase = Callable[[nn.Module, Tensor, Tensor], tuple[Tensor, Tensor]]
"""(network in eval mode, images (N, C, H, W), classes (N,)), in float64, -> upper bounds (N, K) on
z_k - z_y over the ball, and (N,) the backward passes that they took."""


def by_bounds(
    name: str, model: nn.Module, x: Tensor, threat: ThreatModel, worst_case: WorstCase
) -> Certified:
    """Certify the float32 prediction where no class can overtake it within the ball.

    The bounds are computed in float64 on the same weights, whatever the model's own precision is:
    see `bounds.interval` for what they do and do not guarantee.

    Args:
        name: of the certificate, for the error.
        model: images in [0, 1] -> logits (N, K).
        x: (N, C, H, W) in [0, 1].
        threat: an linf budget.
        worst_case: the bounds.

    Raises:
        ValueError: for a budget in another norm.
    """
    if threat.norm != "linf":
        raise ValueError(
            f"{name} certifies linf budgets, got {threat.norm} {threat.epsilon:g}; take the method "
            f"out of the certificate's list, or use smoothing, whose radius is in l2"
        )
    with crafting(model), torch.no_grad():
        prediction = predictions(model(x))
    made = prediction != NO_PREDICTION
    label = prediction.clamp(min=0)
    with torch.no_grad():
        network = copy.deepcopy(model).double().eval()
        worst, backwards = worst_case(network, x.double(), label)
    # A bound that is not finite proves nothing: no comparison holds of a NaN.
    verified = made & (margin(worst, label) < 0)
    return Certified(
        prediction=prediction,
        radius=verified.double() * threat.epsilon,
        # The prediction; centre and radius go through the network as two images would.
        forwards=torch.full_like(prediction, 3),
        backwards=backwards,
    )
