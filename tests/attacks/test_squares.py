"""Each proposal, against algorithms 2 and 3 written with slices, one example at a time."""

import itertools

import pytest
import torch

from advtrain.attacks.squares import Bumps, Corners, bumps
from advtrain.noise import Noise
from advtrain.threat import ThreatModel

EXAMPLES, EPSILONS = 12, {"linf": 0.1, "l2": 1.0, "l1": 5.0}

shapes = pytest.mark.parametrize(
    ("shape", "side"), [((1, 8, 8), 3), ((3, 7, 9), 4), ((2, 5, 5), 5), ((2, 6, 3), 1)]
)


def images(shape: tuple[int, ...]) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(EXAMPLES, *shape, generator=generator, dtype=torch.float64)


def random_choices(choices: tuple[int, ...]) -> torch.Tensor:
    drawn = Noise(5, torch.arange(EXAMPLES)).uniform((len(choices),)).double()
    return (drawn * torch.tensor(choices)).long()


@shapes
def test_a_corner_is_the_clamped_step_of_two_epsilon(shape: tuple[int, ...], side: int) -> None:
    x, threat = images(shape), ThreatModel("linf", EPSILONS["linf"])
    squares = Corners(x, threat, side)
    image = Corners.start(x, threat, Noise(0, torch.arange(EXAMPLES)), 0)
    chosen = random_choices(squares.choices)
    found = squares.proposed(image, slice(None), squares.plan(chosen[:, None])[:, 0])
    for row in range(EXAMPLES):
        *signs, top, left = chosen[row].tolist()
        delta = torch.zeros(shape, dtype=torch.float64)
        for channel, sign in enumerate(signs):
            delta[channel, top : top + side, left : left + side] = (4 * sign - 2) * threat.epsilon
        expected = threat.project((image + delta)[row : row + 1], x[row : row + 1])[0]
        torch.testing.assert_close(found[row], expected, rtol=0, atol=1e-15)


@shapes
def test_the_proposals_that_change_an_image_are_known(shape: tuple[int, ...], side: int) -> None:
    """All of them, in the order in which their numbers run."""
    x, threat = images(shape), ThreatModel("linf", EPSILONS["linf"])
    squares = Corners(x, threat, side)
    image = Corners.start(x, threat, Noise(0, torch.arange(EXAMPLES)), 0)
    for _ in range(3):  # which makes some squares uniform
        plan = squares.plan(random_choices(squares.choices)[:, None])[:, 0]
        image = squares.proposed(image, slice(None), plan)
    changes = []
    for chosen in itertools.product(*map(range, squares.choices)):
        plan = squares.plan(torch.tensor(chosen).expand(EXAMPLES, 1, -1))[:, 0]
        changes.append((squares.proposed(image, slice(None), plan) != image).flatten(1).any(1))
    expected = torch.stack(changes, 1)
    assert torch.equal(squares.changing(image, slice(None)), expected)
    assert expected.any()
    rows = torch.tensor([7, 2])
    assert torch.equal(squares.changing(image[rows], rows), expected[rows])


def test_the_start_for_linf_is_vertical_stripes() -> None:
    x, threat = 0.3 + 0.4 * images((2, 5, 6)), ThreatModel("linf", 0.1)
    delta = Corners.start(x, threat, Noise(0, torch.arange(EXAMPLES)), 0) - x
    torch.testing.assert_close(delta.abs(), torch.full_like(x, 0.1))
    torch.testing.assert_close(delta, delta[:, :, :1].expand_as(delta))
    signs = delta[:, :, 0].sign()
    assert -1 in signs
    assert 1 in signs
    assert len(signs.flatten(1).unique(dim=0)) > 1


@pytest.mark.parametrize("norm", ["l2", "l1"])
@shapes
def test_a_bump_takes_the_mass_of_the_other_square(
    norm: str, shape: tuple[int, ...], side: int
) -> None:
    x, threat = images(shape), ThreatModel(norm, EPSILONS[norm])
    squares, order = Bumps(x, threat, side), threat.order
    # In the interior of the ball, so that some of the budget is unused.
    smaller = ThreatModel(norm, 0.8 * threat.epsilon)
    image = Bumps.start(x, smaller, Noise(0, torch.arange(EXAMPLES)), 0)
    chosen = random_choices(squares.choices)
    found = squares.proposed(image, slice(None), squares.plan(chosen[:, None])[:, 0])

    def length(values: torch.Tensor) -> torch.Tensor:
        return torch.linalg.vector_norm(values, ord=order)

    for row in range(EXAMPLES):
        *signs, turned, top, left, other_top, other_left = chosen[row].tolist()
        first = (slice(top, top + side), slice(left, left + side))
        second = (slice(other_top, other_top + side), slice(other_left, other_left + side))
        nu = (image - x)[row]
        mask = torch.zeros(shape[1:], dtype=torch.float64)
        mask[first] = mask[second] = 1
        unused = max(threat.epsilon**order - length(nu).item() ** order, 0)
        moved = nu.clone()
        for channel, sign in enumerate(signs):
            available = length(nu[channel] * mask) ** order + unused / len(signs)
            new = (2 * sign - 1) * bumps(side, threat)[turned]
            old = nu[channel][first]
            new = new + old / length(old) if length(old) > 0 else new
            moved[channel][second] = 0
            scale = available ** (1 / order) * (len(signs) if norm == "l1" else 1)
            moved[channel][first] = new / length(new).clamp(min=1e-300) * scale
        expected = threat.project((x[row] + moved)[None], x[row : row + 1])[0]
        torch.testing.assert_close(found[row], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("norm", ["l2", "l1"])
@pytest.mark.parametrize("side", [1, 2, 3, 6, 9])
def test_a_bump_is_of_unit_length_with_two_opposite_halves(norm: str, side: int) -> None:
    bump, transposed = bumps(side, ThreatModel(norm, 1.0))
    order = 1 if norm == "l1" else 2
    assert torch.linalg.vector_norm(bump, ord=order).item() == pytest.approx(1)
    assert torch.equal(transposed, bump.T)
    assert (bump[: side // 2] > 0).all()
    assert (bump[side // 2 :] < 0).all()
    if side > 1:
        halves = [torch.linalg.vector_norm(half, ord=order) for half in bump.split(side // 2)[:2]]
        assert halves[0].item() == pytest.approx(2 ** (-1 / order))


def test_the_bump_of_side_three_by_hand() -> None:
    """Sums of 1 / (j + 1)^2: 1 + 1/4 in the middle of a half, 1/4 at distance 1."""
    upper = torch.tensor([[0.25, 1.25, 0.25]])
    lower = torch.tensor([[0.25, 0.25, 0.25], [0.25, 1.25, 0.25]])
    halves = [upper / upper.square().sum().sqrt(), -lower / lower.square().sum().sqrt()]
    expected = torch.cat(halves) / 2**0.5
    torch.testing.assert_close(bumps(3, ThreatModel("l2", 1.0))[0].float(), expected)


@pytest.mark.parametrize(("norm", "order"), [("l2", 2), ("l1", 1)])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 28, 28), (2, 11, 17), (1, 1, 1)])
def test_the_start_fills_the_budget_with_tiles(
    norm: str, order: int, shape: tuple[int, ...]
) -> None:
    x, threat = 0.5 + 0 * images(shape), ThreatModel(norm, 0.4)
    delta = Bumps.start(x, threat, Noise(0, torch.arange(EXAMPLES)), 0) - x
    lengths = torch.linalg.vector_norm(delta.flatten(1), ord=order, dim=1)
    torch.testing.assert_close(lengths, torch.full_like(lengths, 0.4))
    assert len(delta.flatten(1).unique(dim=0)) > 1


def test_the_tiles_are_a_fifth_of_the_side_and_centred() -> None:
    """28 pixels: 5 tiles of 5, one pixel before them and two after them."""
    x, threat = 0.5 + 0 * images((2, 28, 28)), ThreatModel("l2", 0.4)
    delta = Bumps.start(x, threat, Noise(0, torch.arange(EXAMPLES)), 0) - x
    inner = delta[:, :, 1:26, 1:26]
    assert (inner != 0).all()
    assert (delta != 0).sum() == inner.numel()
    tiles = inner.unfold(2, 5, 5).unfold(3, 5, 5).flatten(0, 3).abs()
    sorts = torch.stack([bump.abs() for bump in bumps(5, threat)])
    tiles = tiles / tiles.flatten(1).norm(dim=1)[:, None, None]
    distances = (tiles[:, None] - sorts).abs().amax((2, 3))
    assert distances.amin(1).max() < 1e-12
    assert set(distances.argmin(1).tolist()) == {0, 1}


def test_the_side_follows_from_the_share() -> None:
    shares = [0.8 / 2**halved for halved in range(8)]
    assert [Corners.nearest_side(share, 32, 32) for share in shares] == [
        *(29, 20, 14, 10, 7, 5, 4, 3)
    ]
    assert [Bumps.nearest_side(share, 32, 32) for share in shares] == [
        *(29, 21, 15, 11, 7, 5, 5, 3)
    ]
    assert Corners.nearest_side(0.8, 3, 40) == 3
    assert Bumps.nearest_side(0.8, 1, 2) == 1
    assert Corners.nearest_side(0.0, 5, 5) == 1
