"""The Square Attack: a random search over squares that needs no gradient."""

import itertools
import math
from bisect import bisect_left
from collections.abc import Callable, Iterator
from typing import Literal

import torch
from torch import Tensor, nn

from advtrain.attacks.attack import Attacked, check_norm, predictions
from advtrain.attacks.frozen import crafting
from advtrain.attacks.objectives import margin
from advtrain.attacks.restarts import SMALLEST_BATCH, best_of_restarts, filled
from advtrain.attacks.squares import Bumps, Corners, Rows, Squares
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
# The clock of an example that is fooled: after any block.
FOOLED = 2**31


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
    reach: Literal["whole", "published"] = "whole",
) -> Attacked:
    """The Square Attack (Andriushchenko et al. 2020, algorithm 1; for l1 Croce and Hein 2021).

    Each query proposes to change a square of random place, and is accepted if the margin of the
    best wrong class rises. The defaults are those of AutoAttack. Place and signs are drawn for each
    example, as in the paper.

    For linf and on the CPU, a proposal is not queried, though it is one of the `queries`, if its
    answer is known: it does not change the image, or was refused since the image last changed. The
    result is the same, for a model that gives the same image the same logits.

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
        reach: a square's place: anywhere in the image (the paper); or never in the last row and
            column, as in the official code, which tells on images of a few pixels.

    Returns:
        The first misclassified image or the one of the largest margin, and that margin. It spends 1
        forward pass on the clean image and at most `queries` on each restart, no backward pass. An
        example that is misclassified without an attack is returned as it is.

    Raises:
        ValueError: for a norm that it does not know, or a single class.

    Departs from the official code (AutoAttack), which gives all examples of a batch the same
    place, orientation and, for linf, signs, and stops at a margin of 0. For linf, every proposal is
    exactly at the ends of the allowed range, which there it is up to rounding. For l2, the tiles of
    the start are centred in both directions, and after a change the perturbation is scaled to
    epsilon only if it is longer.
    """
    check_norm("square", threat, NORMS)
    kind = Corners if threat.norm == "linf" else Bumps
    least = min(SMALLEST_BATCH, len(x))

    def side(query: int) -> int:
        at = int(query / queries * SCHEDULED) if rescaled else query
        share = initial_share * 0.5 ** bisect_left(HALVINGS, at)
        return kind.nearest_side(share, x.shape[2], x.shape[3])

    def attempt(rows: Tensor, number: int) -> tuple[Attacked, Tensor]:
        if number == 0:
            return clean, wrong
        search = _Search(
            *(model, x[rows], y[rows], threat, kind, reach == "whole"),
            *(noise.take(rows), number - 1, least),
        )
        for block in _blocks(queries, side):
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


def _blocks(queries: int, side: Callable[[int], int]) -> Iterator[tuple[int, int, int]]:
    """(first query, how many, their side): all queries after the start, in blocks of one side."""
    for length, same in itertools.groupby(range(1, queries), side):
        members = list(same)
        for place in range(0, len(members), BLOCK):
            yield members[place], len(members[place : place + BLOCK]), length


def stalls(device: torch.device) -> bool:
    """Whether a look at a result makes Python wait for the device."""
    return device.type != "cpu"


def _judged(model: nn.Module, x_adv: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """(N,) the margin of the best wrong class, and (N,) bool: misclassified."""
    logits = model(x_adv)
    return margin(logits, y).to(x_adv.dtype), predictions(logits) != y


class _Search:
    """Algorithm 1 for several examples at once.

    Attributes:
        x_best: (N, C, H, W), the first misclassified image or the one of the largest value.
        value: (N,) the margin there.
        fooled: (N,) bool: x_best is misclassified.
        spent: (N,) int64, forward passes.
    """

    def __init__(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        threat: ThreatModel,
        kind: type[Squares],
        whole: bool,
        noise: Noise,
        restart: int,
        least: int,
    ) -> None:
        self.model, self.x, self.y, self.threat, self.kind = model, x, y, threat, kind
        self.noise, self.restart, self.least, self.whole = noise, restart, least, whole
        self.live = torch.arange(len(y), device=y.device)  # the examples that are not fooled
        self.queue = _Queue(len(y), y.device)
        self.x_best = kind.start(x, threat, noise, restart)
        batch = filled(self.live, least)
        value, fooled = _judged(model, self.x_best[batch], y[batch])
        self.value, self.fooled = value[: len(y)], fooled[: len(y)]
        self.spent = torch.ones_like(y)

    def run(self, first: int, count: int, side: int) -> bool:
        """Make the proposals of `count` queries, from the first on; False if none is left to fool.

        Each example is at a proposal of its own: it goes on at once from one to the next whose
        answer it does not know.
        """
        kept = (~self.fooled[self.live]).nonzero().squeeze(1)
        live = self.live = self.live[kept]
        if len(live) == 0:
            return False
        squares = self.kind(self.x[live], self.threat, side, self.whole)
        chosen = self.drawn(first, count, squares.choices)
        plan = squares.plan(chosen)
        x_best, value, y = self.x_best[live], self.value[live], self.y[live]
        self.queue.begin(kept, squares, chosen, x_best)
        period = PERIOD if stalls(x_best.device) else 1
        everyone = torch.arange(len(live), device=live.device)
        spent = torch.zeros_like(y)
        clock = torch.zeros_like(y)  # of each example: the first proposal that it has not yet met
        for turn in itertools.count():
            at = self.queue.next(clock)
            if turn % period == 0:
                asked = (at < count).nonzero().squeeze(1)
                if len(asked) == 0:
                    break
                batch = filled(asked, self.least)
                # Most often all take part, and nothing has to be gathered.
                rows: Rows = slice(None) if len(asked) == len(batch) == len(live) else batch
                batch = everyone if isinstance(rows, slice) else batch
            before, best, at = x_best[rows], value[rows], at[rows]
            going = at < count
            x_new = squares.proposed(before, rows, plan[batch, at.clamp(max=count - 1)])
            found, wrong = _judged(self.model, x_new, y[rows])
            better = going & (wrong | (found > best))
            x_best[rows] = torch.where(better.view(-1, 1, 1, 1), x_new, before)
            value[rows] = torch.where(better, found, best)
            clock[rows] = (at + 1).masked_fill_(better & wrong, FOOLED)
            spent[asked] += 1
            if self.queue.remembers:
                self.queue.changed(batch[better], x_best, clock)
        self.queue.end()
        self.x_best[live], self.value[live], self.fooled[live] = x_best, value, clock >= FOOLED
        self.spent[live] += spent
        return True

    def drawn(self, first: int, count: int, choices: tuple[int, ...]) -> Tensor:
        """(live, count, number of choices) int64, the proposals of these queries."""
        stream = self.noise.take(self.live).fold_in(first)
        shares = stream.uniform((count, len(choices)), restart=self.restart).double()
        return shares.mul_(shares.new_tensor(choices)).long()


class _Queue:
    """The next proposal of each example, among those of a block, whose answer is not known.

    Known are the answers to proposals that do not change the image, and to those refused since it
    last changed.
    """

    def __init__(self, count: int, device: torch.device) -> None:
        self.side = 0
        self.remembers = False
        # (N, possible proposals + 1): those that may be accepted; the last column has no meaning.
        self.open = torch.zeros(count, 1, dtype=torch.bool, device=device)

    def begin(self, kept: Tensor, squares: Squares, chosen: Tensor, x_best: Tensor) -> None:
        """A block begins, for the kept examples.

        Args:
            kept: (M,) int64, places among the examples of the last block.
            squares: of these examples.
            chosen: (M, B, number of choices).
            x_best: (M, C, H, W).
        """
        choices, self.squares = squares.choices, squares
        possible = math.prod(choices)
        everyone, start = torch.arange(len(kept), device=kept.device), torch.zeros_like(kept)
        few = possible <= REMEMBERED
        self.remembers = squares.telling and few and not stalls(x_best.device)
        if not self.remembers:
            return
        strides = [math.prod(choices[place + 1 :]) for place in range(len(choices))]
        self.codes = (chosen * chosen.new_tensor(strides)).sum(2)
        # The place of the same proposal, earlier in the block; -1 if there is none.
        codes, places = self.codes.sort(dim=1, stable=True)
        earlier = torch.where(codes[:, 1:] == codes[:, :-1], places[:, :-1], -1)
        self.earlier = torch.full_like(codes, -1).scatter_(1, places[:, 1:], earlier)
        self.order = torch.arange(codes.shape[1], device=codes.device)
        # From any place in the block, the next proposal to be queried; B if there is none.
        self.following = codes.new_full((len(kept), codes.shape[1] + 1), codes.shape[1])
        if squares.side == self.side:
            self.open = self.open[kept]
            self.listed(everyone, start)
        else:
            self.side, self.open = squares.side, self.open.new_zeros(len(kept), possible + 1)
            self.changed(everyone, x_best, start)

    def next(self, clock: Tensor) -> Tensor:
        """(M,) the first proposal from the clock on that is to be queried; B or more if none is."""
        if not self.remembers:
            return clock
        return self.following.gather(1, clock.clamp(max=len(self.order))[:, None]).squeeze(1)

    def changed(self, rows: Tensor, x_best: Tensor, clock: Tensor) -> None:
        """The images of some examples have changed; their next proposal is that at the clock."""
        if len(rows):
            self.open[rows, :-1] = self.squares.changing(x_best[rows], rows)
            self.listed(rows, clock[rows])

    def listed(self, rows: Tensor, since: Tensor) -> None:
        codes, earlier, since = self.codes[rows], self.earlier[rows], since[:, None]
        waiting = self.open[rows].gather(1, codes) & (self.order >= since) & (earlier < since)
        places = torch.where(waiting, self.order, len(self.order))
        self.following[rows, :-1] = places.flip(1).cummin(1).values.flip(1)

    def end(self) -> None:
        """The block is over: what has been queried since the last change was refused."""
        if self.remembers:
            queried = self.following[:, :-1] == self.order
            codes = torch.where(queried, self.codes, self.open.shape[1] - 1)
            self.open.scatter_(1, codes, False)
