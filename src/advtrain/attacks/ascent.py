"""The one inner loop, of the attacks and of the training methods: projected steepest ascent."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from advtrain.attacks.frozen import frozen
from advtrain.threat import Ball

Watch = Callable[[int, Tensor, Tensor, Tensor], None]
"""(step, x_t (N, C, H, W), logits (N, K), values (N,)): an iterate before it is moved, no graph.

The iterate is moved in place afterwards: what is to be kept of it has to be copied.
"""


def ascend(
    model: nn.Module,
    x: Tensor,
    start: Tensor,
    objective: Callable[[Tensor], Tensor],
    threat: Ball,
    *,
    steps: int,
    step_size: float | Tensor,
    direction: Callable[[Tensor], Tensor] | None = None,
    watch: Watch | None = None,
) -> Tensor:
    """Projected gradient descent on the negative objective (Madry et al. 2018, section 2.1).

    x_{t+1} = project(x_t + step_size * steepest(gradient of the objective at x_t)). It spends one
    forward and one backward pass per step and example, draws no random number and never waits for
    the device.

    The mode of the model is the caller's (`frozen.crafting`); the weights are frozen here.

    Args:
        model: maps (N, C, H, W) in [0, 1] to (N, K) logits.
        x: (N, C, H, W) in [0, 1], the centre of the ball.
        start: (N, C, H, W), the first iterate; not changed.
        objective: (N, K) logits to (N,) values; one for each row, so that rows do not mix.
        threat: the set to stay in.
        steps: 0 or more.
        step_size: in the threat's norm, pixel units; one, or (N, 1, 1, 1) for each example.
        direction: (N, C, H, W) gradient to a new tensor, the step of unit norm; the steepest one
            if none is given.
        watch: is shown every iterate but the final one, at no pass of its own.

    Returns:
        (N, C, H, W), the final iterate.

    Raises:
        ValueError: if the values do not depend on the input, so that nothing can be raised.
    """
    project = threat.projection(x.detach())
    ahead = threat.steepest if direction is None else direction
    x_adv = start.detach().clone()
    with frozen(model):
        for step in range(steps):
            gradient, logits, values = _input_gradient(model, x_adv, objective)
            if watch is not None:
                watch(step, x_adv, logits, values)
            x_adv = project(x_adv.add_(ahead(gradient).mul_(step_size)))
    return x_adv


def _input_gradient(
    model: nn.Module, x_adv: Tensor, objective: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    with torch.enable_grad():
        logits = model(x_adv.requires_grad_())
        values = objective(logits)
        if not values.requires_grad:
            raise ValueError(
                "the objective does not depend on the input: has the model detached it, or "
                "computed without gradients?"
            )
        # A sum, not a mean: the sign is the same and the size does not shrink with the batch.
        (gradient,) = torch.autograd.grad(values.sum(), x_adv)
    x_adv.requires_grad_(False)
    # An overflowed example has no direction; it stays where it is and cannot poison the image.
    return gradient.nan_to_num(), logits.detach(), values.detach()
