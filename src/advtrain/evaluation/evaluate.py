"""A model under one attack, example by example; the rows that every table is computed from."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from advtrain.attacks.attack import Attack, Attacked, predictions
from advtrain.attacks.objectives import cross_entropy
from advtrain.data.store import Split
from advtrain.evaluation.rows import name_of, rows_of
from advtrain.noise import Noise
from advtrain.threat import ThreatModel

COLUMNS = {
    "example": np.int64,
    "label": np.int16,
    "clean_prediction": np.int16,
    "adversarial_prediction": np.int16,
    "distance": np.float32,
    "objective": np.float32,
    "forward": np.int32,
    "backward": np.int32,
}

# What rounding alone can add to a distance within the budget: in proportion, from float32 sums,
# and absolutely, from storing x + delta for a pixel near 1.
RELATIVE_ROUNDING, PIXEL_ROUNDING = 1e-6, 2.0**-23


def evaluate(
    model: nn.Module,
    attack: Attack | None,
    threat: ThreatModel | None,
    split: Split,
    seed: int,
    device: torch.device,
    batch_size: int,
    on_batch: Callable[[int], None] | None = None,
) -> dict[str, npt.NDArray[np.generic]]:
    """One row per example: what the model says of it, clean and attacked, and at what cost.

    The model is in eval mode throughout and is left as it was found. Both predictions come from
    forward passes of their own on float32 images, not from what the attack reports, and what the
    attack returns is checked to be in the threat set.

    An example's row does not depend on the batch it was in: its noise is keyed by (seed, example),
    and a batch of fewer than `SMALLEST_BATCH` rows is filled by repeating some, because there
    torch's CPU kernels take other paths. Beyond that torch promises no equal bits across batch
    sizes (cuDNN may choose another algorithm for another shape): objectives can then differ in
    their last digits, and a prediction can where two logits are as close as that. For equal bytes
    on a GPU keep the batch size.

    Args:
        model: maps (N, C, H, W) in [0, 1] to (N, K) logits, on `device`.
        attack: bound to its parameters; None for the clean images, where the adversarial
            prediction is the clean one, the objective the cross-entropy and the cost nothing.
        threat: the norm and epsilon; None only without an attack.
        split: the examples.
        seed: of the attack's noise.
        device: where the model is.
        batch_size: examples per batch.
        on_batch: called after every batch with the number of examples done so far.

    Returns:
        The columns, in the order of the split: `example` (int64 id); `label`, `clean_prediction`
        and `adversarial_prediction` (int16; -1 where a logit is not finite, which no label is);
        `distance` in the threat's norm and `objective` reached (float32); `forward` and `backward`
        (int32 passes that the attack spent).

    Raises:
        ValueError: if the attack returns an image that the threat model does not allow, naming the
            attack and the example; or if there is an attack and no threat model.
    """
    if attack is not None and threat is None:
        raise ValueError(f"{name_of(attack)} needs a threat model, got None")
    return rows_of(
        model,
        split,
        COLUMNS,
        lambda batch: _outcomes(model, attack, threat, batch, seed),
        device,
        batch_size,
        on_batch,
    )


def _outcomes(
    model: nn.Module, attack: Attack | None, threat: ThreatModel | None, batch: Split, seed: int
) -> dict[str, Tensor]:
    x, y = batch.images.float().div_(255), batch.labels
    clean = model(x)
    if attack is None or threat is None:
        nothing = torch.zeros_like(y)
        found, logits = Attacked(x, cross_entropy(clean, y), nothing, nothing), clean
        distance = torch.zeros(len(y), device=x.device)
    else:
        found = attack(model, x, y, threat, Noise(seed, batch.example))
        distance = _checked_distance(name_of(attack), found.x_adv, x, threat, batch.example)
        logits = model(found.x_adv)
    return {
        "example": batch.example,
        "label": y,
        "clean_prediction": predictions(clean),
        "adversarial_prediction": predictions(logits),
        "distance": distance,
        "objective": found.objective,
        "forward": found.forwards,
        "backward": found.backwards,
    }


def _checked_distance(
    attack: str, x_adv: Tensor, x: Tensor, threat: ThreatModel, example: Tensor
) -> Tensor:
    if x_adv.shape != x.shape or x_adv.dtype != x.dtype:
        raise ValueError(
            f"{attack} returned {x_adv.dtype} {tuple(x_adv.shape)}, "
            f"expected images like its input, {x.dtype} {tuple(x.shape)}"
        )
    # Stated so that a NaN, of which no comparison holds, is outside.
    outside = ~((x_adv >= 0) & (x_adv <= 1)).flatten(1).all(1)
    if outside.any():
        raise ValueError(
            f"{attack} left the pixel range [0, 1] on example {int(example[outside][0])}; "
            "does it end with threat.project?"
        )
    distance = threat.distance(x_adv, x)
    allowed = threat.epsilon * (1 + RELATIVE_ROUNDING) + PIXEL_ROUNDING
    outside = distance > allowed
    if outside.any():
        raise ValueError(
            f"{attack} left the {threat.norm} ball on example {int(example[outside][0])}: "
            f"distance {float(distance[outside][0]):g}, epsilon {threat.epsilon:g}; "
            "does it end with threat.project?"
        )
    return distance
