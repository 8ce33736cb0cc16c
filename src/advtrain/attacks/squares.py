"""What the Square Attack begins with and what it proposes, under each norm."""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from advtrain.noise import Noise
from advtrain.threat import ThreatModel

Rows = Tensor | slice
"""(M,) int64, which of the examples; or all of them."""


class Squares(ABC):
    """The changes that may be proposed, all of one side length.

    A proposal is a series of choices, each a number below the one in `choices`.

    Args:
        x: (N, C, H, W) in [0, 1].
        threat: the norm and epsilon.
        side: of the squares, in pixels.
        whole: a square may reach the last row and column.
    """

    choices: tuple[int, ...]
    """How many there are of each choice."""

    telling: bool
    """Whether `changing` is of use."""

    def __init__(self, x: Tensor, threat: ThreatModel, side: int, whole: bool = True) -> None:
        self.x, self.threat, self.side = x, threat, side
        self.channels, self.height, self.width = x.shape[1:]
        # The upper left corners, row by row, and a square's pixels as seen from its corner: places
        # in an image whose pixels are in one line.
        last = 0 if whole else 1
        self.corners = (max(self.height - side + 1 - last, 1), max(self.width - side + 1 - last, 1))
        along = torch.arange(side, device=x.device)
        self.pixels = (along[:, None] * self.width + along).flatten()

    @staticmethod
    @abstractmethod
    def nearest_side(share: float, height: int, width: int) -> int:
        """The side of the squares that cover about this share of the image."""

    @staticmethod
    @abstractmethod
    def start(x: Tensor, threat: ThreatModel, noise: Noise, restart: int) -> Tensor:
        """(N, C, H, W) in the threat set, the first image of the search."""

    @abstractmethod
    def plan(self, chosen: Tensor) -> Tensor:
        """What `proposed` is to know of many proposals.

        Args:
            chosen: (N, B, number of choices) int64.

        Returns:
            (N, B, J) int64.
        """

    @abstractmethod
    def proposed(self, image: Tensor, rows: Rows, plan: Tensor) -> Tensor:
        """What one proposal each makes of the images.

        Args:
            image: (M, C, H, W) in the threat set.
            rows: which examples they are of.
            plan: (M, J).

        Returns:
            (M, C, H, W) in the threat set, a new tensor.
        """

    @abstractmethod
    def changing(self, image: Tensor, rows: Rows) -> Tensor:
        """Which proposals would change the images.

        Args:
            image: (M, C, H, W).
            rows: which examples they are of.

        Returns:
            (M, product of `choices`) bool, the last choice running fastest.
        """


class Corners(Squares):
    """For linf: each channel of a square goes to one end of its range (algorithm 2).

    Adding 2 epsilon or -2 epsilon and clamping leads there, so every image of the search is a
    corner of the threat set. The choices are the sign in each channel, and the square's corner.
    """

    telling = True

    def __init__(self, x: Tensor, threat: ThreatModel, side: int, whole: bool = True) -> None:
        super().__init__(x, threat, side, whole)
        self.choices = (*(2,) * self.channels, *self.corners)
        self.ends = torch.cat([bound.flatten(2) for bound in _bounds(x, threat)], 2)

    @staticmethod
    def nearest_side(share: float, height: int, width: int) -> int:
        """Within the image."""
        return min(max(round(math.sqrt(share * height * width)), 1), height, width)

    @staticmethod
    def start(x: Tensor, threat: ThreatModel, noise: Noise, restart: int) -> Tensor:
        """Vertical stripes of one pixel, each channel of a random sign (section 3.3)."""
        low, high = _bounds(x, threat)
        up = noise.uniform((x.shape[1], 1, x.shape[3]), restart=restart) < 0.5
        return torch.where(up, high, low)

    def plan(self, chosen: Tensor) -> Tensor:
        """The corner; and for each channel, from where in `ends` its end is taken."""
        corner = chosen[..., -2:-1] * self.width + chosen[..., -1:]
        return torch.cat([corner, chosen[..., :-2] * (self.height * self.width)], -1)

    def proposed(self, image: Tensor, rows: Rows, plan: Tensor) -> Tensor:
        """With the square at the ends."""
        square = plan[:, None, :1] + self.pixels
        ends = self.ends[rows].gather(2, square + plan[:, 1:, None])
        return image.flatten(2).scatter(2, square.expand_as(ends), ends).view_as(image)

    def changing(self, image: Tensor, rows: Rows) -> Tensor:
        """Those whose square has a pixel that is not yet at its end."""
        count, channels, height, width = image.shape
        ends = self.ends[rows].view(count, channels, 2, height, width)
        away = _any(_any(ends != image[:, :, None], self.side, 3), self.side, 4)
        down, across = self.corners
        moves = away[..., :down, :across].flatten(3)  # (M, C, 2, corners)
        found = moves[:, 0]
        for channel in range(1, self.channels):
            found = (found[:, :, None] | moves[:, None, channel]).flatten(1, 2)
        return found.flatten(1)


class Bumps(Squares):
    """For l2 and l1: a square gets a bump, and the mass of another square (algorithm 3).

    For l1 the bumps are steeper, and the square gets C times the mass that there is: the projection
    onto the ball then makes the perturbation sparse. The choices are the sign in each channel, the
    bump's orientation, and the corners of both squares.
    """

    telling = False

    def __init__(self, x: Tensor, threat: ThreatModel, side: int, whole: bool = True) -> None:
        super().__init__(x, threat, side, whole)
        self.choices = (*(2,) * self.channels, 2, *self.corners, *self.corners)
        self.bumps = bumps(side, threat).to(x).flatten(1)

    @staticmethod
    def nearest_side(share: float, height: int, width: int) -> int:
        """Odd and at least 3, if the image is as large."""
        side = max(round(math.sqrt(share * height * width)), 3)
        return min(side // 2 * 2 + 1, height, width)

    @staticmethod
    def start(x: Tensor, threat: ThreatModel, noise: Noise, restart: int) -> Tensor:
        """Tiles of a fifth of the image's side, a bump in each (section 3.4)."""
        count, channels, height, width = x.shape
        side = max(min(height, width) // 5, 1)
        down, across = height // side, width // side
        drawn = noise.uniform((1 + channels, down, across), restart=restart) < 0.5
        bump = bumps(side, threat).to(x)[drawn[:, :1].long()]
        tiles = torch.where(drawn[:, 1:, ..., None, None], bump, -bump).transpose(3, 4)
        top, left = (height - down * side) // 2, (width - across * side) // 2
        delta = torch.zeros_like(x)
        inner = delta[:, :, top : top + down * side, left : left + across * side]
        inner.copy_(tiles.reshape(count, channels, down * side, across * side))
        if threat.norm == "l2":
            delta = threat.steepest(delta).mul_(threat.epsilon)
        return threat.project(x + delta, x)

    def plan(self, chosen: Tensor) -> Tensor:
        """Both corners, the orientation, and the signs."""
        first = chosen[..., -4:-3] * self.width + chosen[..., -3:-2]
        second = chosen[..., -2:-1] * self.width + chosen[..., -1:]
        return torch.cat([first, second, chosen[..., -5:-4], 2 * chosen[..., :-5] - 1], -1)

    def proposed(self, image: Tensor, rows: Rows, plan: Tensor) -> Tensor:
        """With the perturbation nu changed; all masses are those of each channel."""
        x, order = self.x[rows], self.threat.order
        nu = (image - x).flatten(2)
        first = (plan[:, None, :1] + self.pixels).expand(-1, self.channels, -1)
        second = (plan[:, None, 1:2] + self.pixels).expand(-1, self.channels, -1)
        unused = (self.threat.epsilon**order - _mass(nu, order).sum(1, keepdim=True)).clamp_(min=0)
        inner = nu.gather(2, first)
        nu.scatter_(2, first, 0)  # what the squares share counts once
        mass = _mass(inner, order)
        available = mass + _mass(nu.gather(2, second), order) + unused / self.channels
        signed = plan[:, 3:, None] * self.bumps[plan[:, 2]][:, None]
        moved = _unit(signed + _unit(inner, order), order)
        moved *= available.sqrt_() if order == 2 else available.mul_(self.channels)
        nu.scatter_(2, second, 0).scatter_(2, first, moved)
        return self.threat.project(nu.view_as(x).add_(x), x)

    def changing(self, image: Tensor, rows: Rows) -> Tensor:
        """All of them."""
        return image.new_ones(len(image), math.prod(self.choices), dtype=torch.bool)


def bumps(side: int, threat: ThreatModel) -> Tensor:
    """The bump eta (equation 2) and its transpose, of unit length.

    One half is positive, the other negative. At a distance d from the middle of its half, in the
    maximum norm, it is the sum of 1 / (j + 1)^2 over j = d, ..., side // 2; for l1, of the fourth
    powers. As in the official code, both halves have the same length.

    Args:
        side: in pixels.
        threat: whose norm measures the length.

    Returns:
        (2, side, side) float64.
    """
    power = 2 if threat.norm == "l2" else 4
    terms = torch.arange(1, side // 2 + 2, dtype=torch.float64) ** -power
    sums = terms.flip(0).cumsum(0).flip(0)
    halves = []
    for sign, height in ((1, side // 2), (-1, side - side // 2)):
        line = (torch.arange(height) - height // 2).abs()
        column = (torch.arange(side) - side // 2).abs()
        half = sums[torch.maximum(line[:, None], column)].flatten()
        halves.append(sign * _unit(half, threat.order))
    bump = _unit(torch.cat(halves), threat.order).view(side, side)
    return torch.stack([bump, bump.T])


def _bounds(x: Tensor, threat: ThreatModel) -> tuple[Tensor, Tensor]:
    return (x - threat.epsilon).clamp_(min=0), (x + threat.epsilon).clamp_(max=1)


def _any(values: Tensor, length: int, dim: int) -> Tensor:
    """Whether any of so many consecutive values along a dimension is true, wherever they fit."""
    reach = 1
    while reach < length:
        step = min(reach, length - reach)
        size = values.shape[dim] - step
        values = values.narrow(dim, 0, size) | values.narrow(dim, step, size)
        reach += step
    return values


def _mass(values: Tensor, order: float) -> Tensor:
    """(..., 1), the sum over the last dimension of the magnitudes (l1) or the squares (l2)."""
    powers = values.abs() if order == 1 else values.square()
    return powers.sum(-1, keepdim=True)


def _unit(values: Tensor, order: float) -> Tensor:
    """Scaled to unit length along the last dimension; zeros stay."""
    length: Tensor = torch.linalg.vector_norm(values, ord=order, dim=-1, keepdim=True)
    return values / length.clamp_(min=torch.finfo(values.dtype).tiny)
