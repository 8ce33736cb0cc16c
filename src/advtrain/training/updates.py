"""Updates: how a loss becomes a step of the weights, whatever the training method."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from advtrain.methods.method import Terms
from advtrain.training.distributed import ALONE, Processes

Update = Callable[[nn.Module, Optimizer, Callable[[], Terms]], Terms]
"""Takes the loss as a closure, because an update may evaluate it more than once."""

UpdateName = Literal["plain", "awp"]

EVALUATIONS: dict[UpdateName, int] = {"plain": 1, "awp": 2}
"""How often an update evaluates the loss and its gradient at one step."""


def plain(
    model: nn.Module,
    optimizer: Optimizer,
    loss: Callable[[], Terms],
    *,
    processes: Processes = ALONE,
) -> Terms:
    """Take one gradient step on the loss as it is.

    Args:
        model: what the optimizer steps (other updates perturb its weights first).
        optimizer: with the learning rate of this step.
        loss: evaluates the loss on the current adversarial batch.
        processes: whose losses add up to the one that is descended.

    Returns:
        The loss that the step descended, of this process.
    """
    optimizer.zero_grad()
    terms = loss()
    terms.total.backward()  # type: ignore[no-untyped-call]
    gradients = (weight.grad for weight in model.parameters())
    processes.add_up([gradient for gradient in gradients if gradient is not None])
    optimizer.step()
    return terms


def awp(
    model: nn.Module,
    optimizer: Optimizer,
    loss: Callable[[], Terms],
    *,
    gamma: float,
    processes: Processes = ALONE,
) -> Terms:
    """Flatten the weight loss landscape by perturbing the weights (Wu et al. 2020, algorithm 1).

        min_w max_v L(w + v),    ||v_l|| <= gamma * ||w_l|| in each layer l
        v_l = gamma * ||w_l|| * g_l / ||g_l||,    g = gradient of L at w
        w = (w + v) - step(gradient of L at w + v) - v

    As in the official code, v is one step of the ascent, weights of two or more dimensions have a
    v (biases and norm layers have none), and the weight decay acts on w + v.

    Departs from the official code: the gradient at w is taken on the model itself, with its buffers
    put back, in place of a copy; and both evaluations meet the same draws of torch's global
    generators (dropout), so that the loss which is raised is the one which is descended.

    Args:
        model: whose weights are perturbed; BatchNorm's running averages meet w + v alone.
        optimizer: with the learning rate of this step.
        loss: evaluates the loss on the current adversarial batch; it is called twice.
        gamma: size of the perturbation relative to each layer's weights; 0 is `plain`.
        processes: whose losses add up to the one that is raised and descended.

    Returns:
        The loss at w + v, which the step descended, of this process.
    """
    moves = _ascent(model, loss, gamma, processes)
    with torch.no_grad():
        for weight, move in moves:
            weight.add_(move)
    try:
        return plain(model, optimizer, loss, processes=processes)
    finally:  # a step that did not fit into memory is taken again, from the same weights
        with torch.no_grad():
            for weight, move in moves:
                weight.sub_(move)


def _ascent(
    model: nn.Module, loss: Callable[[], Terms], gamma: float, processes: Processes
) -> list[tuple[nn.Parameter, Tensor]]:
    """The perturbed weights and v; the model, the generators and every `.grad` stay as they are."""
    weights = [
        weight
        for name, weight in model.named_parameters()
        if weight.ndim > 1 and "weight" in name and weight.requires_grad
    ]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    devices = {weight.device for weight in weights if weight.device.type == "cuda"}
    with torch.random.fork_rng(list(devices)):
        total = loss().total
    gradients = torch.autograd.grad(total, weights, allow_unused=True)
    processes.add_up([gradient for gradient in gradients if gradient is not None])
    with torch.no_grad():
        for buffer, found in buffers:
            buffer.copy_(found)
        return [
            (weight, gamma * weight.norm() * _direction(gradient))
            for weight, gradient in zip(weights, gradients, strict=True)
            if gradient is not None
        ]


def _direction(gradient: Tensor) -> Tensor:
    """The gradient with norm 1; zero where the loss does not change."""
    norm = gradient.norm()
    return torch.where(norm > 0, gradient / norm, 0.0)
