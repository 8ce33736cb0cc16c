import pytest
import torch
from torch import nn

from advtrain.attacks.mifgsm import Momentum, mifgsm
from advtrain.attacks.pgd import pgd
from advtrain.threat import ThreatModel
from tests.attacks.test_attack_contracts import noise_for

Examples = tuple[torch.Tensor, torch.Tensor]


class Hill(nn.Module):
    """Logits (0, f) with f = -(u - 0.57)^2 + 0.14 v for an image of two pixels (u, v).

    The gradient of f is (-2 (u - 0.57), 0.14); that of the cross-entropy is a multiple of it.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        u, v = x.flatten(1).unbind(1)
        value = -((u - 0.57) ** 2) + 0.14 * v
        return torch.stack([torch.zeros_like(value), value], 1)


GREY, LABEL = torch.full((1, 1, 1, 2), 0.5), torch.tensor([0])


@pytest.mark.parametrize(
    ("decay", "expected"),
    [
        # At (0.5, 0.5) the gradient is (0.14, 0.14), over its mean (1, 1): a step to (0.6, 0.6).
        # There it is (-0.06, 0.14), over its mean (-0.6, 1.4): the sum is (decay - 0.6, ...).
        (1.0, [0.7, 0.7]),
        (0.7, [0.7, 0.7]),
        (0.5, [0.5, 0.7]),
        (0.0, [0.5, 0.7]),
    ],
)
def test_two_steps_by_hand(decay: float, expected: list[float]) -> None:
    threat = ThreatModel("linf", 0.3)
    found = mifgsm(Hill(), GREY, LABEL, threat, noise_for(1), decay=decay, steps=2, step_size=0.1)
    torch.testing.assert_close(found.x_adv.flatten(), torch.tensor(expected))


def test_two_steps_by_hand_in_l2() -> None:
    """The sums are (1, 1) and (0.4, 2.4); each step has the length 0.1."""
    step = 0.1 / 2**0.5
    # One step leads to (0.5707, 0.5707), where the gradient is (-0.00142, 0.14).
    gradient = torch.tensor([-2 * (0.5 + step - 0.57), 0.14])
    total = 1 + gradient / gradient.abs().mean()
    expected = 0.5 + step + 0.1 * total / total.norm()
    found = mifgsm(
        Hill(), GREY, LABEL, ThreatModel("l2", 0.3), noise_for(1), steps=2, step_size=0.1
    )
    torch.testing.assert_close(found.x_adv.flatten(), expected)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_without_memory_it_is_pgd(norm: str, trained: nn.Module, examples: Examples) -> None:
    x, y = examples
    threat, noise = ThreatModel(norm, 0.2), noise_for(len(x))
    given = {"steps": 6, "step_size": "epsilon/4", "random_start": True}
    found = mifgsm(trained, x, y, threat, noise, decay=0.0, **given)
    expected = pgd(trained, x, y, threat, noise, **given)
    # Divided by its mean magnitude first, a gradient of the same direction.
    torch.testing.assert_close(found.x_adv, expected.x_adv, rtol=0, atol=1e-6)
    with_memory = mifgsm(trained, x, y, threat, noise, **given)
    assert not torch.allclose(with_memory.x_adv, expected.x_adv, atol=1e-3)


def test_the_default_steps_reach_the_budget_and_no_more() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    x = torch.full((3, 1, 2, 2), 0.5)
    found = mifgsm(model, x, torch.tensor([0, 1, 0]), ThreatModel("linf", 0.2), noise_for(3))
    torch.testing.assert_close((found.x_adv - x).abs(), torch.full_like(x, 0.2))
    assert found.backwards.tolist() == [10, 10, 10]


def test_the_memory_is_each_examples_own() -> None:
    threat = ThreatModel("l2", 1.0)
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 5, 1, 3, 3, generator=generator)
    rows = torch.tensor([4, 1])
    whole, part = Momentum(1.0, threat.steepest), Momentum(1.0, threat.steepest)
    assert torch.equal(whole(first)[rows], part.take(torch.arange(2))(first[rows]))
    kept = Momentum(1.0, threat.steepest)
    kept(first)
    direction = whole(second)
    assert torch.equal(kept.take(rows)(second[rows]), direction[rows])
    direction.zero_()
    third = torch.randn(5, 1, 3, 3, generator=generator)
    unharmed = Momentum(1.0, threat.steepest)
    for gradient in (first, second):
        unharmed(gradient)
    assert torch.equal(whole(third), unharmed(third))


def test_a_zero_gradient_moves_nothing() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    nn.init.zeros_(model[1].weight)
    x = torch.full((1, 1, 2, 2), 0.5)
    found = mifgsm(model, x, LABEL, ThreatModel("linf", 0.2), noise_for(1))
    assert torch.equal(found.x_adv, x)
