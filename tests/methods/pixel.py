"""A network whose attacks are known: one pixel, one border between two classes."""

import torch
from torch import Tensor, nn

from advtrain.methods.method import Batch
from advtrain.noise import Noise


class Pixel(nn.Module):
    """Logits (slope (x - border), 0) in float64: class 0 above the border; it counts its rows.

    The cross-entropy of class 0 falls with x, so that its attacker lowers x; that of class 1 rises.
    """

    def __init__(self, border: float = 0.5, slope: float = 3.0) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(slope, dtype=torch.float64))
        self.border = border
        self.forwards = self.backwards = 0

    def forward(self, x: Tensor) -> Tensor:
        self.forwards += len(x)
        value = self.slope * (x.double().flatten(1) - self.border)
        logits = torch.cat([value, torch.zeros_like(value)], dim=1)
        if logits.requires_grad:
            logits.register_hook(self._count)
        return logits

    def _count(self, gradient: Tensor) -> None:
        self.backwards += len(gradient)


def pixels(values: list[float], labels: list[int], *, progress: float = 0.0) -> Batch:
    """A minibatch of one-pixel images, with ids from 0."""
    x = torch.tensor(values, dtype=torch.float64).view(-1, 1, 1, 1)
    return Batch(x, torch.tensor(labels), torch.arange(len(values)), progress=progress)


def noise_of(batch: Batch) -> Noise:
    return Noise(5, batch.example)
