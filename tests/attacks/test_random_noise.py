"""Random noise has the full budget, and more draws never help the defender."""

import pytest
import torch
from torch import nn

from advtrain.attacks.attack import predictions
from advtrain.attacks.pgd import pgd
from advtrain.attacks.random_noise import random_noise
from advtrain.noise import Noise
from advtrain.threat import ThreatModel

Examples = tuple[torch.Tensor, torch.Tensor]


@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 0.05), ("l2", 0.3), ("l1", 1.5)])
def test_the_noise_has_the_full_budget_away_from_the_box(norm: str, epsilon: float) -> None:
    x = torch.full((40, 1, 8, 8), 0.5)
    threat = ThreatModel(norm, epsilon)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    y = model(x).argmax(1)
    found = random_noise(model, x, y, threat, Noise(0, torch.arange(40)), draws=2)
    distance = threat.distance(found.x_adv, x)
    torch.testing.assert_close(distance, torch.full((40,), epsilon), rtol=1e-5, atol=1e-6)
    assert not found.backwards.any()
    moved = (found.x_adv - x).sign().mean((1, 2, 3))
    assert (moved.abs() < 0.6).all()  # up and down


def test_more_draws_are_stronger_and_weaker_than_gradients(
    trained: nn.Module, examples: Examples
) -> None:
    x, y = examples
    threat, noise = ThreatModel("linf", 0.15), Noise(0, torch.arange(len(x)))
    before = torch.ones_like(y, dtype=torch.bool)
    robust = []
    for draws in (1, 4, 16):
        found = random_noise(trained, x, y, threat, noise, draws=draws)
        now = predictions(trained(found.x_adv)) == y
        assert not (now & ~before).any()
        assert (found.forwards[now] == draws).all()
        before = now
        robust.append(int(now.sum()))
    gradients = pgd(trained, x, y, threat, noise, steps=10)
    assert int((predictions(trained(gradients.x_adv)) == y).sum()) < robust[-1]
