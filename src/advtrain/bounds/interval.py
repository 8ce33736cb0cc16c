"""Interval bound propagation: Gowal et al. 2019, "Scalable verified training ..." (ICCV).

What the bounds guarantee: they hold the outputs of the network in exact arithmetic for every image
of the ball, but for the rounding of the bounds' own arithmetic, which is to nearest and not
outward: some units in the last place of the largest sums, per layer. A margin that is smaller than
that proves nothing, which is why the certificates compute in float64. What is not covered: a
float32 forward pass rounds the logits themselves (a share of about 1e-6, with TF32 1e-3), and a
float32 image can lie outside the ball by the rounding of a pixel, 2^-25.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advtrain.models.normalisation import Normalize

MONOTONE = (nn.Identity, Normalize, nn.ReLU, nn.Flatten, nn.AvgPool2d, nn.AdaptiveAvgPool2d)
"""Layers whose every output grows, or stays, with every input."""

BOUNDED = (*MONOTONE, nn.Conv2d, nn.BatchNorm2d, nn.Linear)
"""The layers that have bounds. All but ReLU are affine (BatchNorm by its running averages)."""


class Interval(NamedTuple):
    """All tensors between two, element by element.

    Attributes:
        lower: (N, ...).
        upper: (N, ...), at least `lower`.
    """

    lower: Tensor
    upper: Tensor


def ball(x: Tensor, epsilon: float) -> Interval:
    """The images of the linf ball around x that keep to [0, 1].

    Args:
        x: (N, C, H, W) in [0, 1].
        epsilon: in pixel units, 0 or more.
    """
    return Interval((x - epsilon).clamp(min=0), (x + epsilon).clamp(max=1))


def layers_of(model: nn.Module) -> list[nn.Module]:
    """The layers of a network in a row, each of which has bounds; the last one is linear.

    Raises:
        ValueError: naming the layer that has no bounds.
    """
    layers = _flat(model)
    for position, layer in enumerate(layers):
        # The exact type: a subclass can compute anything.
        if type(layer) not in BOUNDED:
            _refuse(layer, position, "no bounds are known for it")
        if isinstance(layer, nn.Conv2d) and layer.padding_mode != "zeros":
            _refuse(layer, position, f"its padding is {layer.padding_mode!r}, not zeros")
        if isinstance(layer, nn.BatchNorm2d) and layer.running_mean is None:
            _refuse(layer, position, "it keeps no running averages")
    if not isinstance(layers[-1], nn.Linear):
        _refuse(layers[-1], len(layers) - 1, "the last layer has to be Linear")
    return layers


def propagate(layers: Sequence[nn.Module], interval: Interval) -> Interval:
    """Bound the outputs of some layers in a row for all inputs of an interval."""
    for layer in layers:
        interval = through(layer, interval)
    return interval


def through(layer: nn.Module, interval: Interval) -> Interval:
    """Bound the outputs of one layer for all inputs of an interval (Gowal et al. 2019, sec. 3).

    A monotone layer maps the ends. An affine one maps the centre, and the radius by the magnitudes
    of its weights: mu' = W mu + b, r' = |W| r. Either is exact for the layer alone. BatchNorm is
    affine by its running averages, in train mode too: the bounds are those of the network in eval
    mode.

    Args:
        layer: one of `BOUNDED`.
        interval: (N, ...) ends.
    """
    if isinstance(layer, MONOTONE):
        return Interval(layer(interval.lower), layer(interval.upper))
    centre, radius = _middle(interval)
    if isinstance(layer, nn.Linear):
        centre, radius = layer(centre), F.linear(radius, layer.weight.abs())
    elif isinstance(layer, nn.Conv2d):
        centre = layer(centre)
        radius = F.conv2d(
            radius,
            layer.weight.abs(),
            stride=layer.stride,
            padding=layer.padding,
            dilation=layer.dilation,
            groups=layer.groups,
        )
    elif isinstance(layer, nn.BatchNorm2d):
        assert layer.running_var is not None  # `layers_of` has seen to it
        averages = (layer.running_mean, layer.running_var)
        centre = F.batch_norm(centre, *averages, layer.weight, layer.bias, eps=layer.eps)
        scale = (layer.running_var + layer.eps).rsqrt()
        scale = scale if layer.weight is None else scale * layer.weight.abs()
        radius = radius * scale[:, None, None]
    else:
        raise TypeError(f"no bounds for {type(layer).__name__}; has `layers_of` seen the network?")
    return Interval(centre - radius, centre + radius)


def worst_case_logits(model: nn.Module, x: Tensor, y: Tensor, epsilon: float) -> Tensor:
    """Upper bounds on z_k - z_y over the ball, the worst-case logits (Gowal et al. 2019, sec. 3).

    The differences of the logits are folded into the last linear layer ("elision of the last
    layer"), which is tighter than the difference of the bounds of two logits:

        max_{h in [l, u]} (W_k - W_y) h + b_k - b_y

    Args:
        model: a network of `BOUNDED` layers in a row, the last one linear.
        x: (N, C, H, W) in [0, 1].
        y: (N,) the classes that are compared with.
        epsilon: of the linf ball, in pixel units.

    Returns:
        (N, K), 0 at y. Where all others are negative, no image of the ball leaves class y.

    Raises:
        ValueError: naming the layer that has no bounds.
    """
    *body, last = layers_of(model)
    assert isinstance(last, nn.Linear)
    centre, radius = _middle(propagate(body, ball(x, epsilon)))
    weight = last.weight - last.weight[y][:, None]
    worst = torch.einsum("nkh,nh->nk", weight, centre)
    worst = worst + torch.einsum("nkh,nh->nk", weight.abs(), radius)
    return worst if last.bias is None else worst + (last.bias - last.bias[y][:, None])


def _middle(interval: Interval) -> tuple[Tensor, Tensor]:
    return (interval.upper + interval.lower) / 2, (interval.upper - interval.lower) / 2


def _flat(model: nn.Module) -> list[nn.Module]:
    if type(model) is not nn.Sequential:
        return [model]
    return [layer for child in model for layer in _flat(child)]


def _refuse(layer: nn.Module, position: int, reason: str) -> None:
    raise ValueError(
        f"bounds: layer {position} of the network, {type(layer).__name__}, cannot be bounded: "
        f"{reason}; expected a Sequential of {', '.join(one.__name__ for one in BOUNDED)}, such "
        "as small_cnn with a normalisation other than per_image"
    )
