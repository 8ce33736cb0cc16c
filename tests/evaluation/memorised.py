"""Random images, and networks that have learnt their labels by heart."""

import torch
from torch import nn

from advtrain.data.store import Split


def random_split(count: int) -> Split:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 1, 8, 8), dtype=torch.uint8, generator=generator)
    example = torch.randperm(1000, generator=generator)[:count]
    return Split(images, torch.arange(count) % 5, example)


def fitted(model: nn.Module, split: Split, learning_rate: float, steps: int) -> nn.Module:
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    for _ in range(steps):
        optimizer.zero_grad()
        logits = model(split.images.float() / 255)
        nn.functional.cross_entropy(logits, split.labels).backward()
        optimizer.step()
    model.zero_grad()
    return model.eval()
