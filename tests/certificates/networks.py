"""A data set that can be verified, and a network that was trained to be."""

import functools

import torch
from torch import Tensor, nn

from advtrain.methods.ibp import Ibp
from advtrain.methods.method import Batch
from advtrain.models.small_cnn import small_cnn
from advtrain.noise import Noise
from advtrain.threat import ThreatModel

CLASSES = 3
THREAT = ThreatModel("linf", 0.05)


def blobs(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images of one of three patterns, in much noise, and their labels."""
    patterns = torch.rand(CLASSES, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % CLASSES
    return 0.4 * patterns[y] + 0.6 * torch.rand(count, 1, 8, 8, generator=generator), y


@functools.cache
def trained() -> nn.Module:
    """A small network after 60 steps of IBP training: it errs, and verifies a part."""
    x, y = blobs(120, seed=1)
    example = torch.arange(120)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = small_cnn(channels=1, size=8, classes=CLASSES, width=4, hidden=16)
    method, steps = Ibp(), 60
    optimizer = torch.optim.Adam(model.parameters(), lr=0.005)
    for step in range(steps):
        batch = Batch(x, y, example, progress=step / steps)
        optimizer.zero_grad()
        x_adv = method.perturb(model, batch, THREAT, Noise(0, example))
        method.loss(model, batch, x_adv, THREAT, Noise(0, example)).total.backward()
        optimizer.step()
    model.zero_grad()
    return model.eval()
