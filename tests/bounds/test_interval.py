"""Intervals hold every output, are exact where they can be, and refuse what they do not know."""

import numpy as np
import pytest
import torch
from torch import nn

from advtrain.bounds.interval import (
    Interval,
    ball,
    layers_of,
    propagate,
    through,
    worst_case_logits,
)
from advtrain.models.normalisation import NormalizeEach
from advtrain.models.preact_resnet import preact_resnet
from tests.bounds.networks import CLASSES, NAMES, images, inside, labels, network, outputs, steepest

ROUNDING = 1e-12


@pytest.mark.parametrize("epsilon", [0.0, 0.01, 0.3])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_bounds_hold_the_outputs_of_the_whole_ball(name: str, seed: int, epsilon: float) -> None:
    model, x, y = network(name, seed), images(), labels()
    box = ball(x, epsilon)
    lower, upper = propagate(layers_of(model), box)
    worst = worst_case_logits(model, x, y, epsilon)
    logits = outputs(model, inside(box))
    assert (logits >= lower - ROUNDING).all()
    assert (logits <= upper + ROUNDING).all()
    assert (logits - logits[:, torch.arange(5), y, None] <= worst + ROUNDING).all()


def test_the_ball_ends_at_black_and_white() -> None:
    lower, upper = ball(torch.tensor([0.0, 0.05, 0.5, 1.0]), 0.1)
    assert lower.tolist() == pytest.approx([0, 0, 0.4, 0.9])
    assert upper.tolist() == pytest.approx([0.1, 0.15, 0.6, 1])


def test_one_affine_layer_is_exact() -> None:
    # Each end is reached at a corner, the one that the row's signs choose.
    model, x = network("linear"), images()
    box = ball(x, 0.07)
    lower, upper = propagate(layers_of(model), box)
    worst = worst_case_logits(model, x, labels(), 0.07)
    for k in range(CLASSES):
        row = torch.eye(CLASSES, dtype=torch.float64)[k]
        high = (model(steepest(model, x, box, row)) * row).sum(1)
        low = (model(steepest(model, x, box, -row)) * row).sum(1)
        torch.testing.assert_close(upper[:, k], high, rtol=0, atol=ROUNDING)
        torch.testing.assert_close(lower[:, k], low, rtol=0, atol=ROUNDING)
        row = row - torch.eye(CLASSES, dtype=torch.float64)[labels()]
        high = (model(steepest(model, x, box, row)) * row).sum(1)
        torch.testing.assert_close(worst[:, k], high, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(1, 3, 3, stride=2, padding=1, dilation=2),
        nn.Conv2d(1, 3, 3, padding="same", bias=False),
        nn.AvgPool2d(2),
        nn.AdaptiveAvgPool2d(3),
    ],
    ids=repr,
)
def test_convolutions_and_pools_are_exact(layer: nn.Module) -> None:
    layer, box = layer.double(), ball(images(2), 0.07)
    lower, upper = through(layer, box)
    # A matrix product over its Jacobian, whose signs choose the corner.
    zero = torch.zeros(1, 1, 8, 8, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(layer, zero).reshape(lower[0].numel(), 64)
    origin = layer(zero).flatten()
    low, high = box.lower.flatten(1), box.upper.flatten(1)
    rising, falling = jacobian.clamp(min=0).T, jacobian.clamp(max=0).T
    expected = (low @ rising + high @ falling + origin, high @ rising + low @ falling + origin)
    torch.testing.assert_close(lower.flatten(1), expected[0], rtol=0, atol=ROUNDING)
    torch.testing.assert_close(upper.flatten(1), expected[1], rtol=0, atol=ROUNDING)


def test_batch_norm_counts_by_its_running_averages_in_either_mode() -> None:
    norm = nn.BatchNorm2d(2).double()
    nn.init.constant_(norm.bias, 0.5)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([3.0, -2.0]))
    norm.running_mean.fill_(1.0)
    norm.running_var.fill_(4.0 - norm.eps)
    box = Interval(torch.zeros(1, 2, 1, 1).double(), torch.ones(1, 2, 1, 1).double())
    for mode in (True, False):
        lower, upper = through(norm.train(mode), box)
        # 3 (z - 1) / 2 + .5 and -2 (z - 1) / 2 + .5 on [0, 1]; a negative scale swaps the ends.
        assert lower.flatten().tolist() == pytest.approx([-1.0, 0.5])
        assert upper.flatten().tolist() == pytest.approx([0.5, 1.5])
    assert int(norm.num_batches_tracked) == 0
    assert norm.running_mean.tolist() == [1.0, 1.0]


def test_two_neurons_by_hand() -> None:
    # x in [1/4, 3/4]: 2 x - 1 in [-1/2, 1/2], so relu in [0, 1/2]; x itself in [1/4, 3/4].
    model = two_neurons()
    x = torch.full((1, 1, 1, 1), 0.5, dtype=torch.float64)
    lower, upper = propagate(layers_of(model), ball(x, 0.25))
    assert lower.tolist() == [[-0.25, 0.0]]
    assert upper.tolist() == [[0.75, 0.0]]
    assert worst_case_logits(model, x, torch.tensor([0]), 0.25).tolist() == [[0.0, 0.25]]
    assert worst_case_logits(model, x, torch.tensor([1]), 0.25).tolist() == [[0.75, 0.0]]


def two_neurons() -> nn.Sequential:
    """Logits (relu(x) - relu(2 x - 1), 0) of a one-pixel image."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 2)).double()
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[2.0], [1.0]]))
        model[1].bias.copy_(torch.tensor([-1.0, 0.0]))
        model[3].weight.copy_(torch.tensor([[-1.0, 1.0], [0.0, 0.0]]))
        model[3].bias.zero_()
    return model


def test_worst_case_logits_are_those_of_a_plain_reference() -> None:
    # Sums of positive and negative parts in numpy, one example, class and layer at a time.
    model, x, y, epsilon = network("perceptron"), images(), labels(), 0.05
    weights = [(m.weight.detach().numpy(), m.bias.detach().numpy()) for m in model[1::2]]

    def affine(
        low: np.ndarray, high: np.ndarray, w: np.ndarray, b: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        up, down = np.maximum(w, 0), np.minimum(w, 0)
        return up @ low + down @ high + b, up @ high + down @ low + b

    for n in range(len(x)):
        pixels = x[n].flatten().numpy()
        low, high = np.maximum(pixels - epsilon, 0), np.minimum(pixels + epsilon, 1)
        for w, b in weights[:-1]:
            low, high = affine(low, high, w, b)
            low, high = np.maximum(low, 0), np.maximum(high, 0)
        w, b = weights[-1]
        _, expected = affine(low, high, w - w[y[n]], b - b[y[n]])
        found = worst_case_logits(model, x, y, epsilon)[n].detach().numpy()
        np.testing.assert_allclose(found, expected, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("name", NAMES)
def test_without_a_ball_the_bounds_are_the_logits(name: str) -> None:
    model, x, y = network(name), images(), labels()
    logits = model(x)
    expected = logits - logits.gather(1, y[:, None])
    worst = worst_case_logits(model, x, y, 0.0)
    torch.testing.assert_close(worst, expected, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("name", NAMES)
def test_the_label_is_at_zero_and_elision_only_tightens(name: str) -> None:
    model, x, y = network(name), images(), labels()
    worst = worst_case_logits(model, x, y, 0.1)
    assert worst.gather(1, y[:, None]).tolist() == [[0.0]] * len(x)
    lower, upper = propagate(layers_of(model), ball(x, 0.1))
    others = torch.ones_like(worst).scatter(1, y[:, None], 0.0).bool()
    slack = (upper - lower.gather(1, y[:, None]) - worst)[others]
    assert slack.min() >= -ROUNDING
    assert slack.max() > 1e-3


class Doubling(nn.Sequential):
    """A Sequential that does not do what a Sequential does."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ([NormalizeEach()], "layer 0 of the network, NormalizeEach, .* other than per_image"),
        ([nn.Identity(), nn.MaxPool2d(2)], "layer 1 of the network, MaxPool2d, cannot be bounded"),
        ([nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect")], "Conv2d, .* 'reflect', not zero"),
        ([nn.BatchNorm2d(1, track_running_stats=False)], "it keeps no running averages"),
        ([nn.Flatten(), nn.Linear(64, 4), nn.ReLU()], "layer 2 .*: the last layer has to be Lin"),
        ([Doubling(nn.ReLU())], "layer 0 of the network, Doubling, .*: no bounds are known"),
    ],
    ids=lambda value: "",
)
def test_a_layer_without_bounds_is_named(layers: list[nn.Module], words: str) -> None:
    ends = [] if "last" in words else [nn.Flatten(), nn.Linear(64, 4)]
    model = nn.Sequential(*layers, *ends)
    with pytest.raises(ValueError, match=words):
        worst_case_logits(model, torch.rand(2, 1, 8, 8), torch.zeros(2).long(), 0.1)


def test_residual_blocks_have_no_bounds() -> None:
    model = preact_resnet(channels=1, size=8, classes=4, width=4)
    with pytest.raises(ValueError, match="layer 2 of the network, PreactBlock, .* small_cnn"):
        layers_of(model)
