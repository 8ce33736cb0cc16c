"""What every attack is: a pure function from a batch to what it found and what it spent.

    (model, x, y, threat, noise) -> Attacked

Its further parameters are keyword-only, have the paper's defaults and are bound before the call.
It crafts on the model in eval mode and leaves the model as it found it: mode, BatchNorm buffers,
`requires_grad` and `.grad`.
"""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor, nn

from advtrain.noise import Noise
from advtrain.threat import ThreatModel


class Attacked(NamedTuple):
    """What an attack found for each example, and the passes that it spent on it.

    Attributes:
        x_adv: (N, C, H, W) in the threat set.
        objective: (N,) the value of the attack's objective that x_adv reaches.
        forwards: (N,) int64, forward passes of the model spent on the example.
        backwards: (N,) int64, backward passes.
    """

    x_adv: Tensor
    objective: Tensor
    forwards: Tensor
    backwards: Tensor


Attack = Callable[[nn.Module, Tensor, Tensor, ThreatModel, Noise], Attacked]

# No class has this number, so an example whose logits are not finite counts as misclassified.
NO_PREDICTION = -1


def predictions(logits: Tensor) -> Tensor:
    """The predicted classes.

    Args:
        logits: (N, K).

    Returns:
        (N,) int64 in [0, K); `NO_PREDICTION` where a logit is not finite.
    """
    return logits.argmax(1).masked_fill_(~logits.isfinite().all(1), NO_PREDICTION)
