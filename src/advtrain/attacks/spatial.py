"""Rotations and translations: the worst of a grid, or of a number of random ones."""

import math
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advtrain.attacks.attack import Attacked, check_norm, predictions
from advtrain.attacks.frozen import crafting
from advtrain.attacks.objectives import cross_entropy
from advtrain.attacks.restarts import SMALLEST_BATCH, filled
from advtrain.noise import Noise
from advtrain.params.quantities import Count, NonNegative, Share, Whole
from advtrain.threat import Transformation

NORMS = ("spatial",)

# Transformations that an example goes through before it can be dropped. One at a time would ask
# the device for a verdict after every pass.
ROUND = 10


def spatial(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: Transformation,
    noise: Noise,
    *,
    degrees: NonNegative = 30.0,
    shift: Share = 0.1,
    tries: Whole = 0,
    angles: Count = 31,
    shifts: Count = 5,
) -> Attacked:
    """The worst rotation and translation (Engstrom et al. 2019, section 3.1 and eq. 2).

    "Exploring the landscape of spatial robustness": with `tries` = 0 the grid search, all
    combinations of evenly spaced angles, horizontal and vertical shifts (31 x 5 x 5 = 775);
    otherwise the worst of k, drawn uniformly and apart for each example. The identity is always
    among them. An example keeps the misclassified one of larger cross-entropy, or the one of
    larger cross-entropy if the model is right on all.

    Departs from the official code: the image is interpolated once for rotation and shift together,
    not once for each; the grid is searched from its far corners inwards, which fools most examples
    sooner; the shift is a share of the side, 3.2 pixels of 32 where the official limit is 3.

    Args:
        model: maps (N, C, H, W) in [0, 1] to (N, K) logits.
        x: (N, C, H, W) in [0, 1].
        y: (N,) int64 labels.
        threat: `Transformation("spatial")`.
        noise: for these N examples; the random transformations.
        degrees: the largest rotation about the centre, either way.
        shift: the largest translation as a share of the height and of the width, either way.
        tries: random transformations for each example; 0 for the grid.
        angles: of the grid, evenly spaced from -degrees to degrees; one is the angle 0.
        shifts: of the grid, in each direction, evenly spaced from -shift to shift.

    Returns:
        The transformed images (bilinear, zero outside the image) and the cross-entropy there; 1
        forward pass for the clean image and one for each transformation of the rounds of 10 that
        the example took part in. No backward pass.

    Raises:
        ValueError: for another threat.
    """
    check_norm("spatial", threat, NORMS)
    if tries > 0:
        share = noise.uniform((tries, 3)).double().mul_(2).sub_(1)
    else:
        share = _grid(angles if degrees else 1, shifts if shift else 1).to(x.device)
    limits = torch.tensor([degrees, shift, shift], dtype=torch.float64, device=x.device)
    transformations = (share * limits).expand(len(x), -1, -1)

    with crafting(model), torch.no_grad():
        logits = model(x)
        wrong = predictions(logits) != y
        spent = torch.ones_like(y)
        best = Attacked(x.clone(), cross_entropy(logits, y), spent, torch.zeros_like(y))
        for first in range(0, transformations.shape[1], ROUND):
            tried = transformations[:, first : first + ROUND]
            rows = (~wrong).nonzero().squeeze(1)
            if len(rows) == 0:
                break
            chosen, value, fooled = _worst(model, x, y, tried, rows)
            better = fooled | (value > best.objective[rows])
            moved = rows[better]
            best.x_adv[moved] = transformed(x[moved], tried[moved, chosen[better]])
            best.objective[moved] = value[better]
            best.forwards[rows] += tried.shape[1]
            wrong[rows] = fooled
    return best


def transformed(x: Tensor, transformation: Tensor) -> Tensor:
    """Rotate each image about its centre, then translate it (Engstrom et al. 2019, eq. 1).

    Args:
        x: (N, C, H, W) in [0, 1].
        transformation: (N, 3) float64: the angle in degrees, from the horizontal axis towards the
            vertical one, which points down; the shift to the right as a share of W; the shift
            downwards as a share of H.

    Returns:
        (N, C, H, W) in [0, 1], interpolated bilinearly, 0 where it is from outside the image.
    """
    height, width = x.shape[2:]
    angle, right, down = transformation.unbind(1)
    # By hand: affine_grid is a matrix product, which a GPU may round to TF32.
    sine, cosine, right, down = (
        part.to(x.dtype).view(-1, 1, 1)
        for part in (angle.deg2rad().sin(), angle.deg2rad().cos(), right, down)
    )
    # Where each pixel comes from, in half widths and half heights from the centre.
    u = _centres(width, x).view(1, 1, -1) - 2 * right
    v = _centres(height, x).view(1, -1, 1) - 2 * down
    from_u = cosine * u + sine * (height / width) * v
    from_v = cosine * v - sine * (width / height) * u
    sampled = F.grid_sample(
        x, torch.stack([from_u, from_v], 3), padding_mode="zeros", align_corners=False
    )
    return sampled.clamp_(0, 1)


def _worst(
    model: nn.Module, x: Tensor, y: Tensor, tried: Tensor, rows: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """For each of M rows which of its K transformations is the worst, its value and its verdict."""
    count = tried.shape[1]
    example = rows.repeat_interleave(count)
    which = torch.arange(count, device=x.device).repeat(len(rows))
    values, verdicts = [], []
    # Where few examples are left, several of their transformations make up a batch.
    for part in torch.split(torch.arange(len(example), device=x.device), len(x)):
        pairs = filled(part, min(SMALLEST_BATCH, len(x)))
        taken = example[pairs]
        logits = model(transformed(x[taken], tried[taken, which[pairs]]))[: len(part)]
        labels = y[taken[: len(part)]]
        values.append(cross_entropy(logits, labels))
        verdicts.append(predictions(logits) != labels)
    value, wrong = torch.cat(values).view(-1, count), torch.cat(verdicts).view(-1, count)
    fooled = wrong.any(1)
    chosen = value.masked_fill(fooled[:, None] & ~wrong, -math.inf).argmax(1)
    return chosen, value.gather(1, chosen[:, None]).squeeze(1), fooled


def _grid(angles: int, shifts: int) -> Tensor:
    """(K, 3) shares of the limits: every combination but the identity, the farthest first."""
    points = product(_levels(angles), _levels(shifts), _levels(shifts))
    others = sorted(filter(any, points), key=lambda point: -sum(map(abs, point)))
    return torch.tensor(others, dtype=torch.float64).view(-1, 3)


def _levels(count: int) -> list[float]:
    """Evenly spaced from -1 to 1, the middle one exactly 0; one level is 0."""
    return [0.0] if count == 1 else [2 * k / (count - 1) - 1 for k in range(count)]


def _centres(side: int, x: Tensor) -> Tensor:
    """The pixels' centres along a side, which runs from -1 to 1."""
    return (torch.arange(side, dtype=x.dtype, device=x.device) * 2 + 1) / side - 1
