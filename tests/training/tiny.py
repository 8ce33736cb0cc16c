"""The smallest data and network that show what the loop does; imported by the killed runs too."""

import importlib

import torch
from torch import nn

from advtrain.data.store import Split
from advtrain.methods.method import Method
from advtrain.params import signatures
from advtrain.training.loop import TrainingData

CLASSES = 3
METHODS = [one for one in signatures.modules("methods") if signatures.is_trained(one)]


def made(name: str) -> Method:
    """A method with its defaults."""
    kind = getattr(importlib.import_module(f"advtrain.methods.{name}"), signatures.camel_case(name))
    method = kind()
    assert isinstance(method, Method)
    return method


def split_of(count: int, seed: int) -> Split:
    generator = torch.Generator().manual_seed(seed)
    patterns = torch.rand(CLASSES, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(count) % CLASSES
    images = 0.7 * patterns[labels] + 0.3 * torch.rand(count, 1, 4, 4, generator=generator)
    return Split((images * 255).to(torch.uint8), labels, torch.arange(count) + 1000 * seed)


def tiny_data() -> TrainingData:
    return TrainingData(split_of(22, seed=1), split_of(12, seed=2))


def network(*, norm: bool = True, dropout: float = 0.2) -> nn.Module:
    """BatchNorm holds buffers, dropout draws from torch's global generator."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.BatchNorm2d(4) if norm else nn.Identity(),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(64, CLASSES),
        )


def assert_equal(one: object, other: object) -> None:
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_equal(one[key], other[key])
    else:
        assert one == other
