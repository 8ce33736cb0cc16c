"""What an attacker may do to an image: a ball around it, inside the box [0, 1]."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from advtrain.noise import Noise

NORMS = ("linf", "l2")


@dataclass(frozen=True)
class ThreatModel:
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
        if self.norm not in NORMS:
            raise ValueError(f"threat norm {self.norm!r} is not known; it is one of {NORMS}")
        if not (math.isfinite(self.epsilon) and self.epsilon >= 0):
            raise ValueError(
                f"{self.norm} epsilon is a length in pixel units, 0 or more, got {self.epsilon:g}"
            )
        if self.norm == "linf" and self.epsilon > 1:
            raise ValueError(
                f"linf epsilon is in [0, 1] pixel units, got {self.epsilon:g}; "
                f"did you mean {self.epsilon:g}/255?"
            )

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
        if self.norm == "linf":
            low, high = (x - self.epsilon).clamp_(min=0), (x + self.epsilon).clamp_(max=1)
            return lambda x_adv: x_adv.clamp_(low, high)

        def onto_ball(x_adv: Tensor) -> Tensor:
            delta = x_adv.sub_(x)
            tiny = torch.finfo(delta.dtype).tiny
            delta.mul_((self.epsilon / _length(delta).clamp_(min=tiny)).clamp_(max=1))
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
            return self.project(x + direction.mul_(self.epsilon), x)
        direction = self.steepest(noise.normal(shape, restart=restart))
        # The share of a ball's volume within radius r grows like r^D.
        share = noise.uniform((1,) * len(shape), restart=restart)
        radius = share.pow_(1 / math.prod(shape)).mul_(self.epsilon)
        return self.project(x + direction.mul_(radius), x)


def _length(delta: Tensor) -> Tensor:
    """(N, 1, 1, 1), the Euclidean length of each example."""
    length: Tensor = torch.linalg.vector_norm(delta.flatten(1), dim=1)
    return length.view(-1, *(1,) * (delta.dim() - 1))


def _largest(delta: Tensor) -> Tensor:
    """(N, 1, 1, 1), the largest magnitude in each example."""
    largest: Tensor = torch.linalg.vector_norm(delta.flatten(1), ord=math.inf, dim=1)
    return largest.view(-1, *(1,) * (delta.dim() - 1))
