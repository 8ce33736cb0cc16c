"""The smallest step within the box to a hyperplane, in three norms."""

from collections.abc import Callable

import torch
from torch import Tensor

# Of Newton's method between two looks at whether it has arrived: each look waits for the device.
ROUNDS = 5


def smallest_step(points: Tensor, w: Tensor, residual: Tensor, norm: str) -> Tensor:
    """The shortest d with <w, d> = -residual and point + d in [0, 1].

    It is the projection of Croce and Hein 2020 (the fast adaptive boundary attack, section 2). It
    never pays to move an entry so that |residual| grows. With the signs of d known, the sizes of
    its entries remain: 0 <= size <= room, what the box leaves in that direction, and
    sum |w| * size = |residual|.

    Where the hyperplane does not meet the box, d leads to the corner of the box that is nearest to
    it, but for the entries with w = 0, which never move.

    Departs from the official code: there, the l2 and l1 steps leave alone every entry with
    |w| < 1e-8, all those of a saturated network; and the residual is the difference of two large
    numbers, <w, point> and b.

    Args:
        points: (..., N, D) in [0, 1].
        w: (N, D) normals, finite.
        residual: (..., N), the value at each point of the affine function that is zero on the
            hyperplane and has the gradient w.
        norm: "linf", "l2" or "l1".

    Returns:
        (..., N, D).
    """
    heading = w.sign() * -residual.sign()[..., None]
    room = (heading.clamp(min=0) - points).abs_()
    # The equation divided by the largest |w|: the squares of small weights would underflow.
    huge, tiny = torch.finfo(w.dtype).max, torch.finfo(w.dtype).tiny
    largest = w.abs().amax(-1, keepdim=True).clamp_(min=tiny)
    goal = (residual.abs()[..., None] / largest).clamp_(max=huge)
    return SIZES[norm](w.abs().div_(largest), room, goal).mul_(heading)


def _linf_sizes(weight: Tensor, room: Tensor, goal: Tensor) -> Tensor:
    """All entries move alike until the box stops them: size = min(t, room)."""
    return room.minimum(_level(weight, room, goal))


def _l2_sizes(weight: Tensor, room: Tensor, goal: Tensor) -> Tensor:
    """Entries move like their weights until the box stops them: size = min(t * weight, room)."""
    stops = room / weight.clamp(min=torch.finfo(weight.dtype).tiny)
    return room.minimum(_level(weight.square(), stops, goal) * weight)


def _l1_sizes(weight: Tensor, room: Tensor, goal: Tensor) -> Tensor:
    """The entries of the largest weights move as far as the box lets them, up to the goal."""
    order = weight.argsort(stable=True, dim=-1, descending=True).expand_as(room)
    weight, room = weight.expand_as(room).gather(-1, order), room.gather(-1, order)
    gains = (weight * room).double()
    short = _cleaned((goal - (gains.cumsum(-1) - gains)).to(goal.dtype), goal)
    sizes = short.div_(weight.clamp_(min=torch.finfo(weight.dtype).tiny)).minimum(room)
    return torch.empty_like(sizes).scatter_(-1, order, sizes)


def _level(slopes: Tensor, stops: Tensor, goal: Tensor) -> Tensor:
    """The t at which the sum of slope * min(t, stop) is the goal, by Newton's method.

    The sum is concave and piecewise linear in t. Newton's method from below therefore climbs to the
    root without passing it, and is there after finitely many rounds, four or five for images: less
    work than sorting the D stops, with which the official code begins. A row that has arrived
    stays, so that no row depends on how long the others take.

    Args:
        slopes: (N, D).
        stops: (..., N, D).
        goal: (..., N, 1).

    Returns:
        (..., N, 1); where the goal cannot be reached, the largest number there is.
    """
    huge = torch.finfo(goal.dtype).max
    level, free = torch.zeros_like(goal), torch.empty_like(stops)
    while True:
        for _ in range(ROUNDS):
            short = _cleaned(goal - stops.minimum(level).mul_(slopes).sum(-1, keepdim=True), goal)
            # 0 and 1 as floats: with a mask of booleans, a sum takes ten times as long.
            slope = torch.gt(stops, level, out=free).mul_(slopes).sum(-1, keepdim=True)
            # With nothing free, what is missing cannot be had (inf), or nothing is (nan).
            climb = short.div_(slope).nan_to_num_(nan=0, posinf=huge)
            before, level = level, climb.add_(level).clamp_(max=huge)
        if not (level > before).any():
            return level


def _cleaned(short: Tensor, goal: Tensor) -> Tensor:
    """What is missing to the goal, 0 where nothing is or rounding alone can have left it.

    Divided by the tiny weights of the last entries, that would send them across the box.
    """
    rounding = 8 * torch.finfo(short.dtype).eps
    return short.mul_(torch.gt(short, rounding * goal, out=torch.empty_like(short)))


SIZES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "linf": _linf_sizes,
    "l2": _l2_sizes,
    "l1": _l1_sizes,
}
