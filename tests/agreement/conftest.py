"""A network of some robustness, on real images: what the attacks are compared on."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from advtrain.attacks.ascent import ascend
from advtrain.attacks.objectives import cross_entropy
from advtrain.models.small_cnn import small_cnn
from advtrain.noise import Noise
from advtrain.threat import ThreatModel

TEST_IMAGES = 200


@pytest.fixture(scope="session")
def robust_network() -> tuple[nn.Module, Tensor, Tensor]:
    """(model, x, y): a small CNN and 200 digits that it has not seen; use, not change.

    Ten epochs of adversarial training in the l2 ball of radius 1 leave it right on some 60 % of
    the images at linf 0.15, 30 % at l2 1.0, 50 % at l2 0.8 and 50 % at l1 2.0 (Auto-PGD).
    """
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    x = torch.tensor(images[order] / 16, dtype=torch.float32).view(-1, 1, 8, 8)
    y = torch.tensor(labels[order], dtype=torch.int64)
    seen, targets = x[TEST_IMAGES:], y[TEST_IMAGES:]
    threat, noise = ThreatModel("l2", 1.0), Noise(0, torch.arange(len(seen)))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = small_cnn(channels=1, size=8, classes=10)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
        for epoch in range(10):
            start = threat.random_start(seen, noise.fold_in(epoch))
            for rows in torch.randperm(len(seen)).split(128):
                x_adv = ascend(
                    model,
                    seen[rows],
                    start[rows],
                    lambda logits, rows=rows: cross_entropy(logits, targets[rows]),
                    threat,
                    steps=4,
                    step_size=0.4,
                )
                optimizer.zero_grad()
                cross_entropy(model(x_adv), targets[rows]).mean().backward()
                optimizer.step()
    model.zero_grad()
    return model.eval(), x[:TEST_IMAGES], y[:TEST_IMAGES]
