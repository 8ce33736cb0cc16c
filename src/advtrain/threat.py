"""What an attacker may do to an image: a ball around it, inside the box [0, 1]."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from advtrain.noise import Noise

NORMS = ("linf", "l2")


class Ball(ABC):
    """The perturbations up to a length, the same or another for each example, inside the box.

    Attributes:
        norm: "linf" or "l2".
    """

    norm: str

    @abstractmethod
    def radius(self, x: Tensor) -> float | Tensor:
        """The largest length.

        Args:
            x: (N, C, H, W), the centres.

        Returns:
            One number for all examples, or (N, 1, 1, 1) in the type of x.
        """

    def distance(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """The norm of the perturbation of each example, summed in float64.

        Args:
            x_adv: (N, C, H, W).
            x: (N, C, H, W).

        Returns:
            (N,) float32.
        """
        delta = (x_adv.double() - x.double()).flatten(1)
        order = math.inf if self.norm == "linf" else 2
        distance: Tensor = torch.linalg.vector_norm(delta, ord=order, dim=1)
        return distance.float()

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """The nearest image in the ball around x, then the nearest to that in [0, 1].

        For linf this is the nearest image in both. For l2 it lies in both, since clamping shortens
        the perturbation of an x in [0, 1], but it need not be the nearest one.

        Args:
            x_adv: (N, C, H, W), any values.
            x: (N, C, H, W) in [0, 1].

        Returns:
            (N, C, H, W), a new tensor. Rounding x + epsilon to float32 can leave the ball by half
            a unit in the last place of a pixel, 2^-25.
        """
        return self.projection(x)(x_adv.clone())

    def projection(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        """`project` onto the set around x, in place, for a loop that projects many times."""
        radius = self.radius(x)
        if self.norm == "linf":
            low, high = (x - radius).clamp_(min=0), (x + radius).clamp_(max=1)
            return lambda x_adv: x_adv.clamp_(low, high)

        def onto_ball(x_adv: Tensor) -> Tensor:
            delta = x_adv.sub_(x)
            tiny = torch.finfo(delta.dtype).tiny
            delta.mul_(_length(delta).clamp_(min=tiny).reciprocal_().mul_(radius).clamp_(max=1))
            return delta.add_(x).clamp_(0, 1)

        return onto_ball

    def steepest(self, gradient: Tensor) -> Tensor:
        """The perturbation of unit norm along which a function grows fastest.

        Its inner product with the gradient is the dual norm of the gradient. For linf it is the
        gradient's sign, for l2 the gradient divided by its length; where it is zero, zero.

        Args:
            gradient: (N, C, H, W).

        Returns:
            (N, C, H, W).
        """
        if self.norm == "linf":
            return gradient.sign()
        # Divided by the largest entry first: the squares of a saturated network's gradient
        # (1e-25) underflow to 0, and the attack would stand still.
        tiny = torch.finfo(gradient.dtype).tiny
        scaled = gradient / _largest(gradient).clamp_(min=tiny)
        return scaled.div_(_length(scaled).clamp_(min=tiny))

    def random_start(self, x: Tensor, noise: Noise, restart: int = 0) -> Tensor:
        """A start drawn uniformly from the ball, then clamped to [0, 1].

        Args:
            x: (N, C, H, W) in [0, 1].
            noise: for these N examples.
            restart: which of several starts.

        Returns:
            (N, C, H, W) in the threat set.
        """
        shape = tuple(x.shape[1:])
        if self.norm == "linf":
            direction = noise.uniform(shape, restart=restart).mul_(2).sub_(1)
            return self.project(x + direction.mul_(self.radius(x)), x)
        direction = self.steepest(noise.normal(shape, restart=restart))
        # The share of a ball's volume within radius r grows like r^D.
        share = noise.uniform((1,) * len(shape), restart=restart)
        radius = share.pow_(1 / math.prod(shape)).mul_(self.radius(x))
        return self.project(x + direction.mul_(radius), x)


@dataclass(frozen=True)
class ThreatModel(Ball):
    """The perturbations with a norm of at most epsilon that keep the image in [0, 1].

    Args:
        norm: "linf" or "l2".
        epsilon: the budget in [0, 1] pixel units; for l2 the length over all pixels and channels.

    Raises:
        ValueError: for another norm, or a budget that is not in those units.
    """

    norm: str
    epsilon: float

    def __post_init__(self) -> None:
        _check_norm(self.norm)
        if not (math.isfinite(self.epsilon) and self.epsilon >= 0):
            raise ValueError(
                f"{self.norm} epsilon is a length in pixel units, 0 or more, got {self.epsilon:g}"
            )
        if self.norm == "linf" and self.epsilon > 1:
            raise ValueError(
                f"linf epsilon is in [0, 1] pixel units, got {self.epsilon:g}; "
                f"did you mean {self.epsilon:g}/255?"
            )

    def radius(self, x: Tensor) -> float:
        """The budget, whatever the example."""
        return self.epsilon


@dataclass(frozen=True, eq=False)
class PerExampleBall(Ball):
    """A ball with a radius of its own for each example of a minibatch.

    Args:
        norm: "linf" or "l2".
        epsilon: (N,) the radii in pixel units, 0 or more; not checked, which would stall a device.

    Raises:
        ValueError: for another norm, or radii of another shape.
    """

    norm: str
    epsilon: Tensor

    def __post_init__(self) -> None:
        _check_norm(self.norm)
        if self.epsilon.dim() != 1:
            raise ValueError(
                f"{self.norm} epsilon has one radius per example, shape (N,), "
                f"got {tuple(self.epsilon.shape)}; for one radius take a ThreatModel"
            )

    def radius(self, x: Tensor) -> Tensor:
        """The radius of each example."""
        return self.epsilon.to(x.dtype).view(-1, 1, 1, 1)


def _check_norm(norm: str) -> None:
    if norm not in NORMS:
        raise ValueError(f"threat norm {norm!r} is not known; it is one of {NORMS}")


def _length(delta: Tensor) -> Tensor:
    """(N, 1, 1, 1), the Euclidean length of each example."""
    length: Tensor = torch.linalg.vector_norm(delta.flatten(1), dim=1)
    return length.view(-1, *(1,) * (delta.dim() - 1))


def _largest(delta: Tensor) -> Tensor:
    """(N, 1, 1, 1), the largest magnitude in each example."""
    largest: Tensor = torch.linalg.vector_norm(delta.flatten(1), ord=math.inf, dim=1)
    return largest.view(-1, *(1,) * (delta.dim() - 1))
