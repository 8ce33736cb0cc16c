"""The contract of a training method: what it perturbs, what it minimises, what that costs."""

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from advtrain.noise import Noise
from advtrain.threat import ThreatModel


class Batch(NamedTuple):
    """One minibatch.

    Attributes:
        x: (N, C, H, W) images in [0, 1].
        y: (N,) labels.
        example: (N,) stable example ids.
    """

    x: Tensor
    y: Tensor
    example: Tensor


class Terms(NamedTuple):
    """A loss and what it is made of.

    Attributes:
        total: scalar, what the weights descend.
        logits: (N, K) of the images trained on, for the training accuracy.
        parts: scalar terms worth a curve of their own; empty if the loss is one term.
    """

    total: Tensor
    logits: Tensor
    parts: dict[str, Tensor]


class Passes(NamedTuple):
    """What one weight step costs per example of the batch.

    Attributes:
        forward: passes of an example through the network.
        backward: passes of a gradient through the network, whatever it is taken for.
    """

    forward: float
    backward: float


class Method(ABC):
    """A training method: the inner maximisation and the loss of one weight step.

    `perturb` and `loss` are two calls, because an update may evaluate the loss twice on the same
    adversarial batch. An instance holds state only where the paper does.

    Attributes:
        needs_threat: whether the method depends on the threat model.
        input_gradient: whether `after_step` wants the gradient of the loss at `x_adv`, taken by
            the same backward pass as that of the weights.
    """

    needs_threat: ClassVar[bool] = True
    input_gradient: ClassVar[bool] = False

    @property
    def replays(self) -> int:
        """How many weight steps in a row are taken on each minibatch."""
        return 1

    @abstractmethod
    def perturb(self, model: nn.Module, batch: Batch, threat: ThreatModel, noise: Noise) -> Tensor:
        """Craft the images to train on.

        Args:
            model: images (N, C, H, W) in [0, 1] -> logits (N, K); left as it was found.
            batch: the minibatch.
            threat: the budget.
            noise: random numbers of these examples at this weight step.

        Returns:
            (N, C, H, W) in [0, 1], within the budget of `batch.x`, without a graph.
        """

    def loss(self, model: nn.Module, batch: Batch, x_adv: Tensor) -> Terms:
        """Evaluate what the weights descend: the cross-entropy at x_adv, unless a method overrides.

        Args:
            model: in train mode.
            batch: the minibatch.
            x_adv: what `perturb` returned for it.

        Returns:
            The loss with its graph.
        """
        logits = model(x_adv)
        return Terms(F.cross_entropy(logits, batch.y), logits, {})

    def after_step(
        self, batch: Batch, x_adv: Tensor, gradient: Tensor | None, threat: ThreatModel
    ) -> None:
        """Update the state of the method after a weight step.

        Args:
            batch: the minibatch of the step.
            x_adv: what it was trained on.
            gradient: (N, C, H, W) of the loss at `x_adv`, if `input_gradient` asks for it.
            threat: the budget.
        """
        return

    @abstractmethod
    def passes(self) -> Passes:
        """Count what one weight step costs."""

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state that a resumed run needs."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from a state that `state_dict` returned."""
        return
