"""What an attacker may do to an image: a ball around it, inside the box [0, 1]."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from advtrain.noise import Noise

NORMS = ("linf", "l2", "l1")
ORDERS = {"linf": math.inf, "l2": 2.0, "l1": 1.0}
TRANSFORMATIONS = ("spatial", "corruption")


class Ball(ABC):
    """The perturbations up to a length, the same or another for each example, inside the box.

    Attributes:
        norm: "linf", "l2" or "l1".
    """

    norm: str

    @property
    def order(self) -> float:
        """The p of the norm; infinity for a transformation, whose set is the whole box."""
        return ORDERS.get(self.norm, math.inf)

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
        distance: Tensor = torch.linalg.vector_norm(delta, ord=self.order, dim=1)
        return distance.float()

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """The nearest image in the ball around x, then the nearest to that in [0, 1].

        For linf and l1 (Croce and Hein 2021, "Mind the box", proposition 2.1) this is the nearest
        image in both. For l2 it lies in both, since clamping shortens the perturbation of an x in
        [0, 1], but it need not be the nearest one.

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
        if self.order == math.inf:
            low, high = (x - radius).clamp_(min=0), (x + radius).clamp_(max=1)
            return lambda x_adv: x_adv.clamp_(low, high)
        if self.order == 1:
            return lambda x_adv: x_adv.copy_(_onto_l1_ball_and_box(x_adv, x, radius))

        def onto_ball(x_adv: Tensor) -> Tensor:
            delta = x_adv.sub_(x)
            tiny = torch.finfo(delta.dtype).tiny
            delta.mul_(_length(delta).clamp_(min=tiny).reciprocal_().mul_(radius).clamp_(max=1))
            return delta.add_(x).clamp_(0, 1)

        return onto_ball

    def steepest(self, gradient: Tensor) -> Tensor:
        """The perturbation of unit norm along which a function grows fastest.

        Its inner product with the gradient is the dual norm of the gradient. For linf it is the
        gradient's sign, for l2 the gradient divided by its length, for l1 the sign of its largest
        entry, in that entry alone (the first of equals); where it is zero, zero.

        Args:
            gradient: (N, C, H, W).

        Returns:
            (N, C, H, W).
        """
        if self.order == math.inf:
            return gradient.sign()
        if self.order == 1:
            flat = gradient.flatten(1)
            largest = flat.abs().argmax(1, keepdim=True)
            sparse = torch.zeros_like(flat).scatter_(1, largest, flat.gather(1, largest).sign())
            return sparse.view_as(gradient)
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
        if self.order == math.inf:
            direction = noise.uniform(shape, restart=restart).mul_(2).sub_(1)
            return self.project(x + direction.mul_(self.radius(x)), x)
        if self.order == 1:
            return self.project(x + _in_l1_ball(shape, noise, restart).mul_(self.radius(x)), x)
        direction = self.steepest(noise.normal(shape, restart=restart))
        # The share of a ball's volume within radius r grows like r^D.
        share = noise.uniform((1,) * len(shape), restart=restart)
        radius = share.pow_(1 / math.prod(shape)).mul_(self.radius(x))
        return self.project(x + direction.mul_(radius), x)


@dataclass(frozen=True)
class ThreatModel(Ball):
    """The perturbations with a norm of at most epsilon that keep the image in [0, 1].

    Args:
        norm: "linf", "l2" or "l1".
        epsilon: the budget in [0, 1] pixel units; for l2 and l1 the length
            over all pixels and channels.

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


@dataclass(frozen=True)
class Transformation(Ball):
    """Any image in [0, 1]: what may be done to it is the attack's own rule and no ball's.

    Args:
        norm: "spatial" or "corruption", which stands where the others have their norm.
        epsilon: None; an attack's own parameters say how far it goes.

    Raises:
        ValueError: for another name, or a budget.
    """

    norm: str
    epsilon: None = None

    def __post_init__(self) -> None:
        if self.norm not in TRANSFORMATIONS or self.epsilon is not None:
            raise ValueError(
                f"a transformation is one of {TRANSFORMATIONS} without a budget, "
                f"got {self.norm!r} and {self.epsilon}"
            )

    def radius(self, x: Tensor) -> float:
        """1, the largest change that a pixel can have."""
        return 1.0


@dataclass(frozen=True, eq=False)
class PerExampleBall(Ball):
    """A ball with a radius of its own for each example of a minibatch.

    Args:
        norm: "linf", "l2" or "l1".
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


def _onto_l1_ball_and_box(x_adv: Tensor, x: Tensor, radius: float | Tensor) -> Tensor:
    """The nearest image in the l1 ball around x and in [0, 1].

    It is x + sign(d) * min(max(|d| - t, 0), room), with d the perturbation, room what the box
    leaves in that direction, and the smallest t >= 0 at which the length is within the radius. The
    length falls with t, linearly between 2 D breakpoints, which are sorted.
    """
    delta = (x_adv - x).flatten(1).double()
    size, centre = delta.abs(), x.flatten(1).double()
    room = torch.where(delta > 0, 1 - centre, centre)
    radii = torch.as_tensor(radius, dtype=torch.float64, device=x.device).reshape(-1, 1)
    points, order = torch.cat([size - room, size], 1).sort(1)
    slopes = torch.where(order < size.shape[1], -1.0, 1.0).cumsum(1)[:, :-1]
    lengths = torch.cat([room.sum(1, keepdim=True), slopes * points.diff(dim=1)], 1).cumsum(1)
    # The last breakpoint at which the length is still too large; t lies just after it.
    place = (lengths > radii).sum(1, keepdim=True).sub_(1).clamp_(min=0, max=points.shape[1] - 2)
    slope = slopes.gather(1, place).clamp(max=-1)
    threshold = points.gather(1, place) + (radii - lengths.gather(1, place)) / slope
    # With the whole box inside the ball, or a radius of 0, t need not lie after a breakpoint.
    threshold = threshold.clamp_(min=0).minimum(points[:, -1:])
    shrunk = torch.minimum((size - threshold).clamp_(min=0), room)
    nearest = (centre + delta.sign() * shrunk).view_as(x)
    return nearest.to(x.dtype).clamp_(0, 1)


def _in_l1_ball(shape: tuple[int, ...], noise: Noise, restart: int) -> Tensor:
    """(N, *shape), uniform in the unit l1 ball: exponential sizes with random signs.

    With one more exponential number, the sizes over the sum of all are uniform in the simplex.
    """
    count = math.prod(shape)
    drawn = noise.uniform((2 * count + 1,), restart=restart)
    sizes = drawn[:, : count + 1].neg().add_(1).log_().neg_()
    signs = torch.where(drawn[:, count + 1 :] < 0.5, -1.0, 1.0)
    direction = sizes[:, :count] * signs / sizes.sum(1, keepdim=True)
    return direction.view(-1, *shape)


def _length(delta: Tensor) -> Tensor:
    """(N, 1, 1, 1), the Euclidean length of each example."""
    length: Tensor = torch.linalg.vector_norm(delta.flatten(1), dim=1)
    return length.view(-1, *(1,) * (delta.dim() - 1))


def _largest(delta: Tensor) -> Tensor:
    """(N, 1, 1, 1), the largest magnitude in each example."""
    largest: Tensor = torch.linalg.vector_norm(delta.flatten(1), ord=math.inf, dim=1)
    return largest.view(-1, *(1,) * (delta.dim() - 1))
