"""On a linear model the best attack is known: it moves w.x + b by epsilon times the dual norm."""

import math

import pytest
import torch
from torch import nn

from advtrain.attacks.ascent import ascend
from advtrain.attacks.cw import cw
from advtrain.attacks.fgsm import fgsm
from advtrain.attacks.objectives import cross_entropy
from advtrain.attacks.pgd import pgd
from advtrain.noise import Noise
from advtrain.threat import NORMS, ThreatModel

norms = pytest.mark.parametrize("norm", NORMS)
shapes = pytest.mark.parametrize("shape", [(1, 1, 1), (1, 8, 8), (3, 5, 4)])
attacked = pytest.mark.parametrize("norm", ["linf", "l2"])
batch_sizes = pytest.mark.parametrize("count", [1, 2, 9])


class Linear(nn.Module):
    """Logits (0, w.x + b): class 1 where w.x + b is positive."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.w = nn.Parameter(torch.randn(math.prod(shape), generator=generator))
        self.b = nn.Parameter(torch.tensor(0.1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        value = x.flatten(1) @ self.w + self.b
        return torch.stack([torch.zeros_like(value), value], 1)

    def best_gain(self, threat: ThreatModel) -> float:
        dual = {"linf": 1, "l2": 2, "l1": math.inf}[threat.norm]
        return threat.epsilon * torch.linalg.vector_norm(self.w.detach(), ord=dual).item()


def centred(count: int, shape: tuple[int, ...]) -> torch.Tensor:
    """Images so near grey that no perturbation of 0.1 meets the box."""
    return 0.4 + 0.2 * torch.rand(count, *shape, generator=torch.Generator().manual_seed(1))


@attacked
@shapes
@batch_sizes
@pytest.mark.parametrize("attack", ["fgsm", "pgd", "cw"])
def test_attacks_reach_the_optimum_on_a_linear_model(
    norm: str, shape: tuple[int, ...], count: int, attack: str
) -> None:
    model, x, threat = Linear(shape), centred(count, shape), ThreatModel(norm, 0.1)
    y, noise = torch.arange(count) % 2, Noise(0, torch.arange(count))
    if attack == "fgsm":
        found = fgsm(model, x, y, threat, noise)
    elif attack == "pgd":
        found = pgd(model, x, y, threat, noise, steps=60)
    else:
        found = cw(model, x, y, threat, noise, steps=60, kappa=1e6)
    away = torch.where(y == 0, 1.0, -1.0)
    best = model(x)[:, 1] + away * model.best_gain(threat)
    torch.testing.assert_close(model(found.x_adv)[:, 1], best, rtol=1e-4, atol=1e-5)
    reached = cross_entropy(model(found.x_adv), y) if attack != "cw" else away * best
    torch.testing.assert_close(found.objective, reached, rtol=1e-4, atol=1e-5)


@norms
def test_a_step_does_not_depend_on_the_gradients_scale(norm: str) -> None:
    """Saturated networks have gradients whose squares underflow."""
    x, threat = centred(3, (1, 4, 4)), ThreatModel(norm, 0.1)
    model = Linear((1, 4, 4))
    steps = [
        ascend(
            model,
            x,
            x,
            lambda logits, scale=scale: scale * logits[:, 1],
            threat,
            steps=3,
            step_size=0.02,
        )
        for scale in (1.0, 1e-28)
    ]
    torch.testing.assert_close(steps[1], steps[0])


@norms
def test_no_steps_return_the_start(norm: str) -> None:
    x, threat = centred(2, (1, 4, 4)), ThreatModel(norm, 0.1)
    start = threat.random_start(x, Noise(0, torch.arange(2)))
    found = ascend(
        Linear((1, 4, 4)), x, start, lambda logits: logits[:, 1], threat, steps=0, step_size=0.1
    )
    assert torch.equal(found, start)
    assert found.data_ptr() != start.data_ptr()


@norms
def test_ascent_leaves_its_arguments_alone(norm: str) -> None:
    x, threat = centred(2, (1, 4, 4)), ThreatModel(norm, 0.1)
    start = x.clone()
    ascend(Linear((1, 4, 4)), x, start, lambda logits: logits[:, 1], threat, steps=2, step_size=0.1)
    assert torch.equal(start, x)
    assert torch.equal(x, centred(2, (1, 4, 4)))
    assert not start.requires_grad


def test_the_weights_are_frozen_during_the_ascent_alone() -> None:
    x, model, seen = centred(2, (1, 4, 4)), Linear((1, 4, 4)), []

    def objective(logits: torch.Tensor) -> torch.Tensor:
        seen.extend(weight.requires_grad for weight in model.parameters())
        return logits[:, 1]

    ascend(model, x, x, objective, ThreatModel("linf", 0.1), steps=2, step_size=0.1)
    assert seen == [False] * 4
    assert all(weight.requires_grad for weight in model.parameters())


@norms
def test_ascent_works_where_gradients_are_switched_off(norm: str) -> None:
    x, threat, model = centred(2, (1, 4, 4)), ThreatModel(norm, 0.1), Linear((1, 4, 4))
    with torch.no_grad():
        found = ascend(model, x, x, lambda logits: logits[:, 1], threat, steps=2, step_size=0.1)
        assert (model(found)[:, 1] > model(x)[:, 1]).all()


@norms
def test_an_overflowed_example_stays_put_and_spoils_no_other(norm: str) -> None:
    x, threat, model = centred(3, (1, 4, 4)), ThreatModel(norm, 0.1), Linear((1, 4, 4))
    scale = torch.tensor([1.0, math.nan, 1.0])
    found = ascend(
        model, x, x, lambda logits: scale * logits[:, 1], threat, steps=2, step_size=0.02
    )
    alone = ascend(model, x, x, lambda logits: logits[:, 1], threat, steps=2, step_size=0.02)
    assert torch.equal(found[1], x[1])
    assert torch.equal(found[[0, 2]], alone[[0, 2]])


@norms
def test_a_watched_ascent_shows_every_iterate_but_the_last(norm: str) -> None:
    x, threat, model = centred(3, (1, 4, 4)), ThreatModel(norm, 0.1), Linear((1, 4, 4))
    y, seen = torch.tensor([0, 1, 0]), []

    def watch(step: int, x_adv: torch.Tensor, logits: torch.Tensor, value: torch.Tensor) -> None:
        seen.append((step, x_adv.clone(), logits, value))

    def run(steps: int, **given: object) -> torch.Tensor:
        return ascend(
            model,
            x,
            x,
            lambda logits: cross_entropy(logits, y),
            threat,
            steps=steps,
            step_size=0.03,
            **given,
        )

    found = run(3, watch=watch)
    assert torch.equal(found, run(3))
    assert [step for step, *_ in seen] == [0, 1, 2]
    for step, x_adv, logits, value in seen:
        assert torch.equal(x_adv, run(step))
        assert torch.equal(logits, model(x_adv).detach())
        assert torch.equal(value, cross_entropy(logits, y))
        assert not logits.requires_grad
        assert not value.requires_grad


def test_a_direction_takes_the_place_of_the_steepest() -> None:
    x, threat = centred(3, (1, 4, 4)), ThreatModel("linf", 0.1)
    found = ascend(
        Linear((1, 4, 4)),
        x,
        x,
        lambda logits: logits[:, 1],
        threat,
        steps=2,
        step_size=0.03,
        direction=lambda gradient: -gradient.sign(),
    )
    torch.testing.assert_close(found, x - 0.06 * Linear((1, 4, 4)).w.detach().sign().view(4, 4))


def test_cw_stops_once_a_wrong_class_wins_by_kappa() -> None:
    shape = (1, 8, 8)
    model, x, threat = Linear(shape), centred(4, shape), ThreatModel("linf", 0.1)
    y, noise = (model(x)[:, 1] > 0).long(), Noise(0, torch.arange(4))
    kappa = 0.5
    assert model.best_gain(threat) > model(x)[:, 1].abs().max() + kappa
    found = cw(
        model, x, y, threat, noise, kappa=kappa, steps=400, step_size=1e-3, random_start=False
    )
    assert found.objective.tolist() == [kappa] * 4
    passed = (2 * y - 1) * -model(found.x_adv)[:, 1]
    step = 1e-3 * model.w.detach().abs().sum()
    assert (passed >= kappa).all()
    assert (passed <= kappa + step).all()
