import pytest
import torch
from torch import nn

from advtrain.attacks.attack import predictions
from advtrain.attacks.objectives import cross_entropy
from advtrain.attacks.pgd import pgd
from advtrain.attacks.random_noise import random_noise
from advtrain.noise import Noise
from advtrain.threat import ThreatModel

Examples = tuple[torch.Tensor, torch.Tensor]

BUDGETS = {"linf": 0.2, "l2": 1.2, "l1": 5.0}

each_norm = pytest.mark.parametrize("norm", BUDGETS)


def constant() -> nn.Module:
    """Right on class 0, whatever the image."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    nn.init.zeros_(model[1].weight)
    with torch.no_grad():
        model[1].bias.copy_(torch.tensor([1.0, 0.0, 0.0, 0.0]))
    return model


def perturbation(norm: str, count: int) -> torch.Tensor:
    """So small, around grey, that the box does not matter."""
    x, y = torch.full((count, 1, 8, 8), 0.5), torch.zeros(count, dtype=torch.int64)
    threat, noise = ThreatModel(norm, 0.1), Noise(0, torch.arange(count))
    return (random_noise(constant(), x, y, threat, noise, draws=1).x_adv - x).flatten(1)


@pytest.mark.parametrize(("norm", "order"), [("linf", torch.inf), ("l2", 2), ("l1", 1)])
def test_the_whole_budget_is_used(norm: str, order: float) -> None:
    delta = perturbation(norm, 50)
    lengths = torch.linalg.vector_norm(delta, ord=order, dim=1)
    torch.testing.assert_close(lengths, torch.full((50,), 0.1), rtol=1e-5, atol=1e-6)
    if norm == "linf":
        torch.testing.assert_close(delta.abs(), torch.full_like(delta, 0.1))
    assert len(delta.unique(dim=0)) == 50


@pytest.mark.parametrize(
    ("norm", "mean_square"), [("linf", 1), ("l2", 1 / 64), ("l1", 2 / (64 * 65))]
)
def test_no_pixel_and_no_sign_is_preferred(norm: str, mean_square: float) -> None:
    """Entries of a uniform direction: mean 0, and the mean square of that sphere."""
    delta = perturbation(norm, 4000) / 0.1
    deviation = mean_square**0.5
    assert delta.mean(0).abs().max() < 5 * deviation / 4000**0.5
    squares = delta.square().mean(0) / mean_square
    assert ((squares - 1).abs() < 0.3).all()
    assert abs(squares.mean() - 1) < 0.02


@each_norm
def test_more_draws_never_find_less(norm: str, trained: nn.Module, examples: Examples) -> None:
    x, y = examples
    threat, noise = ThreatModel(norm, 2 * BUDGETS[norm]), Noise(0, torch.arange(len(x)))
    right = [torch.ones_like(y, dtype=torch.bool)]
    before = torch.full((len(x),), -torch.inf)
    for draws in (1, 4, 16):
        found = random_noise(trained, x, y, threat, noise, draws=draws)
        with torch.no_grad():
            logits = trained(found.x_adv)
        torch.testing.assert_close(found.objective, cross_entropy(logits, y))
        now = predictions(logits) == y
        assert not (now & ~right[-1]).any()
        assert (found.objective >= before)[now].all()
        assert (found.forwards[now] == 1 + draws).all()
        assert torch.equal(found.backwards, torch.zeros_like(y))
        before = found.objective
        right.append(now)
    assert right[-1].sum() < right[1].sum()
    assert (found.forwards[~right[1]] <= 2).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_it_is_weaker_than_an_attack_with_gradients(
    norm: str, trained: nn.Module, examples: Examples
) -> None:
    x, y = examples
    threat, noise = ThreatModel(norm, BUDGETS[norm]), Noise(0, torch.arange(len(x)))
    robust = [
        (trained(attack(trained, x, y, threat, noise).x_adv).argmax(1) == y).sum()
        for attack in (random_noise, pgd)
    ]
    assert robust[0] > robust[1] + 20


def test_a_misclassified_image_is_returned_as_it_is(examples: Examples) -> None:
    x, y = examples
    threat, noise = ThreatModel("linf", 0.1), Noise(0, torch.arange(len(x)))
    found = random_noise(constant(), x, y, threat, noise, draws=3)
    wrong = y != 0
    assert torch.equal(found.x_adv[wrong], x[wrong])
    assert found.forwards.tolist() == torch.where(wrong, 1, 4).tolist()
    assert (found.x_adv[~wrong] != x[~wrong]).any()
