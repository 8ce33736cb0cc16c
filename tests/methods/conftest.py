import pytest
import torch
from torch import nn

from advtrain.methods.method import Batch

CLASSES = 4


@pytest.fixture
def model() -> nn.Module:
    """A small network with BatchNorm, in train mode, as the loop hands it over."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(2, 6, 3, padding=1),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(6 * 5 * 3, CLASSES),
        ).train()


@pytest.fixture
def batch() -> Batch:
    """Ten images of an odd shape."""
    return batch_of(10)


def batch_of(count: int) -> Batch:
    generator = torch.Generator().manual_seed(count)
    return Batch(
        torch.rand(count, 2, 5, 3, generator=generator),
        torch.arange(count) % CLASSES,
        torch.arange(count) + 100,
    )
