"""Spatially transformed examples: every pixel is moved a little, by a smooth flow."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advtrain.attacks.attack import Attacked, check_norm, predictions
from advtrain.attacks.frozen import crafting
from advtrain.attacks.objectives import margin
from advtrain.attacks.restarts import SMALLEST_BATCH, filled
from advtrain.noise import Noise
from advtrain.params.quantities import Count, NonNegative, Positive
from advtrain.threat import Transformation

NORMS = ("spatial",)

# Kingma and Ba 2015: decay of the two moments, and what keeps the quotient finite.
BETAS, TINY = (0.9, 0.999), 1e-8
# Added below the roots of the variation, which has no gradient where the flow is constant.
SMOOTHING = 1e-12
# Steps between two looks at which examples are decided and can be dropped.
ROUND = 10


def flow(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: Transformation,
    noise: Noise,
    *,
    tau: NonNegative = 0.05,
    steps: Count = 100,
    learning_rate: Positive = 0.005,
    kappa: NonNegative = 0.0,
) -> Attacked:
    """Lower -min(margin, kappa) + tau * L_flow over the flow f (Xiao et al. 2018, eq. 2 to 4).

    "Spatially transformed adversarial examples": the pixel p of x_adv is x at p + f(p), bilinearly
    (eq. 1), the margin is max_{i != y} z_i - z_y, and L_flow, the sum over p and its four
    neighbours q of |f(p) - f(q)|, keeps the flow smooth. Nothing but L_flow bounds the flow. Any
    iterate counts; an example that is misclassified by kappa is dropped.

    Departs from the official description: untargeted, where the paper aims at a class; Adam in
    place of L-BFGS, whose line search would mix the examples of a batch; positions outside the
    image read its border.

    Args:
        model: maps (N, C, H, W) in [0, 1] to (N, K) logits, K >= 2.
        x: (N, C, H, W) in [0, 1].
        y: (N,) int64 labels.
        threat: `Transformation("spatial")`.
        noise: not drawn from; the start is the clean image.
        tau: the weight of L_flow, whose unit is a pixel.
        steps: of Adam.
        learning_rate: of Adam, in pixels; about the most that a pixel moves in one step.
        kappa: the margin at which the attacker stops, in units of the logits.

    Returns:
        The transformed images and min(margin, kappa) there; 1 forward pass for the clean image, a
        forward and a backward pass for each step of the rounds of 10 that the example took part
        in, and 1 forward pass for the last iterate of those that get there.

    Raises:
        ValueError: for another threat.
    """
    check_norm("flow", threat, NORMS)
    least = min(SMALLEST_BATCH, len(x))
    with crafting(model):
        logits = model(x)
        wrong, ones = predictions(logits) != y, torch.ones_like(y)
        best = Attacked(x.clone(), margin(logits, y, kappa), ones, torch.zeros_like(y))
        decided = wrong.clone()
        rows = (~decided).nonzero().squeeze(1)
        taken = filled(rows, least)
        images, labels = x[taken], y[taken]
        # The flow, in pixels to the right and downwards, and Adam's two moments.
        state = x.new_zeros(3, len(taken), 2, *x.shape[2:])
        for step in range(steps + 1):
            if step > 0 and step % ROUND == 0:
                kept = (~decided[rows]).nonzero().squeeze(1)
                rows, taken = rows[kept], filled(kept, least)
                images, labels, state = images[taken], labels[taken], state[:, taken]
            if len(rows) == 0:
                break
            with torch.enable_grad():
                moved = state[0].detach().clone().requires_grad_()
                x_adv = displaced(images, moved)
                logits = model(x_adv)
                value = margin(logits, labels, kappa)
                loss = tau * variation(moved) - value
                if step < steps:
                    (gradient,) = torch.autograd.grad(loss.sum(), moved)
                    _adam(state, gradient.nan_to_num(), step + 1, learning_rate)
                    best.backwards[rows] += 1
            best.forwards[rows] += 1
            count = len(rows)
            value, now = value.detach()[:count], (predictions(logits) != labels)[:count]
            before = wrong[rows]
            better = (now & ~before) | ((now == before) & (value > best.objective[rows]))
            # `where`, not a mask as an index: the device would be waited for at every step.
            best.x_adv[rows] = torch.where(
                better.view(-1, 1, 1, 1), x_adv.detach()[:count], best.x_adv[rows]
            )
            best.objective[rows] = torch.where(better, value, best.objective[rows])
            wrong[rows] = before | now
            # Not ">=": a margin that is not a number decides, too.
            decided = wrong & ~(best.objective < kappa)
    return best


def displaced(x: Tensor, moved: Tensor) -> Tensor:
    """Read each pixel p at p + f(p), bilinearly (Xiao et al. 2018, eq. 1).

    Args:
        x: (N, C, H, W) in [0, 1].
        moved: (N, 2, H, W), the flow f: to the right and downwards, in pixels.

    Returns:
        (N, C, H, W) in [0, 1].
    """
    height, width = x.shape[2:]
    across = torch.arange(width, dtype=x.dtype, device=x.device)
    down = torch.arange(height, dtype=x.dtype, device=x.device)[:, None]
    # grid_sample's positions run from -1 to 1 between the outer edges of the outer pixels.
    places = torch.stack(
        [(2 * (across + moved[:, 0]) + 1) / width - 1, (2 * (down + moved[:, 1]) + 1) / height - 1],
        dim=3,
    )
    sampled = F.grid_sample(x, places, padding_mode="border", align_corners=False)
    return sampled.clamp(0, 1)


def variation(moved: Tensor) -> Tensor:
    """The flow's total variation over the four neighbours (Xiao et al. 2018, eq. 4).

    Args:
        moved: (N, 2, H, W), the flow in pixels.

    Returns:
        (N,) values; every pair of neighbours counts twice, once for each of the two.
    """
    steps = (moved.diff(dim=2), moved.diff(dim=3))
    lengths = [step.square().sum(1).add(SMOOTHING).sqrt().flatten(1).sum(1) for step in steps]
    return 2 * (lengths[0] + lengths[1])


def _adam(state: Tensor, gradient: Tensor, step: int, learning_rate: float) -> None:
    """One step of Adam (Kingma and Ba 2015, algorithm 1), in place, each example by itself."""
    moved, mean, square = state
    mean.lerp_(gradient, 1 - BETAS[0])
    square.lerp_(gradient.square(), 1 - BETAS[1])
    first, second = mean / (1 - BETAS[0] ** step), square / (1 - BETAS[1] ** step)
    moved.sub_(first.div_(second.sqrt_().add_(TINY)).mul_(learning_rate))
