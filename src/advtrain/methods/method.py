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
        x: (N, C, H, W) images in [0, 1]; of a method with several views, the first view of all
            examples, then the second of the same ones.
        y: (N,) labels.
        example: (N,) stable example ids.
        smoothed: (N, K) class probabilities to learn in place of the labels; None for the labels.
        progress: share of the training's weight steps that were done before this one, in [0, 1).
    """

    x: Tensor
    y: Tensor
    example: Tensor
    smoothed: Tensor | None = None
    progress: float = 0.0

    @property
    def target(self) -> Tensor:
        """What the weights learn, as `F.cross_entropy` takes it; attacks raise the loss of `y`."""
        return self.y if self.smoothed is None else self.smoothed


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
    """Passes of one example through the network.

    Attributes:
        forward: of the example.
        backward: of a gradient, whatever it is taken for.
    """

    forward: float
    backward: float


class Cost(NamedTuple):
    """What one weight step costs per row of the batch.

    Attributes:
        crafting: passes of `perturb`, whose gradients are those of the input alone.
        loss: passes of `loss`, whose backward passes reach the weights too.
    """

    crafting: Passes
    loss: Passes

    @property
    def forward_equivalents(self) -> float:
        """The cost in forward passes: a gradient of the input costs one, of the weights another."""
        return sum(self.crafting) + self.loss.forward + 2 * self.loss.backward


class Method(ABC):
    """A training method: the inner maximisation and the loss of one weight step.

    `perturb` and `loss` are two calls, because an update may evaluate the loss twice on the same
    adversarial batch. An instance holds state only where the paper does.

    Attributes:
        needs_threat: whether the method depends on the threat model.
        input_gradient: whether `after_step` wants the gradient of the loss at `x_adv`, taken by
            the same backward pass as that of the weights.
        within_budget: whether `perturb` returns images of the threat set.
        row_state: entries of the state that have a row for each row of a minibatch.
        by_place: whether a row's place in the minibatch decides how it is attacked.
        uneven: whether rows can take unlike numbers of passes to craft, and leave the others.
        second_order: whether the loss holds gradients of its own.
        beside_network: whether the loss reads weights besides calling the network (bounds).
        norms: of the budgets that the method can train at.
        views: how many augmentations of each example a minibatch holds.
        per_example: names of the values that the method learns for each training example, which
            are kept as a result; `example_values` returns them.
    """

    needs_threat: ClassVar[bool] = True
    input_gradient: ClassVar[bool] = False
    within_budget: ClassVar[bool] = True
    row_state: ClassVar[tuple[str, ...]] = ()
    by_place: ClassVar[bool] = False
    uneven: ClassVar[bool] = False
    second_order: ClassVar[bool] = False
    beside_network: ClassVar[bool] = False
    norms: ClassVar[tuple[str, ...]] = ("linf", "l2")
    views: ClassVar[int] = 1
    per_example: ClassVar[tuple[str, ...]] = ()

    @property
    def rowwise(self) -> bool:
        """Whether a step is the mean of the steps of its rows, so that it can be taken in parts."""
        return not (self.by_place or self.row_state or self.per_example)

    @property
    def replays(self) -> int:
        """How many weight steps in a row are taken on each minibatch."""
        return 1

    def start(self, examples: Tensor) -> None:
        """Meet the examples of the training, once, before the first step and any saved state.

        Args:
            examples: (N,) ids, all that a minibatch can hold.
        """
        return

    @abstractmethod
    def perturb(self, model: nn.Module, batch: Batch, threat: ThreatModel, noise: Noise) -> Tensor:
        """Craft the images to train on.

        Args:
            model: images (N, C, H, W) in [0, 1] -> logits (N, K); left as it was found.
            batch: the minibatch.
            threat: the budget.
            noise: random numbers of these rows at this weight step.

        Returns:
            (N, C, H, W), within the budget of `batch.x` and in [0, 1] (unless `within_budget` says
            otherwise), without a graph.
        """

    def loss(
        self, model: nn.Module, batch: Batch, x_adv: Tensor, threat: ThreatModel, noise: Noise
    ) -> Terms:
        """Evaluate what the weights descend: the cross-entropy at x_adv, unless a method overrides.

        It may be called twice at one weight step, with the same noise (an update such as AWP), and
        changes no state of the method.

        Args:
            model: in train mode.
            batch: the minibatch.
            x_adv: what `perturb` returned for it.
            threat: the budget.
            noise: that of `perturb`; fold a number in for draws of its own.

        Returns:
            The loss with its graph.
        """
        logits = model(x_adv)
        return Terms(F.cross_entropy(logits, batch.target), logits, {})

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

    def after_epoch(
        self,
        model: nn.Module,
        batch: Batch,
        row: dict[str, float],
        threat: ThreatModel,
        noise: Noise,
    ) -> str:
        """Update the state of the method after an epoch.

        Args:
            model: that was trained (not its average); left as it was found.
            batch: the first minibatch of the epoch.
            row: the epoch's row of the history, with the validation where there was one; numbers
                that are found here may be added.
            threat: the budget.
            noise: random numbers of the batch's rows for this epoch.

        Returns:
            Why the training has to stop and go back to the weights before this epoch; empty to
            go on.
        """
        return ""

    def measures(self) -> dict[str, float]:
        """Return the numbers of the method at the end of an epoch, for the history."""
        return {}

    def example_values(self) -> dict[str, Tensor]:
        """Return `example` (N,) and a value (N,) per example for each name in `per_example`."""
        return {}

    @abstractmethod
    def cost(self) -> Cost:
        """Count what the last weight step cost; before the first, what the first will."""

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state that a resumed run needs."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from a state that `state_dict` returned; an empty one is the initial state."""
        return
