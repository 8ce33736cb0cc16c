import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import nn

from advtrain.attacks.ascent import ascend
from advtrain.noise import Noise
from advtrain.threat import NORMS, PerExampleBall, ThreatModel

# Storing x + delta rounds a pixel by at most 2^-25, so the length of the largest image here, of 48
# entries, by at most sqrt(48) 2^-25 for l2 and 48 2^-25 for l1; float32 lengths add one part in a
# million.
ROUNDING = 2.0**-22
LONGER = {"linf": ROUNDING, "l2": ROUNDING, "l1": 48 * 2.0**-25}

norms = pytest.mark.parametrize("norm", NORMS)

# The order p of each norm, and that of its dual.
ORDERS = {"linf": (math.inf, 1), "l2": (2, 2), "l1": (1, math.inf)}
shapes = st.tuples(st.integers(0, 4), st.integers(1, 3), st.integers(1, 4), st.integers(1, 4))
epsilons = st.sampled_from([0.0, 1 / 255, 8 / 255, 0.3, 1.0])


@st.composite
def images(draw: st.DrawFn, *bounds: tuple[float, float]) -> list[torch.Tensor]:
    """Batches of one shape, each with values in its own bounds."""
    shape = draw(shapes)
    return [
        torch.from_numpy(
            draw(hnp.arrays(np.float32, shape, elements=st.floats(low, high, width=32)))
        )
        for low, high in bounds
    ]


def inside(threat: ThreatModel, x_adv: torch.Tensor, x: torch.Tensor) -> bool:
    near = threat.distance(x_adv, x) <= threat.epsilon * (1 + 1e-6) + LONGER[threat.norm]
    return bool(near.all() and (x_adv >= 0).all() and (x_adv <= 1).all())


@norms
@settings(deadline=None)
@given(batches=images((0, 1), (-3, 3)), epsilon=epsilons)
def test_projection_lies_in_the_ball_and_the_box(
    norm: str, batches: list[torch.Tensor], epsilon: float
) -> None:
    x, x_adv = batches
    threat = ThreatModel(norm, epsilon)
    assert inside(threat, threat.project(x_adv, x), x)


@norms
@settings(deadline=None)
@given(batches=images((0, 1), (-3, 3)), epsilon=epsilons)
def test_projection_is_idempotent(norm: str, batches: list[torch.Tensor], epsilon: float) -> None:
    x, x_adv = batches
    threat = ThreatModel(norm, epsilon)
    once = threat.project(x_adv, x)
    tolerance = 0 if norm == "linf" else ROUNDING
    torch.testing.assert_close(threat.project(once, x), once, rtol=0, atol=tolerance)


@norms
@settings(deadline=None)
@given(batches=images((0, 1), (0, 1)))
def test_projection_keeps_what_is_already_allowed(norm: str, batches: list[torch.Tensor]) -> None:
    x, x_adv = batches
    wide = ThreatModel(norm, {"linf": 1.0, "l2": 10.0, "l1": 100.0}[norm])
    torch.testing.assert_close(wide.project(x_adv, x), x_adv, rtol=0, atol=ROUNDING)


@norms
def test_projection_is_the_nearest_point_away_from_the_box(norm: str) -> None:
    x = torch.full((1, 1, 1, 2), 0.5)
    x_adv = torch.tensor([[[[0.8, 0.9]]]])
    nearest = {"linf": [0.6, 0.6], "l2": [0.56, 0.58], "l1": [0.5, 0.6]}[norm]
    projected = ThreatModel(norm, 0.1).project(x_adv, x)
    torch.testing.assert_close(projected.flatten(), torch.tensor(nearest))


@norms
def test_project_leaves_its_arguments_alone(norm: str) -> None:
    x, x_adv = torch.full((2, 1, 2, 2), 0.5), torch.full((2, 1, 2, 2), 3.0)
    ThreatModel(norm, 0.1).project(x_adv, x)
    assert (x == 0.5).all()
    assert (x_adv == 3.0).all()


@norms
@settings(deadline=None)
@given(batches=images((-10, 10)), scale=st.sampled_from([1.0, 1e-20, 1e-30, 1e20]))
def test_steepest_has_unit_norm_and_attains_the_dual_norm(
    norm: str, batches: list[torch.Tensor], scale: float
) -> None:
    gradient = (batches[0] * scale).double().float()
    steepest = ThreatModel(norm, 1.0).steepest(gradient)
    flat, direction = gradient.double().flatten(1), steepest.double().flatten(1)
    primal, dual = ORDERS[norm]
    lengths = torch.linalg.vector_norm(direction, ord=primal, dim=1)
    # Below the smallest normal float32 a length is free to be anything up to 1.
    normal = flat.abs().amax(1) >= torch.finfo(torch.float32).tiny
    torch.testing.assert_close(lengths[normal], torch.ones_like(lengths)[normal], rtol=1e-6, atol=0)
    assert (lengths <= 1 + 1e-6).all()
    expected = torch.linalg.vector_norm(flat, ord=dual, dim=1)
    found = (flat * direction).sum(1)
    torch.testing.assert_close(found[normal], expected[normal], rtol=1e-6, atol=0)


@norms
def test_a_zero_gradient_has_a_zero_direction(norm: str) -> None:
    steepest = ThreatModel(norm, 1.0).steepest(torch.zeros(2, 3, 4, 5))
    assert torch.equal(steepest, torch.zeros(2, 3, 4, 5))


@norms
@settings(deadline=None)
@given(batches=images((0, 1)), epsilon=epsilons, seed=st.integers(0, 99), restart=st.integers(0, 9))
def test_a_random_start_lies_in_the_threat_set(
    norm: str, batches: list[torch.Tensor], epsilon: float, seed: int, restart: int
) -> None:
    (x,) = batches
    threat = ThreatModel(norm, epsilon)
    assert inside(threat, threat.random_start(x, Noise(seed, torch.arange(len(x))), restart), x)


@norms
def test_random_starts_are_uniform_in_the_ball(norm: str) -> None:
    x = torch.full((4000, 1, 1, 3), 0.5)
    threat = ThreatModel(norm, 0.2)
    delta = (threat.random_start(x, Noise(5, torch.arange(4000))) - x).flatten(1) / 0.2
    assert delta.mean(0).abs().max() < 4 * delta.std() / 4000**0.5
    # Half the radius holds 1/8 of the volume of any of the balls in three dimensions.
    share = (threat.distance(x + 0.2 * delta.view_as(x), x) < 0.1).float().mean()
    assert abs(share - 1 / 8) < 4 * (1 / 8 * 7 / 8 / 4000) ** 0.5


@norms
def test_a_random_start_depends_on_the_example_alone(norm: str) -> None:
    x = torch.rand(9, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    noise, threat = Noise(1, torch.arange(9)), ThreatModel(norm, 0.1)
    whole, rows = threat.random_start(x, noise), torch.tensor([7, 2, 3])
    assert torch.equal(threat.random_start(x[rows], noise.take(rows)), whole[rows])
    channels_last = x.to(memory_format=torch.channels_last)
    assert torch.equal(threat.random_start(channels_last, noise), whole)
    assert not torch.equal(threat.random_start(x, noise, restart=1), whole)


@norms
@settings(deadline=None)
@given(batches=images((0, 1), (0, 1), (0, 1)), share=st.floats(0, 1))
def test_distance_is_a_norm_of_the_difference(
    norm: str, batches: list[torch.Tensor], share: float
) -> None:
    x, other, third = batches
    distance = ThreatModel(norm, 0.1).distance
    apart = distance(other, x)
    assert torch.equal(distance(x, x), torch.zeros(len(x)))
    assert torch.equal(apart > 0, (other != x).flatten(1).any(1))
    assert torch.equal(apart, distance(x, other))
    assert (apart <= distance(other, third) + distance(third, x) + 1e-6).all()
    between = x.double() + share * (other.double() - x.double())
    torch.testing.assert_close(distance(between, x), share * apart, rtol=1e-6, atol=1e-7)


def by_bisection(x_adv: torch.Tensor, x: torch.Tensor, radius: float) -> torch.Tensor:
    """The nearest point of the l1 ball and the box: the threshold by halving an interval.

    The Lagrangian of the ball's constraint alone separates over the pixels: each is shrunk by one
    threshold and clamped to the box.
    """
    x_adv, x = x_adv.double(), x.double()
    delta = x_adv - x

    def shrunk(threshold: torch.Tensor) -> torch.Tensor:
        return (x + delta.sign() * (delta.abs() - threshold).clamp(min=0)).clamp(0, 1)

    low = torch.zeros(len(x), 1, 1, 1, dtype=torch.float64)
    high = low + 10
    for _ in range(100):
        middle = (low + high) / 2
        long = (shrunk(middle) - x).abs().sum((1, 2, 3), keepdim=True) > radius
        low, high = torch.where(long, middle, low), torch.where(long, high, middle)
    return shrunk(high)


@settings(deadline=None)
@given(batches=images((0, 1), (-3, 3)), epsilon=epsilons)
def test_the_l1_projection_is_that_of_bisection(
    batches: list[torch.Tensor], epsilon: float
) -> None:
    x, x_adv = batches
    threat, expected = ThreatModel("l1", epsilon), by_bisection(x_adv, x, epsilon)
    exact = threat.project(x_adv.double(), x.double())
    torch.testing.assert_close(exact, expected, rtol=0, atol=1e-12)
    rounded = threat.project(x_adv, x).double()
    torch.testing.assert_close(rounded, expected, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("norm", ["linf", "l1"])
@settings(deadline=None)
@given(batches=images((0, 1), (-3, 3)), epsilon=epsilons, seed=st.integers(0, 99))
def test_no_point_of_ball_and_box_is_nearer_than_the_projection(
    norm: str, batches: list[torch.Tensor], epsilon: float, seed: int
) -> None:
    """Towards every point of a convex set one moves away from what was projected, or sideways."""
    x, x_adv = batches
    x, x_adv, threat = x.double(), x_adv.double(), ThreatModel(norm, epsilon)
    projected = threat.project(x_adv, x)
    noise = Noise(seed, torch.arange(len(x)))
    corner = threat.project(x + epsilon * threat.steepest(x_adv - projected), x)
    for other in (threat.random_start(x, noise).double(), corner, x):
        slope = ((x_adv - projected) * (other - projected)).flatten(1).sum(1)
        assert (slope <= 1e-6).all()


def test_l1_radii_beyond_the_box_reach_its_corners() -> None:
    x, x_adv = torch.full((1, 1, 2, 2), 0.25), torch.tensor([[[[5.0, -5.0], [2.0, 0.5]]]])
    expected = torch.tensor([[[[1.0, 0.0], [1.0, 0.5]]]])
    assert torch.equal(ThreatModel("l1", 4.0).project(x_adv, x), expected)


def test_the_steepest_l1_direction_is_the_first_of_the_largest_entries() -> None:
    gradient = torch.tensor([[[[1.0, -3.0], [3.0, 0.0]]]])
    expected = torch.tensor([[[[0.0, -1.0], [0.0, 0.0]]]])
    assert torch.equal(ThreatModel("l1", 1.0).steepest(gradient), expected)


def test_distance_by_hand() -> None:
    x, x_adv = torch.zeros(1, 1, 1, 2), torch.tensor([[[[0.3, -0.4]]]])
    assert ThreatModel("linf", 1).distance(x_adv, x).item() == pytest.approx(0.4)
    assert ThreatModel("l2", 1).distance(x_adv, x).item() == pytest.approx(0.5)
    assert ThreatModel("l1", 1).distance(x_adv, x).item() == pytest.approx(0.7)


@norms
@settings(deadline=None)
@given(batches=images((0, 1), (-3, 3)), epsilon=epsilons, restart=st.integers(0, 3))
def test_equal_radii_are_the_threat_model_to_the_bit(
    norm: str, batches: list[torch.Tensor], epsilon: float, restart: int
) -> None:
    x, x_adv = batches
    one, each = ThreatModel(norm, epsilon), PerExampleBall(norm, torch.full((len(x),), epsilon))
    noise = Noise(3, torch.arange(len(x)))
    assert torch.equal(each.steepest(x_adv), one.steepest(x_adv))
    pairs = [
        (each.project(x_adv, x), one.project(x_adv, x)),
        (each.random_start(x, noise, restart), one.random_start(x, noise, restart)),
    ]
    for left, right in pairs:
        # The l1 projection works in float64, where a radius of the image's type is rounded.
        torch.testing.assert_close(left, right, rtol=0, atol=ROUNDING if norm == "l1" else 0)


@norms
def test_every_example_has_its_own_radius(norm: str) -> None:
    generator = torch.Generator().manual_seed(0)
    x, x_adv = torch.rand(2, 5, 3, 4, 4, generator=generator)
    x_adv = 6 * x_adv - 3
    radii, noise = [0.0, 0.01, 0.1, 0.5, 2.0], Noise(3, torch.arange(5))
    ball = PerExampleBall(norm, torch.tensor(radii))
    projected, starts = ball.project(x_adv, x), ball.random_start(x, noise)
    for row, radius in enumerate(radii):
        only = slice(row, row + 1)
        alone = PerExampleBall(norm, torch.tensor([radius]))
        own = noise.take(torch.tensor([row]))
        torch.testing.assert_close(projected[only], alone.project(x_adv[only], x[only]))
        torch.testing.assert_close(starts[only], alone.random_start(x[only], own))
    for found in (projected, starts):
        assert (ball.distance(found, x) <= torch.tensor(radii) * (1 + 1e-6) + LONGER[norm]).all()
        assert found.min() >= 0
        assert found.max() <= 1
        torch.testing.assert_close(found[0], x[0], rtol=0, atol=ROUNDING)


@norms
def test_every_example_is_attacked_within_its_own_radius_by_its_own_step(norm: str) -> None:
    # A linear function of the image, away from the box: the gain is radius or step times the dual
    # norm of the weights, whichever is less.
    w = torch.randn(16, generator=torch.Generator().manual_seed(0))
    x = torch.full((3, 1, 4, 4), 0.5)
    radii, steps = torch.tensor([0.1, 0.1, 0.0]), torch.tensor([0.2, 0.03, 0.2])
    found = ascend(
        nn.Flatten(),
        x,
        x,
        lambda logits: logits @ w,
        PerExampleBall(norm, radii),
        steps=1,
        step_size=steps.view(-1, 1, 1, 1),
    )
    dual = torch.linalg.vector_norm(w, ord=ORDERS[norm][1])
    gain = (found - x).flatten(1) @ w
    torch.testing.assert_close(gain, torch.minimum(radii, steps) * dual, rtol=1e-5, atol=1e-6)


@norms
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_radii_take_the_type_of_the_image(norm: str, dtype: torch.dtype) -> None:
    x = torch.full((2, 1, 1, 1), 0.5, dtype=dtype)
    for radii in (torch.tensor([0.1, 0.2]), torch.tensor([0.1, 0.2]).double()):
        ball = PerExampleBall(norm, radii)
        assert ball.radius(x).dtype == dtype
        projected = ball.project(x + 1, x)
        torch.testing.assert_close(projected.flatten(), torch.tensor([0.6, 0.7], dtype=dtype))


def test_radii_that_are_not_one_per_example_are_named() -> None:
    with pytest.raises(ValueError, match=r"one radius per example, shape \(N,\), got \(2, 1\)"):
        PerExampleBall("linf", torch.zeros(2, 1))
    with pytest.raises(ValueError, match="threat norm 'l7' is not known"):
        PerExampleBall("l7", torch.zeros(2))
