"""Smoothed predictions: radii in closed form, on classifiers whose smoothing is known."""

import math

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from advtrain.certificates.smoothing import ESTIMATION, SELECTION, lower_confidence_bound, smoothing
from advtrain.noise import Noise

SIGMA, SHAPE = 0.5, (1, 2, 2)


class HalfSpace(nn.Module):
    """Class 1 where w . x > b: its smoothing is the same half-space, with radius |w . x - b|."""

    def __init__(self, w: tuple[float, ...] = (0.5, 0.5, 0.5, 0.5), b: float = 1.0) -> None:
        super().__init__()
        self.w, self.b = torch.tensor(w), b

    def forward(self, x: Tensor) -> Tensor:
        z = x.flatten(1) @ self.w - self.b
        return torch.stack([-z, z], dim=1)


class Same(nn.Module):
    """Class 2 of 4, whatever the image."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.tensor([0.0, 1.0, 3.0, 2.0]).expand(len(x), 4)


def images(distances: list[float]) -> Tensor:
    """Images at these distances from the boundary of the half-space, on the side of class 1."""
    return torch.stack([torch.full(SHAPE, (1 + d) / 2) for d in distances])


def noise(count: int, seed: int = 0) -> Noise:
    return Noise(seed, torch.arange(count) + 10)


def test_the_bound_of_n_successes_of_n_is_a_root() -> None:
    bound = lower_confidence_bound(torch.tensor([1000, 0]), 1000, 0.001)
    assert bound.tolist() == pytest.approx([0.001 ** (1 / 1000), 0.0], rel=1e-12)
    assert lower_confidence_bound(torch.tensor([1]), 1, 0.05).item() == pytest.approx(0.05)


@pytest.mark.parametrize("alpha", [0.001, 0.05, 0.5])
def test_the_bound_is_where_so_many_successes_have_probability_alpha(alpha: float) -> None:
    successes = torch.arange(1, 51)
    bound = lower_confidence_bound(successes, 50, alpha).numpy()
    reached = stats.binom.sf(successes.numpy() - 1, 50, bound)
    assert reached.tolist() == pytest.approx([alpha] * 50, rel=1e-9)


def test_one_success_of_n_by_hand() -> None:
    # P(at least 1 of n) = 1 - (1 - p)^n = alpha.
    bound = lower_confidence_bound(torch.tensor([1]), 20, 0.1).item()
    assert bound == pytest.approx(1 - 0.9 ** (1 / 20), rel=1e-12)


def test_a_constant_classifier_has_the_largest_radius() -> None:
    x = images([0.0, 1.0])
    found = smoothing(Same(), x, torch.zeros(2), noise(2), sigma=SIGMA, samples=200, alpha=0.01)
    assert found.prediction.tolist() == [2, 2]
    largest = SIGMA * stats.norm.ppf(0.01 ** (1 / 200))
    assert found.radius.tolist() == pytest.approx([largest] * 2, rel=1e-12)
    assert found.radius.dtype == torch.float64
    assert found.forwards.tolist() == [300, 300]
    assert found.backwards.tolist() == [0, 0]


def test_a_half_space_is_certified_up_to_its_boundary() -> None:
    distances = [0.1 + 0.01 * n for n in range(100)]
    found = smoothing(
        HalfSpace(),
        images(distances),
        torch.zeros(100),
        noise(100),
        sigma=SIGMA,
        samples=2000,
        sample_batch=20,
    )
    assert (found.prediction == 1).all()
    truth = torch.tensor(distances, dtype=torch.float64)
    # The bound holds with probability .999 for each, and is some 3 to 7 standard errors below.
    assert (found.radius <= truth).all()
    p = stats.norm.cdf(truth / SIGMA)
    error = SIGMA * (p * (1 - p) / 2000) ** 0.5 / stats.norm.pdf(truth / SIGMA)
    assert (found.radius >= truth - 8 * torch.from_numpy(error)).all()
    assert (truth - found.radius).max() < 0.3


def test_a_coin_flip_abstains_but_for_alpha() -> None:
    # On the boundary each class has probability 1/2, and every certificate is a wrong one: 59 of
    # 100 successes are needed for a bound above 1/2, which has probability .044 <= alpha.
    count, rate = 4000, stats.binom.sf(58, 100, 0.5)
    assert 0.04 < rate < 0.05
    found = smoothing(
        *(HalfSpace(), images([0.0] * count), torch.zeros(count), noise(count)),
        sigma=SIGMA,
        selection=1,
        samples=100,
        alpha=0.05,
    )
    certified = found.prediction >= 0
    error = (rate * (1 - rate) / count) ** 0.5
    assert certified.double().mean().item() == pytest.approx(rate, abs=4 * error)
    assert torch.equal(certified, found.radius > 0)


def test_counts_are_those_of_a_plain_loop() -> None:
    x, drawn = images([0.3, -0.2, 0.0]), noise(3, seed=4)
    found = smoothing(
        HalfSpace(), x, torch.zeros(3), drawn, sigma=SIGMA, selection=7, samples=50, alpha=0.2
    )

    def class_1(stream: int, draws: int, n: int) -> int:
        noises = [drawn.fold_in(stream).normal(SHAPE, restart=j)[n] for j in range(draws)]
        return sum(float((x[n] + SIGMA * z).sum()) > 2 for z in noises)

    for n in range(3):
        guess = int(class_1(SELECTION, 7, n) > 3.5)
        ones = class_1(ESTIMATION, 50, n)
        p = stats.beta.ppf(0.2, ones if guess else 50 - ones, 51 - (ones if guess else 50 - ones))
        expected = (guess, SIGMA * stats.norm.ppf(p)) if p > 0.5 else (-1, 0.0)
        assert found.prediction[n] == expected[0]
        assert found.radius[n].item() == pytest.approx(expected[1], rel=1e-9)
    assert found.prediction.tolist() == [1, 0, -1]


def test_the_guess_and_its_judgement_are_different_draws() -> None:
    drawn = noise(1)
    one, other = (drawn.fold_in(stream).normal((1000,)) for stream in (SELECTION, ESTIMATION))
    assert abs(float((one * other).mean())) < 4 / math.sqrt(1000)


@pytest.mark.parametrize("sample_batch", [1, 3, 64, 1000])
def test_draws_at_once_change_nothing(sample_batch: int) -> None:
    x = images([0.02 * n for n in range(40)])
    expected = smoothing(HalfSpace(), x, torch.zeros(40), noise(40), selection=20, samples=130)
    found = smoothing(
        *(HalfSpace(), x, torch.zeros(40), noise(40)),
        selection=20,
        samples=130,
        sample_batch=sample_batch,
    )
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_other_examples_change_nothing() -> None:
    x, drawn = images([0.02 * n for n in range(40)]), noise(40)
    expected = smoothing(HalfSpace(), x, torch.zeros(40), drawn, samples=100)
    rows = torch.tensor([31, 4, 17])
    found = smoothing(HalfSpace(), x[rows], torch.zeros(3), drawn.take(rows), samples=100)
    assert all(torch.equal(one, other[rows]) for one, other in zip(found, expected, strict=True))


def test_noisy_images_are_not_clamped() -> None:
    # Beyond white: a half-space that no image of [0, 1] reaches, but half of the noise does.
    beyond, x = HalfSpace(b=2.0), torch.ones(1, *SHAPE)
    found = smoothing(beyond, x, torch.zeros(1), noise(1), sigma=SIGMA, samples=500)
    assert found.prediction.tolist() == [-1]


def test_logits_that_are_not_finite_are_votes_for_no_class() -> None:
    class Overflowing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.full((len(x), 3), torch.nan)

    found = smoothing(Overflowing(), images([0.0]), torch.zeros(1), noise(1), samples=50)
    assert found.prediction.tolist() == [-1]
    assert found.radius.tolist() == [0.0]


def test_the_model_is_left_as_it_was_found() -> None:
    model = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(4, 2)).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    smoothing(model, images([0.0, 0.1]), torch.zeros(2), noise(2), samples=10)
    assert all(module.training for module in model.modules())
    assert all(weight.requires_grad for weight in model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_a_certain_failure_probability_is_refused(alpha: float) -> None:
    with pytest.raises(ValueError, match="alpha is a probability above 0 and below 1"):
        smoothing(Same(), images([0.0]), torch.zeros(1), noise(1), alpha=alpha)
