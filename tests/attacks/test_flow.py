"""Flows that are known by hand, and what the attack promises of its iterates."""

import math

import pytest
import torch
from torch import nn

from advtrain.attacks.attack import Attacked, predictions
from advtrain.attacks.flow import ROUND, displaced, flow, variation
from advtrain.attacks.objectives import margin
from advtrain.noise import Noise
from advtrain.threat import Transformation

Examples = tuple[torch.Tensor, torch.Tensor]
THREAT = Transformation("spatial")


def run(model: nn.Module, x: torch.Tensor, y: torch.Tensor, **chosen: float) -> Attacked:
    return flow(model, x, y, THREAT, Noise(0, torch.arange(len(x))), **chosen)


def robust(model: nn.Module, found: Attacked, y: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return predictions(model(found.x_adv)) == y


def constant(right: float, down: float, *shape: int) -> torch.Tensor:
    return torch.tensor([right, down]).view(1, 2, 1, 1).expand(2, 2, *shape).clone()


def picture(*shape: int) -> torch.Tensor:
    return torch.rand(2, 3, *shape, generator=torch.Generator().manual_seed(0))


def test_no_flow_is_the_image() -> None:
    x = picture(8, 5)
    torch.testing.assert_close(displaced(x, constant(0, 0, 8, 5)), x, rtol=0, atol=1e-6)


def test_a_pixel_is_read_where_the_flow_points_to() -> None:
    """One to the right and two down; outside, the border is read."""
    x = picture(8, 5)
    rows, columns = (torch.arange(8) + 2).clamp(max=7), (torch.arange(5) + 1).clamp(max=4)
    expected = x[:, :, rows][..., columns]
    torch.testing.assert_close(displaced(x, constant(1, 2, 8, 5)), expected, rtol=0, atol=1e-6)


def test_half_a_pixel_is_the_mean_of_two() -> None:
    x = picture(4, 6)
    found = displaced(x, constant(0.5, 0, 4, 6))[..., :-1]
    torch.testing.assert_close(found, (x[..., 1:] + x[..., :-1]) / 2, rtol=0, atol=1e-6)


def test_a_constant_flow_has_no_variation() -> None:
    assert variation(constant(0.3, -0.7, 6, 6)).max() < 1e-3


def test_the_variation_of_one_moved_pixel() -> None:
    """Four neighbours at the distance 5, seen from both sides."""
    moved = torch.zeros(1, 2, 5, 5)
    moved[0, :, 2, 2] = torch.tensor([3.0, 4.0])
    assert variation(moved).item() == pytest.approx(2 * 4 * 5, abs=1e-3)


def test_the_variation_has_a_gradient_where_the_flow_is_constant() -> None:
    moved = torch.zeros(1, 2, 5, 5, requires_grad=True)
    (gradient,) = torch.autograd.grad(variation(moved).sum(), moved)
    assert torch.equal(gradient, torch.zeros_like(moved))


@pytest.mark.parametrize("kappa", [0.0, 0.5])
def test_it_fools_a_part_and_says_what_it_reached(
    kappa: float, trained: nn.Module, examples: Examples
) -> None:
    x, y = examples
    y = torch.where(torch.arange(len(y)) % 7 == 0, (y + 1) % 4, y)
    found = run(trained, x, y, kappa=kappa, tau=0.1)
    right = robust(trained, found, y)
    clean = predictions(trained(x)) == y
    assert (clean & ~right).any()
    assert right.any()
    assert not clean.all()
    with torch.no_grad():
        reached = margin(trained(found.x_adv), y, kappa)
    torch.testing.assert_close(found.objective, reached, rtol=1e-5, atol=1e-5)
    assert (found.forwards[right] == 102).all()
    assert (found.backwards[right] == 100).all()
    assert (found.forwards[~clean] == 1).all()
    assert (found.backwards[~clean] == 0).all()


def test_an_example_runs_on_until_it_is_misclassified_by_kappa(
    trained: nn.Module, examples: Examples
) -> None:
    x, y = examples
    found = [run(trained, x, y, kappa=kappa, learning_rate=0.05) for kappa in (0.0, 1.0)]
    fooled = ~robust(trained, found[0], y) & (predictions(trained(x)) == y)
    assert fooled.any()
    assert (found[0].objective[fooled] == 0).all()
    assert (found[1].objective[fooled] == 1).any()
    assert (found[1].forwards >= found[0].forwards)[fooled].all()
    assert (found[1].forwards > found[0].forwards)[fooled].any()


def test_robust_accuracy_never_rises_with_steps(trained: nn.Module, examples: Examples) -> None:
    """Every iterate of a short run is one of a longer run."""
    x, y = examples
    right, objective = predictions(trained(x)) == y, torch.full((len(y),), -math.inf)
    counts = [right.sum()]
    for steps in (1, ROUND, 3 * ROUND + 1, 60):
        found = run(trained, x, y, steps=steps, learning_rate=0.02)
        now = robust(trained, found, y)
        assert not (now & ~right).any()
        assert (found.objective >= objective).all()
        right, objective = now, found.objective
        counts.append(now.sum())
    assert counts[-1] < counts[0]


def test_a_dearer_flow_is_smoother(trained: nn.Module, examples: Examples) -> None:
    """So dear that it stays where it is, or so cheap that it fools some."""
    x, y = examples
    cheap, dear = (run(trained, x, y, tau=tau, learning_rate=0.02) for tau in (0.01, 100.0))
    clean = predictions(trained(x)) == y
    assert robust(trained, cheap, y).sum() < clean.sum()
    assert (dear.x_adv - x).abs().mean() < (cheap.x_adv - x).abs().mean() / 4


def test_an_examples_result_does_not_depend_on_its_batch(
    trained: nn.Module, examples: Examples
) -> None:
    """Over several rounds, in which decided examples are dropped."""
    x, y = examples
    y = torch.where(torch.arange(len(y)) % 7 == 0, (y + 1) % 4, y)
    noise, options = Noise(0, torch.arange(len(x))), {"tau": 0.1}
    whole = flow(trained, x, y, THREAT, noise, **options)
    rows = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:40]
    part = flow(trained, x[rows], y[rows], THREAT, noise.take(rows), **options)
    for one, other in zip(part[:4], whole[:4], strict=True):
        assert torch.equal(one, other[rows])
    assert len(whole.forwards.unique()) > 3


def test_a_logit_that_is_not_finite_decides() -> None:
    class Broken(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            value = x.flatten(1).sum(1)
            moved = (x[:, 0, 0, 0] != 0.5).to(x.dtype)
            return torch.stack([value + math.inf * moved.where(moved > 0, 1e-3), value * 0], 1)

    x = torch.full((2, 1, 4, 4), 0.5)
    found = run(Broken(), x, torch.zeros(2, dtype=torch.int64))
    assert found.forwards.tolist() == [1, 1]
    assert torch.equal(found.x_adv, x)
