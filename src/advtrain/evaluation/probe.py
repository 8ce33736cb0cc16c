"""What a model's gradients look like: the evidence that an attack by gradients can be trusted."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advtrain.attacks.attack import predictions
from advtrain.attacks.objectives import cross_entropy, margin
from advtrain.data.store import Split
from advtrain.evaluation.rows import Columns, images_of, rows_of
from advtrain.training.precision import computing

COLUMNS = {
    "example": np.int64,
    "label": np.int16,
    "prediction": np.int16,
    "loss": np.float32,
    "gradient": np.float32,
    "margin_gradient": np.float32,
    "zero_share": np.float32,
    "logit_change": np.float32,
    "gradient_cosine": np.float32,
    "probabilities": np.bool_,
}


def probe(
    model: nn.Module,
    split: Split,
    device: torch.device,
    batch_size: int,
    on_batch: Callable[[int], None] | None = None,
) -> Columns:
    """One row per example: the clean image's loss and input gradients, evaluated twice.

    Athalye, Carlini and Wagner (2018, section 3) name what hides a model's weakness from attacks by
    gradients: shattered, stochastic, vanishing gradients. The audits look for them in these rows.
    The model is in eval mode throughout and is left as it was found.

    Args:
        model: maps (N, C, H, W) in [0, 1] to (N, K) logits, on `device`.
        split: the examples.
        device: where the model is.
        batch_size: examples per batch.
        on_batch: called after every batch with the number of examples done so far.

    Returns:
        The columns of `COLUMNS`, in the order of the split; see `results.schema.PROBES`. Where the
        output does not depend on the input, the gradients are 0 and their cosine 1.
    """

    def probed(batch: Split) -> dict[str, Tensor]:
        x, y = images_of(batch), batch.labels
        logits, gradient = input_gradient(model, x, y, cross_entropy)
        again, repeated = input_gradient(model, x, y, cross_entropy)
        _, of_margin = input_gradient(model, x, y, margin)
        low, high = logits.amin(1) >= 0, logits.amax(1) <= 1
        return {
            "example": batch.example,
            "label": y,
            "prediction": predictions(logits),
            "loss": cross_entropy(logits, y),
            "gradient": gradient.norm(dim=1),
            "margin_gradient": of_margin.norm(dim=1),
            "zero_share": (gradient == 0).float().mean(1),
            "logit_change": (logits - again).abs().amax(1),
            "gradient_cosine": _cosine(gradient, repeated),
            "probabilities": low & high & ((logits.sum(1) - 1).abs() < 1e-4),
        }

    with computing("float32"):
        return rows_of(model, split, COLUMNS, probed, device, batch_size, on_batch)


def input_gradient(
    model: nn.Module, x: Tensor, y: Tensor, objective: Callable[[Tensor, Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Return the logits and the flat input gradients, 0 where there is no path to the input.

    Args:
        model: in the mode that it is to be looked at in.
        x: (N, C, H, W).
        y: (N,) labels.
        objective: logits (N, K) and labels to (N,) values.

    Returns:
        (N, K) and (N, C * H * W).
    """
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        logits = model(x)
        values = objective(logits, y).sum()
        if not values.requires_grad:
            return logits.detach(), torch.zeros_like(x).flatten(1)
        (gradient,) = torch.autograd.grad(values, x, allow_unused=True)
    gradient = torch.zeros_like(x) if gradient is None else gradient
    return logits.detach(), gradient.flatten(1)


def _cosine(one: Tensor, other: Tensor) -> Tensor:
    """Return the cosine of each pair; 1 of two zeros, and of what is equal to the last bit."""
    largest = one.abs().amax(1, keepdim=True).maximum(other.abs().amax(1, keepdim=True))
    scale = largest.clamp(min=torch.finfo(one.dtype).tiny)
    cosine = F.cosine_similarity(one.div(scale), other.div(scale), dim=1)
    return torch.where((one == other).all(1), torch.ones_like(cosine), cosine)
