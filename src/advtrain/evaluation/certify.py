"""A model under one certificate, example by example: what is proved of each prediction."""

import inspect
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from advtrain.attacks.attack import NO_PREDICTION
from advtrain.certificates.certificate import Certificate, Certified
from advtrain.data.store import Split
from advtrain.evaluation.rows import name_of, rows_of
from advtrain.noise import Noise
from advtrain.threat import ThreatModel

COLUMNS = {
    "example": np.int64,
    "label": np.int16,
    "prediction": np.int16,
    "radius": np.float64,
    "forward": np.int32,
    "backward": np.int32,
}


def certify(
    model: nn.Module,
    certificate: Certificate,
    threat: ThreatModel | None,
    split: Split,
    seed: int,
    device: torch.device,
    batch_size: int,
    on_batch: Callable[[int], None] | None = None,
) -> dict[str, npt.NDArray[np.generic]]:
    """One row per example: the prediction, how far it is proved to stay, and at what cost.

    The model is in eval mode throughout and is left as it was found. An example's row does not
    depend on the batch it was in, as far as torch computes the same logits in another batch: see
    `evaluate`, which says when it does not.

    Args:
        model: maps (N, C, H, W) in [0, 1] to (N, K) logits, on `device`.
        certificate: bound to its parameters.
        threat: the budget, for a certificate that is proved at one; None for the others.
        split: the examples.
        seed: of the certificate's noise.
        device: where the model is.
        batch_size: examples per batch.
        on_batch: called after every batch with the number of examples done so far.

    Returns:
        The columns, in the order of the split: `example` (int64 id); `label` and `prediction`
        (int16; -1 where the certificate abstains or a logit is not finite, which no label is);
        `radius` (float64, in pixel units and the certificate's norm, 0 where nothing is proved);
        `forward` and `backward` (int32 passes that were spent).

    Raises:
        ValueError: if a certificate gets a budget that it does not take, or none that it needs; or
            if it returns something that is no radius.
    """
    name = name_of(certificate)
    takes_threat = "threat" in inspect.signature(certificate).parameters
    if takes_threat and threat is None:
        raise ValueError(f"{name} certifies at a budget and needs a threat model, got None")
    if threat is not None and not takes_threat:
        raise ValueError(
            f"{name} finds a radius without a budget, got {threat.norm} {threat.epsilon:g}; "
            "expected no threat model"
        )
    budget = () if threat is None else (threat,)

    def certified(batch: Split) -> dict[str, Tensor]:
        x = batch.images.float().div_(255)
        found = certificate(model, x, batch.labels, *budget, Noise(seed, batch.example))
        _check(name, found)
        return dict(zip(COLUMNS, (batch.example, batch.labels, *found), strict=True))

    return rows_of(model, split, COLUMNS, certified, device, batch_size, on_batch)


def _check(name: str, found: Certified) -> None:
    # Stated so that a NaN, of which no comparison holds, is refused.
    if not ((found.radius >= 0) & found.radius.isfinite()).all():
        raise ValueError(f"{name} returned a radius that is not a finite number, 0 or more")
    if (found.radius[found.prediction == NO_PREDICTION] > 0).any():
        raise ValueError(f"{name} returned a radius for an example that it makes no prediction of")
