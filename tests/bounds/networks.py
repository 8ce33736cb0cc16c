"""Networks of every layer that has bounds, in float64, and images to bound them around."""

import torch
from torch import Tensor, nn

from advtrain.bounds.interval import Interval
from advtrain.models.small_cnn import small_cnn

CLASSES = 4
NAMES = ("small_cnn", "pooled", "perceptron", "linear")


def network(name: str, seed: int = 0) -> nn.Module:
    """Images (N, 1, 8, 8) -> logits (N, 4), with random weights, in eval mode."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = {
            "small_cnn": lambda: small_cnn(
                channels=1, size=8, classes=CLASSES, width=4, hidden=16, normalisation="mnist"
            ),
            "pooled": lambda: nn.Sequential(
                nn.Conv2d(1, 4, 3, padding="same", bias=False),
                nn.BatchNorm2d(4),
                nn.ReLU(),
                nn.AvgPool2d(2),
                nn.Sequential(nn.Conv2d(4, 8, 3, stride=2, groups=2), nn.ReLU(), nn.Identity()),
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
                nn.Linear(8, CLASSES, bias=False),
            ),
            "perceptron": lambda: nn.Sequential(
                nn.Flatten(),
                *(nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU()),
                nn.Linear(12, CLASSES),
            ),
            "linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, CLASSES)),
        }[name]()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):  # scales of both signs
                nn.init.normal_(module.weight)
                nn.init.normal_(module.bias)
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
    return model.double().eval()


def images(count: int = 5) -> Tensor:
    """Images with pixels at 0 and 1 among them."""
    generator = torch.Generator().manual_seed(count)
    return torch.rand(count, 1, 8, 8, generator=generator, dtype=torch.float64).mul(1.2).clamp(0, 1)


def labels(count: int = 5) -> Tensor:
    return torch.arange(count) % CLASSES


def inside(box: Interval, count: int = 300) -> Tensor:
    """(count, N, ...) points of an interval: corners, points of its faces and of its inside."""
    generator = torch.Generator().manual_seed(1)
    share = torch.rand(count, *box.lower.shape, generator=generator, dtype=torch.float64)
    third = count // 3
    share[:third] = share[:third].round()
    share[third : 2 * third] = share[third : 2 * third].mul(2).sub(0.5).clamp(0, 1)
    return box.lower + share * (box.upper - box.lower)


def outputs(model: nn.Module, points: Tensor) -> Tensor:
    """(count, N, ...) of points (count, N, C, H, W)."""
    with torch.no_grad():
        return model(points.flatten(0, 1)).unflatten(0, points.shape[:2])


def steepest(model: nn.Module, x: Tensor, box: Interval, row: Tensor) -> Tensor:
    """The corner of the box that a linear model's gradient of `row` . logits points to."""
    x = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad((model(x) * row).sum(), x)
    return torch.where(gradient > 0, box.upper, box.lower)
