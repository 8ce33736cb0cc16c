from collections.abc import Callable

import pytest
import torch
from torch import nn

from advtrain.models.preact_resnet import preact_resnet
from advtrain.models.resnet import resnet
from advtrain.models.small_cnn import small_cnn
from advtrain.models.wide_resnet import wide_resnet


def weights(function: Callable[..., nn.Module], size: int, classes: int, **given: int) -> int:
    with torch.device("meta"):
        model = function(channels=3, size=size, classes=classes, normalisation="none", **given)
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("function", "given", "size", "classes", "expected"),
    [
        (preact_resnet, {}, 32, 10, 11_172_170),
        (preact_resnet, {}, 32, 100, 11_218_340),
        (wide_resnet, {}, 32, 10, 46_160_474),
        (wide_resnet, {"depth": 32}, 32, 10, 46_160_474),
        (wide_resnet, {"depth": 28}, 32, 10, 36_479_194),
        (resnet, {"depth": 18}, 224, 1000, 11_689_512),
        (resnet, {}, 224, 1000, 25_557_032),
        (resnet, {"depth": 101}, 224, 1000, 44_549_160),
        (resnet, {"depth": 152}, 224, 1000, 60_192_808),
    ],
)
def test_published_numbers_of_weights(
    function: Callable[..., nn.Module],
    given: dict[str, int],
    size: int,
    classes: int,
    expected: int,
) -> None:
    assert weights(function, size, classes, **given) == expected


@pytest.mark.parametrize(("size", "convolutions"), [(4, 1), (8, 2), (16, 3), (28, 4), (32, 4)])
def test_small_cnn_ends_at_four_by_four(size: int, convolutions: int) -> None:
    model = small_cnn(channels=1, size=size, classes=10, width=4)
    assert sum(isinstance(layer, nn.Conv2d) for layer in model) == convolutions
    (features,) = (
        layer for layer in model if isinstance(layer, nn.Linear) and layer.out_features != 10
    )
    assert features.in_features == min(4 * 2 ** (convolutions - 1), 16) * 4 * 4


def test_small_cnn_has_no_statistics() -> None:
    model = small_cnn(channels=1, size=8, classes=10)
    assert not list(model.buffers())
    x = torch.rand(3, 1, 8, 8)
    assert torch.equal(model.train()(x), model.eval()(x))


def test_width_and_widen_scale_the_stages() -> None:
    assert weights(preact_resnet, 32, 10, width=16) < weights(preact_resnet, 32, 10) / 15
    assert weights(wide_resnet, 32, 10, depth=16, widen=1) == 175_066


def test_resnet_is_torchvisions() -> None:
    from torchvision import models

    with torch.random.fork_rng():
        torch.manual_seed(0)
        ours = resnet(channels=3, size=64, classes=10, depth=18, normalisation="none").eval()
        torch.manual_seed(0)
        theirs = models.resnet18(weights=None, num_classes=10).eval()
    x = torch.rand(2, 3, 64, 64)
    assert torch.equal(ours(x), theirs(x))


@pytest.mark.parametrize("depth", [8, 27, 30, 33, 4])
def test_depth_that_no_wide_network_has(depth: int) -> None:
    with pytest.raises(ValueError, match=rf"wide_resnet: depth is 6 n \+ 4 .* got {depth}"):
        wide_resnet(channels=3, size=32, classes=10, depth=depth)


def test_depths_that_do_not_exist() -> None:
    with pytest.raises(ValueError, match="preact_resnet: depth is 10, 18 or 34, got 50"):
        preact_resnet(channels=3, size=32, classes=10, depth=50)
    with pytest.raises(ValueError, match=r"resnet: depth is one of 18, 34, .* got 26"):
        resnet(channels=3, size=32, classes=10, depth=26)


def test_small_cnn_learns_the_digits() -> None:
    from sklearn.datasets import load_digits

    bundled = load_digits()
    x = torch.tensor(bundled.images / 16, dtype=torch.float32)[:, None]
    y = torch.tensor(bundled.target)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = small_cnn(channels=1, size=8, classes=10)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True)
        for _ in range(8):
            for rows in torch.split(torch.randperm(1400), 64):
                loss = nn.functional.cross_entropy(model(x[rows]), y[rows])
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()
    with torch.no_grad():
        correct = model(x[1400:]).argmax(1) == y[1400:]
    assert correct.float().mean() > 0.85
