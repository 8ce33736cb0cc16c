"""What every attack is: a pure function from a batch to what it found and what it spent.

    (model, x, y, threat, noise) -> Attacked

Its further parameters are keyword-only, have the paper's defaults and are bound before the call.
It crafts on the model in eval mode and leaves the model as it found it: mode, BatchNorm buffers,
`requires_grad` and `.grad`.

A file whose attack knows other norms than linf and l2 says so: `NORMS = ("linf", "l2", "l1")`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor, nn

from advtrain.noise import Noise
from advtrain.threat import Ball


class Attacked(NamedTuple):
    """What an attack found for each example, and the passes that it spent on it.

    Attributes:
        x_adv: (N, C, H, W) in the threat set.
        objective: (N,) the value of the attack's objective that x_adv reaches.
        forwards: (N,) int64, forward passes of the model spent on the example.
        backwards: (N,) int64, backward passes.
        gain: (N,) by how much the objective rose from the first iterate to the last of the run that
            x_adv is from; None where an attack has no such iterates.
        late_gain: (N,) what of it came in the last quarter of the steps: much, if the attack had
            not converged.
    """

    x_adv: Tensor
    objective: Tensor
    forwards: Tensor
    backwards: Tensor
    gain: Tensor | None = None
    late_gain: Tensor | None = None


Attack = Callable[[nn.Module, Tensor, Tensor, Any, Noise], Attacked]
"""Its threat is a `ThreatModel`; of what transforms the image (spatial, corruption), a
`Transformation`."""

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


def check_norm(attack: str, threat: Ball, norms: tuple[str, ...]) -> None:
    """Refuse a threat model that an attack does not know.

    Raises:
        ValueError: naming the attack, the norm and what it knows.
    """
    if threat.norm not in norms:
        raise ValueError(f"{attack} knows the norms {', '.join(norms)}, got {threat.norm}")
