import pytest
import torch
from torch import nn

EXAMPLES, SIZE, CLASSES = 96, 8, 4


@pytest.fixture(scope="session")
def examples() -> tuple[torch.Tensor, torch.Tensor]:
    """Images of four overlapping classes: a faint pattern of each class under strong noise."""
    generator = torch.Generator().manual_seed(0)
    patterns = torch.rand(CLASSES, 1, SIZE, SIZE, generator=generator)
    y = torch.arange(EXAMPLES) % CLASSES
    disturbance = torch.rand(EXAMPLES, 1, SIZE, SIZE, generator=generator)
    return 0.6 * patterns[y] + 0.4 * disturbance, y


@pytest.fixture(scope="session")
def trained(examples: tuple[torch.Tensor, torch.Tensor]) -> nn.Module:
    """A small convolutional network with BatchNorm that classifies the examples; use, not change.

    Trained on noisy copies, which leaves it some robustness: attacks fool a part of the examples.
    """
    x, y = examples
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, stride=2, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(16 * (SIZE // 2) ** 2, CLASSES),
        )
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        for _ in range(40):
            optimizer.zero_grad()
            noisy = (x + 0.3 * torch.randn_like(x)).clamp(0, 1)
            nn.functional.cross_entropy(model(noisy), y).backward()
            optimizer.step()
    model.zero_grad()
    return model.eval()
