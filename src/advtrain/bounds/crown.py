"""CROWN: Zhang et al. 2018, "Efficient neural network robustness certification ..." (NeurIPS)."""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advtrain.bounds.interval import Interval, ball, layers_of, through

Intermediate = Literal["crown", "ibp"]
"""How the inputs of the ReLUs are bounded: as the logits are, or by interval propagation."""

# Activations of the widest layer that are held at once, for all the functions in hand: on a CPU
# what its cache holds (2 MiB in float64, twice as fast as 32), elsewhere what fills the device.
ELEMENTS = {"cpu": 2**18}
MORE_ELEMENTS = 2**24


@torch.no_grad()
def worst_case_logits(
    model: nn.Module, x: Tensor, y: Tensor, epsilon: float, *, intermediate: Intermediate
) -> tuple[Tensor, Tensor]:
    """Upper bounds on z_k - z_y over the ball by linear relaxation (Zhang et al. 2018, sec. 3).

    A linear function of the logits is substituted back, layer by layer, until it is one of the
    pixels, whose minimum over the ball is known. Where a ReLU's input has the bounds l < 0 < u it
    is replaced by one of two lines, by the sign of the coefficient:

        s z  <=  relu(z)  <=  u (z - l) / (u - l),   s = 1 if u > -l, else 0

    (the adaptive lower line, CROWN-Ada). With `ibp` this is the bound of CROWN-IBP (Zhang et al.
    2020); it is cheaper, and looser.

    Departs from the paper: the bounds of a ReLU's input are intersected with those of interval
    propagation, and the first ReLU's are those, which are exact behind one convolution or linear
    layer.

    Args:
        model: a network of `interval.BOUNDED` layers in a row, the last one linear, in eval mode.
        x: (N, C, H, W) in [0, 1].
        y: (N,) the classes that are compared with.
        epsilon: of the linf ball, in pixel units.
        intermediate: how the inputs of the ReLUs are bounded.

    Returns:
        The bounds (N, K), 0 at y, without a graph; and (N,) int64, how many linear functions were
        substituted back for the example: one per class, and with `crown` two per neuron whose sign
        is open.

    Raises:
        ValueError: naming the layer that has no bounds, or for another `intermediate`.
    """
    if intermediate not in ("crown", "ibp"):
        raise ValueError(f"intermediate bounds are 'crown' or 'ibp', got {intermediate!r}")
    layers = layers_of(model)
    boxes = [ball(x, epsilon)]
    functions = torch.zeros_like(y)
    for depth, layer in enumerate(layers[:-1]):
        if isinstance(layer, nn.ReLU) and intermediate == "crown":
            below = layers[:depth]
            if any(isinstance(one, nn.ReLU) for one in below):
                open_signs = _open(boxes[-1])
                boxes[-1] = _tightened(below, boxes, open_signs)
                functions = functions + 2 * open_signs.sum(1)
        boxes.append(through(layer, boxes[-1]))
    last = layers[-1]
    assert isinstance(last, nn.Linear)
    unit = torch.eye(last.out_features, dtype=x.dtype, device=x.device)
    pairs = torch.cartesian_prod(*(torch.arange(n, device=x.device) for n in (len(x), len(unit))))
    lower = _lower(layers, boxes, pairs, lambda example, k: unit[y[example]] - unit[k])
    return -lower.view(len(x), len(unit)), functions + len(unit)


def _open(box: Interval) -> Tensor:
    """(N, units) bool: where the bounds leave the sign open."""
    return ((box.lower < 0) & (box.upper > 0)).flatten(1)


def _tightened(layers: Sequence[nn.Module], boxes: list[Interval], chosen: Tensor) -> Interval:
    """The last interval, cut by the linear bounds of the chosen units."""
    box = boxes[-1]
    pairs = chosen.nonzero()
    if len(pairs) == 0:
        return box

    def one_hot(example: Tensor, unit: Tensor) -> Tensor:
        rows = F.one_hot(unit, chosen.shape[1]).to(box.lower.dtype)
        return rows.view(-1, *box.lower.shape[1:])

    low = _lower(layers, boxes, pairs, one_hot)
    high = -_lower(layers, boxes, pairs, lambda example, unit: -one_hot(example, unit))
    lower, upper = (end.flatten(1).clone() for end in box)
    lower[chosen] = torch.maximum(lower[chosen], low)
    upper[chosen] = torch.minimum(upper[chosen], high)
    return Interval(lower.view_as(box.lower), upper.view_as(box.upper))


def _lower(
    layers: Sequence[nn.Module],
    boxes: Sequence[Interval],
    pairs: Tensor,
    rows: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """Lower bounds (P,) of linear functions of the layers' output, some at a time.

    Args:
        layers: up to the output.
        boxes: of each layer's input, for all examples.
        pairs: (P, 2) of an example and a number.
        rows: (examples (p,), numbers (p,)) -> coefficients (p, *output).
    """
    elements = ELEMENTS.get(pairs.device.type, MORE_ELEMENTS)
    size = max(1, elements // max(box.lower[0].numel() for box in boxes))
    lines = [
        _lines(box) if isinstance(layer, nn.ReLU) else None
        for layer, box in zip(layers, boxes, strict=False)
    ]
    parts = (part.unbind(1) for part in torch.split(pairs, size))
    return torch.cat(
        [
            _substituted(layers, boxes, lines, rows(example, other), example)
            for example, other in parts
        ]
    )


class Lines(NamedTuple):
    """Two lines about relu(z): below * z <= relu(z) <= slope * z + offset, element by element."""

    below: Tensor
    slope: Tensor
    offset: Tensor


def _lines(box: Interval) -> Lines:
    # A neuron of known sign has l or u at 0 here, and both lines are relu(z) itself.
    low, high = box.lower.clamp(max=0), box.upper.clamp(min=0)
    slope = high / (high - low).clamp(min=torch.finfo(high.dtype).tiny)
    return Lines((high > -low).to(high.dtype), slope, -slope * low)


def _substituted(
    layers: Sequence[nn.Module],
    boxes: Sequence[Interval],
    lines: Sequence[Lines | None],
    row: Tensor,
    example: Tensor,
) -> Tensor:
    """Lower bounds (p,) of `row` . output for the boxes of `example`, down to the first box."""
    bound = row.new_zeros(len(row))
    for layer, box, about in zip(
        reversed(layers), reversed(boxes[: len(layers)]), reversed(lines), strict=True
    ):
        if about is not None:
            rising, falling = row.clamp(min=0), row.clamp(max=0)
            bound = bound + (falling * about.offset[example]).flatten(1).sum(1)
            row = rising.mul_(about.below[example]) + falling.mul_(about.slope[example])
        else:
            # Affine: f(z) = J z + f(0), and J^T row is what backpropagation computes.
            origin = row.new_zeros(len(row), *box.lower.shape[1:], requires_grad=True)
            with torch.enable_grad():
                constant = layer(origin)
            bound = bound + (row * constant.detach()).flatten(1).sum(1)
            (row,) = torch.autograd.grad(constant, origin, row)
    lower, upper = boxes[0].lower[example], boxes[0].upper[example]
    return bound + (row.clamp(min=0) * lower + row.clamp(max=0) * upper).flatten(1).sum(1)
