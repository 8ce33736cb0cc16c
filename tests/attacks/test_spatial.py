"""Rotations and translations that are known by hand; the search beside one by brute force."""

from itertools import product

import pytest
import torch
from torch import nn

from advtrain.attacks.attack import Attacked, predictions
from advtrain.attacks.objectives import cross_entropy
from advtrain.attacks.spatial import ROUND, spatial, transformed
from advtrain.noise import Noise
from advtrain.threat import Transformation

Examples = tuple[torch.Tensor, torch.Tensor]
THREAT = Transformation("spatial")


def pictures(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def moved(x: torch.Tensor, degrees: float, right: float, down: float) -> torch.Tensor:
    transformation = torch.tensor([[degrees, right, down]], dtype=torch.float64)
    return transformed(x, transformation.expand(len(x), -1))


def noise_for(x: torch.Tensor) -> Noise:
    return Noise(0, torch.arange(len(x)))


def mislabelled(examples: Examples) -> Examples:
    """The same with a wrong label for every seventh, which the attack need not fool."""
    x, y = examples
    return x, torch.where(torch.arange(len(y)) % 7 == 0, (y + 1) % 4, y)


def robust(model: nn.Module, found: Attacked, y: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return predictions(model(found.x_adv)) == y


@pytest.mark.parametrize("side", [1, 8, 32])
@pytest.mark.parametrize("quarters", [-1, 0, 1, 2, 4])
def test_rotations_by_quarters_are_exact(side: int, quarters: int) -> None:
    """From the horizontal axis to the vertical one, which points down: clockwise to the eye."""
    x = pictures(3, 2, side, side)
    torch.testing.assert_close(
        moved(x, 90 * quarters, 0, 0), x.rot90(-quarters, (2, 3)), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("side", [7, 28])
def test_rotations_by_quarters_at_other_sides(side: int) -> None:
    x = pictures(3, 1, side, side)
    torch.testing.assert_close(moved(x, 90, 0, 0), x.rot90(-1, (2, 3)), rtol=0, atol=1e-5)


def test_half_a_turn_of_an_oblong_image() -> None:
    x = pictures(2, 3, 4, 8)
    torch.testing.assert_close(moved(x, 180, 0, 0), x.flip(2, 3), rtol=0, atol=1e-5)


def test_a_quarter_turn_of_an_oblong_image_keeps_its_pixels_square() -> None:
    """The middle 4 x 4 pixels of 4 x 8 stay in the image, the rest is outside."""
    x = pictures(2, 1, 4, 8)
    expected = torch.zeros_like(x)
    expected[..., 2:6] = x[..., 2:6].rot90(-1, (2, 3))
    torch.testing.assert_close(moved(x, 90, 0, 0), expected, rtol=0, atol=1e-5)


def test_shifts_by_whole_pixels_leave_zeros_behind() -> None:
    x = pictures(2, 3, 8, 16)
    expected = torch.zeros_like(x)
    expected[:, :, 2:, :-1] = x[:, :, :-2, 1:]
    torch.testing.assert_close(moved(x, 0, -1 / 16, 2 / 8), expected, rtol=0, atol=1e-6)


def test_the_shift_comes_after_the_rotation() -> None:
    """Engstrom et al.'s eq. 1: the shift is along the axes of the result."""
    x = pictures(1, 1, 8, 8)
    expected = moved(moved(x, 90, 0, 0), 0, 1 / 8, 0)
    torch.testing.assert_close(moved(x, 90, 1 / 8, 0), expected, rtol=0, atol=1e-6)


def test_half_a_pixel_is_the_mean_of_two() -> None:
    x = pictures(1, 1, 8, 8)
    expected = (x[..., 1:] + x[..., :-1]) / 2
    torch.testing.assert_close(moved(x, 0, 1 / 16, 0)[..., 1:], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("angles", "shifts"), [(3, 3), (4, 2), (1, 3), (3, 1)])
def test_the_grid_is_the_worst_of_all_combinations(
    angles: int, shifts: int, trained: nn.Module, examples: Examples
) -> None:
    """The identity among them, also where an even number of levels leaves it out."""
    (x, y), degrees, shift = mislabelled(examples), 14.0, 0.05
    found = spatial(
        trained,
        x,
        y,
        THREAT,
        noise_for(x),
        degrees=degrees,
        shift=shift,
        angles=angles,
        shifts=shifts,
    )
    turns = torch.linspace(-degrees, degrees, angles).tolist() if angles > 1 else [0.0]
    shares = torch.linspace(-shift, shift, shifts).tolist() if shifts > 1 else [0.0]
    points = [*product(turns, shares, shares), (0.0, 0.0, 0.0)]
    with torch.no_grad():
        logits = [trained(moved(x, *point)) for point in points]
    right = torch.stack([predictions(one) == y for one in logits]).all(0)
    worst = torch.stack([cross_entropy(one, y) for one in logits]).amax(0)
    assert torch.equal(robust(trained, found, y), right)
    assert 0 < right.sum() < len(y)
    torch.testing.assert_close(found.objective[right], worst[right], rtol=1e-4, atol=1e-6)


def test_the_objective_is_the_cross_entropy_of_the_image_found(
    trained: nn.Module, examples: Examples
) -> None:
    x, y = examples
    for tries in (0, 12):
        found = spatial(trained, x, y, THREAT, noise_for(x), tries=tries, angles=5, shifts=3)
        with torch.no_grad():
            assert torch.equal(found.objective, cross_entropy(trained(found.x_adv), y))


def test_a_robust_example_goes_through_the_whole_grid(
    trained: nn.Module, examples: Examples
) -> None:
    """The clean image is the identity of the grid and is not asked a second time."""
    x, y = mislabelled(examples)
    found = spatial(trained, x, y, THREAT, noise_for(x), degrees=12, shift=0.05)
    right = robust(trained, found, y)
    clean = predictions(trained(x)) == y
    assert right.any()
    assert (clean & ~right).any()
    assert not clean.all()
    assert (found.forwards[right] == 31 * 5 * 5).all()
    assert (found.forwards[clean & ~right] % ROUND == 1).all()
    assert (found.forwards[~clean] == 1).all()
    assert (found.backwards == 0).all()


def test_an_image_wrong_from_the_start_stays_as_it_is(
    trained: nn.Module, examples: Examples
) -> None:
    x, y = mislabelled(examples)
    found = spatial(trained, x, y, THREAT, noise_for(x))
    wrong = predictions(trained(x)) != y
    assert wrong.any()
    assert torch.equal(found.x_adv[wrong], x[wrong])


def test_nothing_to_move_is_the_clean_image(trained: nn.Module, examples: Examples) -> None:
    x, y = examples
    for tries, passes in ((0, 1), (3, 4)):
        found = spatial(trained, x, y, THREAT, noise_for(x), degrees=0, shift=0, tries=tries)
        torch.testing.assert_close(found.x_adv, x, rtol=0, atol=1e-6)
        assert found.forwards.unique().tolist() in ([passes], [1, passes])


def test_robust_accuracy_never_rises_with_tries(trained: nn.Module, examples: Examples) -> None:
    x, y = examples
    with torch.no_grad():
        clean = trained(x)
    right, objective = predictions(clean) == y, cross_entropy(clean, y)
    counts = [right.sum()]
    for tries in (1, 3, 12, 40):
        found = spatial(trained, x, y, THREAT, noise_for(x), tries=tries, degrees=15, shift=0.06)
        now = robust(trained, found, y)
        assert not (now & ~right).any()
        assert (found.objective >= objective)[now].all()
        right, objective = now, found.objective
        counts.append(now.sum())
    assert counts[-1] < counts[0]
    assert right.any()


def test_random_tries_stay_within_the_limits() -> None:
    """A model that reads one pixel, which a shift by half a pixel darkens at most by half."""

    class Corner(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            dark = 0.45 - x[:, :, 4, 4].mean(1)
            return torch.stack([-dark, dark], 1)

    x, y = torch.zeros(64, 1, 8, 8), torch.zeros(64, dtype=torch.int64)
    x[..., 4] = 1.0
    options = {"degrees": 0.0, "tries": 200}
    near = spatial(Corner(), x, y, THREAT, noise_for(x), shift=1 / 16, **options)
    far = spatial(Corner(), x, y, THREAT, noise_for(x), shift=1 / 12, **options)
    assert robust(Corner(), near, y).all()
    assert not robust(Corner(), far, y).any()


@pytest.mark.parametrize("tries", [0, 25])
def test_an_examples_result_does_not_depend_on_its_batch(
    tries: int, trained: nn.Module, examples: Examples
) -> None:
    """With few examples left, too, whose transformations then share a batch."""
    x, y = examples
    options = {"tries": tries, "degrees": 18.0, "shift": 0.05, "angles": 7, "shifts": 3}
    whole = spatial(trained, x, y, THREAT, noise_for(x), **options)
    rows = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:40]
    part = spatial(trained, x[rows], y[rows], THREAT, noise_for(x).take(rows), **options)
    for one, other in zip(part[:4], whole[:4], strict=True):
        assert torch.equal(one, other[rows])
    assert len(whole.forwards.unique()) > 2


def test_each_example_draws_its_own_transformations() -> None:
    x = pictures(1, 1, 8, 8).expand(6, -1, -1, -1).clone()
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    nn.init.zeros_(model[1].weight)
    with torch.no_grad():
        model[1].weight[1] = -0.01  # every transformation has another cross-entropy
        model[1].bias.copy_(torch.tensor([9.0, 0.0]))
    found = spatial(model, x, torch.zeros(6, dtype=torch.int64), THREAT, noise_for(x), tries=1)
    assert len(found.x_adv.flatten(1).unique(dim=0)) > 3


def test_float64(examples: Examples) -> None:
    x, y = examples[0].double(), examples[1]
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4)).double()
    found = spatial(model, x, y, THREAT, noise_for(x), tries=5)
    assert found.x_adv.dtype == found.objective.dtype == torch.float64
