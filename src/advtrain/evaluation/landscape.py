"""The loss around a few images: what lies along its gradient, and across it."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from advtrain.attacks.attack import predictions
from advtrain.attacks.frozen import crafting
from advtrain.attacks.objectives import cross_entropy
from advtrain.attacks.restarts import SMALLEST_BATCH
from advtrain.data.store import Split
from advtrain.evaluation.probe import input_gradient
from advtrain.evaluation.rows import Columns, batches, images_of
from advtrain.noise import Noise
from advtrain.threat import ThreatModel
from advtrain.training.precision import computing

SIDE = 21
"""Points of the grid in each direction; odd, so that the image is one of them. Those of a line are
evaluated in one batch, which is larger than `SMALLEST_BATCH`."""

REACH = 2.0
"""How far the grid goes to each side, in budgets."""

ACROSS = 0
"""Seed of the random directions: an example has one, whatever model is looked at."""


def landscapes(
    model: nn.Module, split: Split, threat: ThreatModel, device: torch.device
) -> Columns:
    """Cross-entropy at x + epsilon (a g + b r) on a grid, as Shafahi et al. (2019) show it.

    g is the perturbation of unit norm along which the loss grows fastest at x (for linf the sign of
    its gradient), r a random one of unit norm (for linf of signs). The grid leaves the box [0, 1]:
    what is shown is the function, not what an attacker may do. The model is in eval mode and left
    as it was found.

    Args:
        model: maps (N, C, H, W) to (N, K) logits, on `device`.
        split: the examples.
        threat: the norm, and the epsilon that is the unit of the grid.
        device: where the model is.

    Returns:
        `example`, `label` and `prediction` (N,); `gradient` (N, C, H, W), of the cross-entropy at
        the image, 0 where the output does not depend on it; `loss` (N, SIDE, SIDE), in rows of
        equal b, both from -REACH to REACH. They depend on no batch size.
    """
    steps = torch.arange(SIDE, device=device) - SIDE // 2
    offsets = steps.mul(threat.epsilon * REACH / (SIDE // 2)).view(-1, 1, 1, 1)
    shape = tuple(split.images.shape)
    prediction = np.empty(shape[0], np.int16)
    gradients = np.empty(shape, np.float32)
    losses = np.empty((shape[0], SIDE, SIDE), np.float32)
    everything = torch.arange(shape[0])
    with crafting(model), computing("float32"):
        for rows, batch in batches(split, everything, device, SMALLEST_BATCH):
            x, y = images_of(batch), batch.labels
            logits, gradient = input_gradient(model, x, y, cross_entropy)
            gradient = gradient.view_as(x)
            drawn = Noise(ACROSS, batch.example).normal(shape[1:])
            along, across = threat.steepest(gradient), threat.steepest(drawn)
            prediction[rows.numpy()] = predictions(logits)[: len(rows)].cpu().numpy()
            gradients[rows.numpy()] = gradient[: len(rows)].cpu().numpy()
            for place, row in enumerate(rows.tolist()):
                line = x[place] + offsets * along[place]
                losses[row] = _losses(model, line, offsets * across[place], y[place])
    return {
        "example": split.example.numpy(),
        "label": split.labels.numpy().astype(np.int16),
        "prediction": prediction,
        "gradient": gradients,
        "loss": losses,
    }


def _losses(model: nn.Module, line: Tensor, shifts: Tensor, label: Tensor) -> NDArray[np.float32]:
    """(SIDE, SIDE) the loss at each point of a line (SIDE, C, H, W), shifted by each of as many."""
    labels = label.expand(SIDE)
    found = []
    with torch.no_grad():
        for shift in shifts:
            points = (line + shift).contiguous(memory_format=torch.channels_last)
            found.append(cross_entropy(model(points), labels))
    losses: NDArray[np.float32] = torch.stack(found).cpu().numpy()
    return losses
