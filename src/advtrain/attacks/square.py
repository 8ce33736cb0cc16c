"""The Square Attack: a random search over squares that needs no gradient."""

import itertools
import math
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advtrain.attacks.attack import Attacked, check_norm, predictions
from advtrain.attacks.frozen import crafting
from advtrain.attacks.objectives import margin
from advtrain.attacks.restarts import SMALLEST_BATCH, best_of_restarts, filled
from advtrain.noise import Noise
from advtrain.params.quantities import Count, Share
from advtrain.threat import ThreatModel

NORMS = ("linf", "l2", "l1")

# After so many queries of SCHEDULED the share p of the image that a square covers is halved.
SCHEDULED = 10_000
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)

# Proposals that are drawn at once.
BLOCK = 128
# Up to so many possible proposals, it is remembered which of them an example has tried.
REMEMBERED = 2**16
# Queries between two looks at which examples are done, on a device that such a look stalls.
PERIOD = 10


def square(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    noise: Noise,
    *,
    queries: Count = 5000,
    initial_share: Share = 0.8,
    rescaled: bool = False,
    restarts: Count = 1,
) -> Attacked:
    """The Square Attack (Andriushchenko et al. 2020, algorithm 1; for l1 Croce and Hein 2021).

    Each query proposes to change a square of random place, and is accepted if the margin of the
    best wrong class rises. The defaults are those of AutoAttack. Place and signs are drawn for each
    example, as in the paper.

    A proposal is not queried, though it is one of the `queries`, if the answer is known: because it
    does not change the image, or because it was refused since the image last changed. The result
    is the same, for a model that gives the same image the same logits.

    Args:
        model: maps (N, C, H, W) in [0, 1] to (N, K) logits, K >= 2.
        x: (N, C, H, W) in [0, 1].
        y: (N,) int64 labels.
        threat: the norm and epsilon.
        noise: for these N examples; the starts and the proposals.
        queries: of one restart, the start among them.
        initial_share: p, the share of the image that the first squares cover.
        rescaled: run through the schedule of p, which is made for 10000 queries, in `queries`.
        restarts: runs per example; those already fooled are dropped.

    Returns:
        The first misclassified image or the one of the largest margin, and that margin. It spends 1
        forward pass on the clean image and at most `queries` on each restart, no backward pass. An
        example that is misclassified without an attack is returned as it is.

    Raises:
        ValueError: for a norm that it does not know, or a single class.

    Departs from the official code (AutoAttack), which gives all examples of a batch the same
    place, orientation and, for linf, signs; never lets a square reach the last row and column; and
    stops at a margin of 0. For linf, every proposal is exactly at the ends of the allowed range,
    which there it is up to rounding. For l2, the tiles of the start are centred in both directions,
    and after a change the perturbation is scaled to epsilon only if it is longer.
    """
    check_norm("square", threat, NORMS)
    share = partial(_share, initial=initial_share, of=queries if rescaled else None)
    least = min(SMALLEST_BATCH, len(x))

    def attempt(rows: Tensor, number: int) -> tuple[Attacked, Tensor]:
        if number == 0:
            return clean, wrong
        squares = (_Corners if threat.norm == "linf" else _Bumps)(x[rows], threat)
        search = _Search(model, y[rows], squares, noise.take(rows), number - 1, least)
        for block in _blocks(queries, lambda query: squares.side(share(query))):
            if not search.run(*block):
                break
        none = torch.zeros_like(search.spent)
        return Attacked(search.x_best, search.value, search.spent, none), search.fooled

    with crafting(model), torch.no_grad():
        value, wrong = _judged(model, x, y)
        spent = torch.ones_like(y)
        # Where an example has to be attacked, whatever is found is better than the clean image.
        clean = Attacked(x, value.masked_fill(~wrong, -math.inf), spent, spent - 1)
        return best_of_restarts(attempt, y, 1 + restarts)


def _share(query: int, *, initial: float, of: int | None) -> float:
    """The share p of the image that the square of a query covers (section 5.1)."""
    at = query if of is None else int(query / of * SCHEDULED)
    return initial * 0.5 ** bisect_left(HALVINGS, at)


def _blocks(queries: int, side: Callable[[int], int]) -> Iterator[tuple[int, int, int]]:
    """(first query, how many, their side): all queries after the start, in blocks of one side."""
    for length, same in itertools.groupby(range(1, queries), side):
        members = list(same)
        for place in range(0, len(members), BLOCK):
            yield members[place], len(members[place : place + BLOCK]), length


def _judged(model: nn.Module, x_adv: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """(N,) the margin of the best wrong class, and (N,) bool: misclassified."""
    logits = model(x_adv)
    return margin(logits, y).to(x_adv.dtype), predictions(logits) != y


class _Search:
    """Algorithm 1 for several examples at once, each of them at a query of its own.

    Attributes:
        x_best: (N, C, H, W), the first misclassified image or the one of the largest value.
        value: (N,) the margin there.
        fooled: (N,) bool: x_best is misclassified.
        spent: (N,) int64, forward passes.
    """

    def __init__(
        self,
        model: nn.Module,
        y: Tensor,
        squares: "_Squares",
        noise: Noise,
        restart: int,
        least: int,
    ) -> None:
        self.model, self.y, self.squares = model, y, squares
        self.noise, self.restart, self.least = noise, restart, least
        self.period = 1 if y.device.type == "cpu" else PERIOD
        self.x_best = squares.start(noise, restart)
        self.live = torch.arange(len(y), device=y.device)
        first = filled(self.live, least)
        value, fooled = _judged(model, self.x_best[first], y[first])
        self.value, self.fooled = value[: len(y)], fooled[: len(y)]
        self.spent = torch.ones_like(y)
        # Of each live example: the proposals of this side that may be accepted, unless it is stale.
        self.side, self.open = 0, torch.zeros(len(y), 0, dtype=torch.bool, device=y.device)
        self.stale = torch.ones_like(self.fooled)

    def run(self, first: int, count: int, side: int) -> bool:
        """The proposals from the first query on; False if there is no example left."""
        kept = (~self.fooled[self.live]).nonzero().squeeze(1)
        self.live, self.open, self.stale = self.live[kept], self.open[kept], self.stale[kept]
        if len(kept) == 0:
            return False
        chosen, codes, remembered = self.drawn(first, count, side)
        order = torch.arange(count, device=codes.device)
        clock = torch.zeros_like(self.live)
        for turn in itertools.count():
            look = turn % self.period == 0
            if look and remembered:
                self.refresh(side)
            # Each example goes on to its next proposal whose answer is not known.
            waiting = self.open.gather(1, codes).logical_or_(self.stale[:, None])
            at = torch.where(waiting & (order >= clock[:, None]), order, count).amin(1)
            going = (at < count) & ~self.fooled[self.live]
            if look:
                asked = going.nonzero().squeeze(1)
                if len(asked) == 0:
                    break
                batch = filled(asked, self.least)
                rows, labels = self.live[batch], self.y[self.live[batch]]
            at, going = at[batch].clamp_(max=count - 1), going[batch]
            image = self.x_best[rows]
            x_new = self.squares.proposed(image, rows, side, chosen[batch, at])
            value, wrong = _judged(self.model, x_new, labels)
            better = going & (wrong | (value > self.value[rows]))
            self.x_best[rows] = torch.where(better[:, None, None, None], x_new, image)
            self.value[rows] = torch.where(better, value, self.value[rows])
            self.fooled[rows] |= better & wrong
            self.spent[self.live[asked]] += 1
            self.stale[batch] |= better
            self.open[batch, codes[batch, at]] &= ~going
            clock[batch] = at + 1
        return True

    def drawn(self, first: int, count: int, side: int) -> tuple[Tensor, Tensor, bool]:
        """The proposals of a block of queries.

        Returns:
            (L, count, number of choices), the choices of each live example; (L, count), each
            proposal's place among all possible ones; and whether these are few enough to remember.
        """
        choices = self.squares.choices(side)
        possible = math.prod(choices)
        remembered = possible <= REMEMBERED
        if side != self.side:
            self.side, self.stale = side, torch.ones_like(self.stale)
            columns = possible if remembered else 1
            self.open = self.stale.new_zeros(len(self.live), columns)
        stream = self.noise.take(self.live).fold_in(first)
        shares = stream.uniform((count, len(choices)), restart=self.restart).double()
        chosen = shares.mul_(shares.new_tensor(choices)).long()
        if not remembered:
            return chosen, torch.zeros_like(chosen[:, :, 0]), False
        strides = [math.prod(choices[place + 1 :]) for place in range(len(choices))]
        return chosen, (chosen * chosen.new_tensor(strides)).sum(2), True

    def refresh(self, side: int) -> None:
        """Begin anew to remember, for the examples whose image has changed."""
        places = self.stale.nonzero().squeeze(1)
        if len(places):
            rows = self.live[places]
            self.open[places] = self.squares.changing(self.x_best[rows], rows, side)
            self.stale[places] = False


class _Squares(ABC):
    """The changes that a query may propose, under one norm.

    A proposal is a tuple of choices, each a number below the `choices` of its side length.
    """

    def __init__(self, x: Tensor, threat: ThreatModel) -> None:
        self.x, self.threat = x, threat
        self.channels, self.height, self.width = x.shape[1:]

    @abstractmethod
    def side(self, share: float) -> int:
        """The side length of the square that covers this share of the image, in pixels."""

    @abstractmethod
    def start(self, noise: Noise, restart: int) -> Tensor:
        """(N, C, H, W), the first image."""

    @abstractmethod
    def choices(self, side: int) -> tuple[int, ...]:
        """How many there are of each choice."""

    @abstractmethod
    def proposed(self, image: Tensor, rows: Tensor, side: int, chosen: Tensor) -> Tensor:
        """What a proposal makes of an image.

        Args:
            image: (M, C, H, W).
            rows: (M,) which examples they are.
            side: of the squares.
            chosen: (M, number of choices).

        Returns:
            (M, C, H, W) in the threat set, a new tensor.
        """

    @abstractmethod
    def changing(self, image: Tensor, rows: Tensor, side: int) -> Tensor:
        """(M, product of the choices) bool: the proposals that may change the image."""

    def nearest_side(self, share: float) -> int:
        return round(math.sqrt(share * self.height * self.width))

    def places(self, side: int) -> tuple[int, int]:
        """How many places there are for the upper left corner."""
        return self.height - side + 1, self.width - side + 1

    def window(self, top: Tensor, left: Tensor, side: int) -> Tensor:
        """(M, C, side * side), the pixels of each square, as places in the flattened image."""
        along = torch.arange(side, device=top.device)
        pixels = (top[:, None, None] + along[:, None]) * self.width + left[:, None, None] + along
        return pixels.flatten(1)[:, None].expand(-1, self.channels, -1)


class _Corners(_Squares):
    """For linf: each channel of the square is moved to an end of its range (algorithm 2).

    The images of the search are corners of the threat set: x_best +- 2 epsilon, clamped, is one.
    """

    def __init__(self, x: Tensor, threat: ThreatModel) -> None:
        super().__init__(x, threat)
        self.low = (x - threat.epsilon).clamp_(min=0)
        self.high = (x + threat.epsilon).clamp_(max=1)

    def side(self, share: float) -> int:
        return min(max(self.nearest_side(share), 1), self.height, self.width)

    def start(self, noise: Noise, restart: int) -> Tensor:
        """Vertical stripes (section 4.1)."""
        up = noise.uniform((self.channels, 1, self.width), restart=restart) < 0.5
        return torch.where(up, self.high, self.low)

    def choices(self, side: int) -> tuple[int, ...]:
        """The sign in each channel, and the place."""
        return *(2,) * self.channels, *self.places(side)

    def proposed(self, image: Tensor, rows: Tensor, side: int, chosen: Tensor) -> Tensor:
        up = chosen[:, : self.channels, None] == 1
        window = self.window(chosen[:, -2], chosen[:, -1], side)
        low = self.low[rows].flatten(2).gather(2, window)
        high = self.high[rows].flatten(2).gather(2, window)
        return image.flatten(2).scatter(2, window, torch.where(up, high, low)).view_as(image)

    def changing(self, image: Tensor, rows: Tensor, side: int) -> Tensor:
        """Those whose square has a pixel that is not yet at the end to which it would be moved."""
        room = torch.stack([image > self.low[rows], image < self.high[rows]], 1)
        lines = F.max_pool2d(room.to(image.dtype).flatten(0, 1), (1, side), stride=1)
        room = F.max_pool2d(lines, (side, 1), stride=1).view(*room.shape[:3], -1) > 0
        found = room[:, :, 0]
        for channel in range(1, self.channels):
            found = (found[:, :, None] | room[:, None, :, channel]).flatten(1, 2)
        return found.flatten(1)


class _Bumps(_Squares):
    """For l2 and l1: mass is moved from a second square into the first (algorithm 3)."""

    def __init__(self, x: Tensor, threat: ThreatModel) -> None:
        super().__init__(x, threat)
        self.bumps: dict[int, Tensor] = {}

    def side(self, share: float) -> int:
        odd = max(self.nearest_side(share), 3) // 2 * 2 + 1
        return min(odd, self.height, self.width)

    def start(self, noise: Noise, restart: int) -> Tensor:
        """Tiles with a bump in each, of a fifth of the image's height (section 4.2)."""
        side = max(min(self.height, self.width) // 5, 1)
        down, across = self.height // side, self.width // side
        drawn = noise.uniform((1 + self.channels, down, across), restart=restart) < 0.5
        bumps = self.bump(side)[drawn[:, :1].long()]  # (N, 1, down, across, side, side)
        tiles = torch.where(drawn[:, 1:, :, :, None, None], bumps, -bumps)
        tiles = tiles.transpose(3, 4).reshape(-1, self.channels, down * side, across * side)
        above, before = (self.height - down * side) // 2, (self.width - across * side) // 2
        delta = torch.zeros_like(self.x)
        delta[:, :, above : above + down * side, before : before + across * side] = tiles
        if self.threat.norm == "l2":
            delta = self.threat.steepest(delta).mul_(self.threat.epsilon)
        return self.threat.project(self.x + delta, self.x)

    def choices(self, side: int) -> tuple[int, ...]:
        """The sign in each channel, the bump's orientation, and the places of both squares."""
        return *(2,) * self.channels, 2, *self.places(side), *self.places(side)

    def proposed(self, image: Tensor, rows: Tensor, side: int, chosen: Tensor) -> Tensor:
        x, order, epsilon = self.x[rows], self.threat.order, self.threat.epsilon
        signs = chosen[:, : self.channels, None] * 2 - 1
        turned, top, left, other_top, other_left = chosen[:, self.channels :].T
        first = self.window(top, left, side)
        second = self.window(other_top, other_left, side)
        nu = (image - x).flatten(2)
        inner, outer = nu.gather(2, first), nu.gather(2, second)
        # What is in the union of the squares: the second counts only where it is not in the first.
        line, column = second[:, :1] // self.width, second[:, :1] % self.width
        line, column = line - top[:, None, None], column - left[:, None, None]
        shared = (line >= 0) & (line < side) & (column >= 0) & (column < side)
        here, there = _mass(inner, order), _mass(outer.masked_fill(shared, 0), order)
        unused = (epsilon**order - _mass(nu, order).sum(1, keepdim=True)).clamp_(min=0)
        available = (here + there + unused / self.channels) ** (1 / order)
        if order == 1:  # more than there is: the projection then makes the perturbation sparser
            available = available * self.channels
        bump = self.bump(side)[turned].flatten(1)[:, None]
        moved = signs * bump + _unit(inner, order)
        nu = nu.scatter(2, second, 0).scatter(2, first, _unit(moved, order) * available)
        return self.threat.project(x + nu.view_as(x), x)

    def changing(self, image: Tensor, rows: Tensor, side: int) -> Tensor:
        """All of them."""
        return image.new_ones(len(rows), math.prod(self.choices(side)), dtype=torch.bool)

    def bump(self, side: int) -> Tensor:
        """(2, side, side): the bump eta of unit length (equation 2), and its transpose.

        One half is positive, the other negative; both have the same length, as in the code.
        """
        if side not in self.bumps:
            upper = _half(side // 2, side, self.threat.norm)
            lower = _half(side - side // 2, side, self.threat.norm)
            order = self.threat.order
            flat = _unit(torch.cat([_unit(upper, order), -_unit(lower, order)]), order)
            bump = flat.view(side, side)
            self.bumps[side] = torch.stack([bump, bump.T]).to(self.x)
        return self.bumps[side]


def _half(height: int, width: int, norm: str) -> Tensor:
    """(height * width,) one half of a bump: it falls with the distance from its middle.

    At distance d it is the sum of 1 / (j + 1)^2 over j = d, ..., max(height, width) // 2; for l1
    the fourth powers make it steeper.
    """
    line = (torch.arange(height) - height // 2).abs()[:, None]
    column = (torch.arange(width) - width // 2).abs()
    power = 4 if norm == "l1" else 2
    terms = torch.arange(1, max(height, width) // 2 + 2, dtype=torch.float64) ** -power
    return terms.flip(0).cumsum(0).flip(0)[torch.maximum(line, column)].flatten()


def _mass(values: Tensor, order: float) -> Tensor:
    """(..., 1), the sum of the powers of the last dimension: 1 for l1, 2 for l2."""
    return values.abs().pow(order).sum(-1, keepdim=True)


def _unit(values: Tensor, order: float) -> Tensor:
    """Scaled to unit length along the last dimension; zeros stay."""
    length: Tensor = torch.linalg.vector_norm(values, ord=order, dim=-1, keepdim=True)
    return values / length.clamp_(min=torch.finfo(values.dtype).tiny)
