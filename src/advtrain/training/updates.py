"""Updates: how a loss becomes a step of the weights, whatever the training method."""

from collections.abc import Callable

from torch import nn
from torch.optim import Optimizer

from advtrain.methods.method import Terms

Update = Callable[[nn.Module, Optimizer, Callable[[], Terms]], Terms]
"""Takes the loss as a closure, because an update may evaluate it more than once."""


def plain(model: nn.Module, optimizer: Optimizer, loss: Callable[[], Terms]) -> Terms:
    """Take one gradient step on the loss as it is.

    Args:
        model: what the optimizer steps (other updates perturb its weights first).
        optimizer: with the learning rate of this step.
        loss: evaluates the loss on the current adversarial batch.

    Returns:
        The loss that the step descended.
    """
    optimizer.zero_grad()
    terms = loss()
    terms.total.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return terms
