"""The projection against scipy's optimisers, the attack against the exact distances of models."""

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.optimize import brentq, linprog
from torch import Tensor, nn

from advtrain.attacks.attack import Attacked, predictions
from advtrain.attacks.fab import DUAL, NORMS, PERIOD, fab
from advtrain.attacks.hyperplane import smallest_step
from advtrain.attacks.minimum_norm import sure_margin
from advtrain.attacks.restarts import SMALLEST_BATCH
from advtrain.noise import Noise
from advtrain.threat import ORDERS, ThreatModel, Transformation

Examples = tuple[Tensor, Tensor]

norms = pytest.mark.parametrize("norm", NORMS)

ANYWHERE = {"linf": 1.0, "l2": 20.0, "l1": 60.0}
"""Budgets that hold the nearest adversarial image of every example of the tests."""

HALF = {"linf": 0.12, "l2": 0.75, "l1": 2.5}
"""Budgets that hold those of about half of the examples."""


def noise_for(count: int) -> Noise:
    return Noise(0, torch.arange(count))


def shortest(point: Tensor, gradient: Tensor, value: Tensor, norm: str) -> float:
    """The length of the shortest d with value + gradient.d >= 0 and point + d in [0, 1].

    linf and l1 are linear programs. For l2, d is t times the gradient, clipped to the box.
    """
    size, g = len(point), gradient.numpy()
    low, high = -point.numpy(), 1 - point.numpy()
    if norm == "l2":

        def clipped(t: float) -> np.ndarray:
            return np.clip(t * g, low, high)

        enough = 2 / np.abs(g[g != 0]).min()
        t = brentq(lambda t: value.item() + g @ clipped(t), 0, enough, xtol=1e-14, rtol=1e-14)
        return float(np.linalg.norm(clipped(t)))
    # The variables are d and bounds on its sizes: one for all entries (linf), or one for each (l1).
    count = 1 if norm == "linf" else size
    bounds = np.ones((size, 1)) if norm == "linf" else np.eye(size)
    unit, row = np.eye(size), np.concatenate([-g, np.zeros(count)])
    found = linprog(
        np.concatenate([np.zeros(size), np.ones(count)]),
        A_ub=np.concatenate([np.block([[unit, -bounds], [-unit, -bounds]]), row[None]]),
        b_ub=np.concatenate([np.zeros(2 * size), [value.item()]]),
        bounds=[*zip(low, high, strict=True), *[(0, None)] * count],
    )
    assert found.success, found.message
    return float(found.fun)


def problems(
    count: int = 24, size: int = 7, share: tuple[float, float] = (0.01, 0.99)
) -> tuple[Tensor, Tensor, Tensor]:
    """Points, some entries at the box; normals, some entries zero; residuals within reach."""
    generator = torch.Generator().manual_seed(0)
    draw = partial(torch.rand, count, size, generator=generator, dtype=torch.float64)
    points = (1.6 * draw() - 0.3).clamp(0, 1)
    w = (2 * draw() - 1) * (draw() > 0.2)
    rooms = torch.where(w > 0, points, 1 - points)  # of steps that lower a positive residual
    shares = share[0] + (share[1] - share[0]) * draw()[:, 0]
    residual = (w.abs() * rooms).sum(1) * shares
    # Every second problem is turned round: a negative residual, to be raised.
    turned = torch.where(torch.arange(count) % 2 == 0, 1.0, -1.0).double()
    return points, w * turned[:, None], residual * turned


@norms
def test_the_step_is_as_short_as_the_one_that_scipy_finds(norm: str) -> None:
    points, w, residual = problems()
    d = smallest_step(points, w, residual, norm)
    # As seen from a negative residual, which is to be raised.
    turned = -w * residual.sign()[:, None]
    lengths = [
        shortest(point, gradient, -value.abs(), norm)
        for point, gradient, value in zip(points, turned, residual, strict=True)
    ]
    found = torch.linalg.vector_norm(d, ord=ORDERS[norm], dim=1)
    expected = torch.tensor(lengths, dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)
    free = residual.abs() / torch.linalg.vector_norm(w, ord=DUAL[norm], dim=1)
    assert (found > 1.05 * free).float().mean() > 0.4  # the box mattered


@norms
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_step_ends_on_the_hyperplane_and_in_the_box(norm: str, dtype: torch.dtype) -> None:
    points, w, residual = (part.to(dtype) for part in problems(count=200, size=300))
    d = smallest_step(points, w, residual, norm)
    assert d.dtype == dtype
    left = residual.double() + (w.double() * d.double()).sum(1)
    rounding = 32 * torch.finfo(dtype).eps
    assert (left.abs() <= rounding * residual.abs()).all()
    assert (points + d >= 0).all()
    assert (points + d <= 1).all()
    assert (d[w == 0] == 0).all()


@norms
def test_an_unreachable_hyperplane_leads_to_the_corner_next_to_it(norm: str) -> None:
    points, w, residual = problems(share=(1.01, 3.0))
    corner = torch.where(w * residual[:, None] > 0, 0.0, 1.0)
    corner = torch.where(w == 0, points, corner)
    found = points + smallest_step(points, w, residual, norm)
    torch.testing.assert_close(found, corner, rtol=0, atol=1e-15)


@norms
def test_without_a_gradient_or_a_residual_nothing_moves(norm: str) -> None:
    points, w, residual = (part.float() for part in problems())
    assert (smallest_step(points, torch.zeros_like(w), residual, norm) == 0).all()
    assert (smallest_step(points, w, torch.zeros_like(residual), norm) == 0).all()
    assert (smallest_step(points, torch.zeros_like(w), 0 * residual, norm) == 0).all()


@norms
def test_the_step_does_not_depend_on_the_scale_of_the_function(norm: str) -> None:
    """The squares of a saturated network's gradients underflow; powers of two keep every bit."""
    points, w, residual = (part.float() for part in problems())
    expected = smallest_step(points, w, residual, norm)
    for scale in (2.0**-95, 2.0**60):
        assert torch.equal(smallest_step(points, scale * w, scale * residual, norm), expected)


@norms
def test_entries_of_tiny_weight_do_not_pay_for_rounding(norm: str) -> None:
    """The first entries reach the hyperplane at the side of the box, exactly but for rounding."""
    generator = torch.Generator().manual_seed(0)
    w = torch.rand(500, 40, generator=generator)
    points = torch.rand(500, 40, generator=generator)
    w[:, 20:] *= 1e-20
    residual = (w * points)[:, :20].sum(1)
    d = smallest_step(points, w, residual, norm)
    lengths = torch.linalg.vector_norm(d, ord=ORDERS[norm], dim=1)
    first = torch.linalg.vector_norm(points[:, :20], ord=ORDERS[norm], dim=1)
    torch.testing.assert_close(lengths, first, rtol=2e-3, atol=0)


@norms
def test_stacked_points_share_the_normals_and_rows_do_not_mix(norm: str) -> None:
    points, w, residual = (part.float() for part in problems(count=40, size=100))
    other = points.flip(1)
    stacked = torch.stack([points, other]), torch.stack([residual, 3 * residual])
    both = smallest_step(stacked[0], w, stacked[1], norm)
    assert torch.equal(both[0], smallest_step(points, w, residual, norm))
    assert torch.equal(both[1], smallest_step(other, w, 3 * residual, norm))
    assert torch.equal(both[0, :17], smallest_step(points[:17], w[:17], residual[:17], norm))


unit = st.floats(0, 1, width=32)


@norms
@settings(deadline=None, max_examples=50)
@given(
    points=hnp.arrays("float32", (3, 5), elements=unit),
    w=hnp.arrays("float32", (3, 5), elements=st.floats(-1, 1, width=32)),
    residual=hnp.arrays("float32", 3, elements=st.floats(-3, 3, width=32)),
)
def test_no_problem_leads_out_of_the_box_or_beyond_the_hyperplane(
    norm: str, points: np.ndarray, w: np.ndarray, residual: np.ndarray
) -> None:
    given_points, normals, values = map(torch.from_numpy, (points, w, residual))
    d = smallest_step(given_points, normals, values, norm)
    assert d.isfinite().all()
    assert (given_points + d >= 0).all()
    assert (given_points + d <= 1).all()
    left = values.double() + (normals.double() * d.double()).sum(1)
    # The least number that is not zero gives a product of size 1e-38 no digits.
    assert (left * values.sign() >= -1e-6 * values.abs() - 1e-36).all()
    assert (left.abs() <= values.abs() + 1e-36).all()


class Linear(nn.Module):
    """Logits W x + b of three classes, in float64."""

    def __init__(self, size: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        weight = torch.randn(3, size, generator=generator, dtype=torch.float64)
        self.weight = nn.Parameter(weight)
        # All classes are equally likely at grey.
        self.bias = nn.Parameter(-0.5 * weight.sum(1))

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight.T + self.bias

    def planes(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The values (N, 2) and gradients (N, 2, D) of z_k - z_y for the k other than y."""
        with torch.no_grad():
            logits = self(x)
            others = torch.stack([(y + 1) % 3, (y + 2) % 3], 1)
            values = logits.gather(1, others) - logits.gather(1, y[:, None])
            return values, self.weight[others] - self.weight[y][:, None]


def classified(model: Linear, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x).argmax(1)


@norms
@pytest.mark.parametrize("targets", [0, 9])
def test_the_distance_to_the_boundary_of_a_linear_model(norm: str, targets: int) -> None:
    """Away from the box it is |z_k - z_y| over the dual norm of the gradient."""
    model = Linear(size=16)
    # At grey all classes are equally likely: beside it, the boundaries are near.
    x = 0.5 + 0.02 * torch.randn(20, 1, 4, 4, generator=torch.Generator().manual_seed(1)).double()
    y, threat = classified(model, x), ThreatModel(norm, ANYWHERE[norm])
    found = fab(model, x, y, threat, noise_for(20), targets=targets, steps=10)
    values, gradients = model.planes(x, y)
    exact = (-values / torch.linalg.vector_norm(gradients, ord=DUAL[norm], dim=2)).amin(1)
    distance = threat.distance(found.x_adv, x).double()
    assert (classified(model, found.x_adv) != y).all()
    assert (distance >= exact * (1 - 1e-6)).all()
    assert (distance <= exact * 1.01).all()


@norms
def test_the_distance_to_the_boundary_where_the_box_matters(norm: str) -> None:
    """It is what scipy's optimisers find in float64, over all targets."""
    model = Linear(size=9)
    x = torch.rand(40, 1, 3, 3, generator=torch.Generator().manual_seed(1)).double()
    x = (3 * x - 1).clamp(0, 1)
    y, threat = classified(model, x), ThreatModel(norm, ANYWHERE[norm])
    values, gradients = model.planes(x, y)
    free = (-values / torch.linalg.vector_norm(gradients, ord=DUAL[norm], dim=2)).amin(1)
    exact = torch.tensor(
        [
            min(shortest(point, gradient[k], value[k], norm) for k in range(2))
            for point, gradient, value in zip(x.flatten(1), gradients, values, strict=True)
        ]
    ).double()
    assert (exact > 1.02 * free).double().mean() > 0.1  # the box mattered
    found = fab(model, x, y, threat, noise_for(40), steps=40)
    distance = threat.distance(found.x_adv, x).double()
    assert (classified(model, found.x_adv) != y).all()
    assert (distance >= exact * (1 - 1e-6)).all()
    assert (distance <= exact * 1.01).all()


@norms
def test_a_target_has_its_own_boundary(norm: str) -> None:
    """Class 1 is the most likely wrong one at x, but farther away than class 2."""
    model = Linear(size=16)
    with torch.no_grad():
        model.weight[1] = model.weight[0] + 0.1 * model.weight[1]
        model.bias.copy_(torch.tensor([0.0, -0.3, -0.5]) - 0.5 * model.weight.sum(1))
    x = torch.full((4, 1, 4, 4), 0.5, dtype=torch.float64)
    y, threat = torch.zeros(4, dtype=torch.int64), ThreatModel(norm, ANYWHERE[norm])
    values, gradients = model.planes(x, y)
    exact = [shortest(x[0].flatten(), gradients[0, k], values[0, k], norm) for k in range(2)]
    assert values[0, 0] > values[0, 1]
    assert exact[0] > 1.5 * exact[1]
    for targets, goal in ((1, 0), (2, 1), (9, 1), (0, 1)):
        found = fab(model, x, y, threat, noise_for(4), targets=targets, steps=10)
        margins, _ = model.planes(found.x_adv, y)
        assert (margins[:, goal] > 0).all()
        distance = threat.distance(found.x_adv, x)
        torch.testing.assert_close(distance, torch.full((4,), exact[goal]), rtol=0.01, atol=0)


def attacked(
    trained: nn.Module, examples: Examples, norm: str, epsilon: float, **parameters: object
) -> tuple[Attacked, Tensor]:
    """What is found, and which examples are robust."""
    x, y = examples
    found = fab(trained, x, y, ThreatModel(norm, epsilon), noise_for(len(x)), **parameters)
    with torch.no_grad():
        return found, predictions(trained(found.x_adv)) == y


@norms
def test_the_points_are_the_nearest_adversarial_ones_or_at_distance_epsilon(
    norm: str, trained: nn.Module, examples: Examples
) -> None:
    x, y = examples
    far, robust = attacked(trained, examples, norm, ANYWHERE[norm], steps=8)
    assert not robust.any()
    exact = ThreatModel(norm, 1.0).distance(far.x_adv, x)
    threat = ThreatModel(norm, HALF[norm])
    near, robust = attacked(trained, examples, norm, HALF[norm], steps=8)
    assert torch.equal(robust, exact > HALF[norm])
    assert 0.2 < robust.float().mean() < 0.8
    assert torch.equal(near.x_adv[~robust], far.x_adv[~robust])
    assert torch.equal(near.objective[~robust], far.objective[~robust])
    distance = threat.distance(near.x_adv, x)[robust]
    torch.testing.assert_close(distance, torch.full_like(distance, HALF[norm]))
    along = (x + (far.x_adv - x) * (HALF[norm] / exact).view(-1, 1, 1, 1))[robust]
    torch.testing.assert_close(near.x_adv[robust], along, rtol=0, atol=1e-6)
    with torch.no_grad():
        logits = trained(near.x_adv)
    own = logits.gather(1, y[:, None])
    others = logits.scatter(1, y[:, None], -torch.inf).amax(1, keepdim=True)
    torch.testing.assert_close(near.objective, (others - own).squeeze(1), rtol=0, atol=1e-5)
    assert (near.objective > sure_margin(logits))[~robust].all()


def test_the_point_at_distance_epsilon_may_have_a_smaller_margin_than_x() -> None:
    """One pixel at 0.5: class 1 falls behind on the way to class 2, which wins at 0.9."""

    class Pixel(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            t = images.flatten(1)
            return torch.cat([0 * t, -0.5 - t, 10 * (t - 0.9)], 1)

    x, y = torch.full((1, 1, 1, 1), 0.5), torch.zeros(1, dtype=torch.int64)
    found = fab(Pixel(), x, y, ThreatModel("linf", 0.2), noise_for(1))
    assert found.x_adv.item() == pytest.approx(0.7)
    assert found.objective.item() == pytest.approx(-1.2)


class Recording(nn.Module):
    """The model, with the images that it is shown."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.shown = model, list[Tensor]()

    def forward(self, images: Tensor) -> Tensor:
        self.shown.append(images.detach().clone())
        return self.model(images)


@norms
def test_restarts_begin_at_x_then_at_random_in_the_ball_of_half_the_radius(
    norm: str, trained: nn.Module, examples: Examples
) -> None:
    x, y = examples
    model, threat = Recording(trained), ThreatModel(norm, 0.01)
    with torch.no_grad():
        assert (predictions(trained(x)) == y).all()
    found = fab(model, x, y, threat, noise_for(len(x)), targets=2, steps=1, restarts=3)
    assert (found.forwards == 1 + 3 * (2 * 2 + 1)).all()
    # Of a restart's five passes, the first of each target's two; the very first pass is at x.
    runs = [model.shown[1 + 5 * restart + 2 * target] for restart in range(3) for target in (0, 1)]
    assert torch.equal(runs[0], x)
    assert torch.equal(runs[1], x)
    half = ThreatModel(norm, threat.epsilon / 2)
    for place, start in enumerate(runs[2:]):
        assert (threat.distance(start, x) > 0).all()
        assert (threat.distance(start, x) <= half.epsilon * (1 + 1e-6) + 2.0**-23).all()
        assert not any(torch.equal(start, other) for other in runs[2:][:place])


def test_small_batches_are_filled(trained: nn.Module, examples: Examples) -> None:
    x, y = examples
    model, threat = Recording(trained), ThreatModel("l2", 1.15 * HALF["l2"])
    found = fab(model, x, y, threat, noise_for(96), steps=20, minimise=False)
    sizes = [len(images) for images in model.shown]
    assert min(sizes) == SMALLEST_BATCH
    assert found.forwards.sum() < sum(sizes)


@norms
@pytest.mark.parametrize("targets", [0, 9])
def test_dropping_decided_examples_changes_no_verdict(
    norm: str, targets: int, trained: nn.Module, examples: Examples
) -> None:
    chosen = {"targets": targets, "steps": 6, "restarts": 2}
    whole, robust = attacked(trained, examples, norm, HALF[norm], **chosen)
    dropped, still = attacked(trained, examples, norm, HALF[norm], **chosen, minimise=False)
    assert torch.equal(robust, still)
    assert torch.equal(dropped.x_adv[robust], whole.x_adv[robust])
    assert torch.equal(dropped.forwards[robust], whole.forwards[robust])
    assert (dropped.forwards < whole.forwards)[~robust].all()
    # A step finds most of them: they are dropped at the first look.
    assert (dropped.forwards == 1 + 2 * PERIOD).float().mean() > 0.1


@norms
@pytest.mark.parametrize("chosen", [{"targets": 0}, {"targets": 2}, {"minimise": False}])
def test_results_do_not_depend_on_the_batch(
    norm: str, chosen: dict[str, object], trained: nn.Module, examples: Examples
) -> None:
    x, y = examples
    threat, noise = ThreatModel(norm, HALF[norm]), noise_for(len(x))
    attack = partial(fab, steps=7, restarts=2, **chosen)
    whole = attack(trained, x, y, threat, noise)
    rows = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:40]
    part = attack(trained, x[rows], y[rows], threat, noise.take(rows))
    for name in ("x_adv", "objective", "forwards", "backwards"):
        assert torch.equal(getattr(part, name), getattr(whole, name)[rows]), name


@pytest.mark.parametrize(
    ("chosen", "runs", "backward"),
    [
        ({"targets": 9}, 3, 1),  # of four classes, three are wrong
        ({"targets": 2}, 2, 1),
        ({"targets": 0}, 1, 3),
        ({"targets": 1, "restarts": 3}, 3, 1),
    ],
)
def test_passes(
    chosen: dict[str, int], runs: int, backward: int, trained: nn.Module, examples: Examples
) -> None:
    """At the network: for each run `steps` times 2 forwards, and 1 backward or K - 1."""
    rows = {"forward": 0, "backward": 0}

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        def count_backward(gradient: Tensor) -> None:
            rows["backward"] += len(gradient)

        rows["forward"] += len(output)
        if output.requires_grad:
            output.register_hook(count_backward)

    counted = nn.Sequential(trained)
    counted.register_forward_hook(count)
    x, y = examples
    with torch.no_grad():
        right = predictions(trained(x)) == y
    found, _ = attacked(counted, (x[right], y[right]), "linf", 0.0, steps=7, **chosen)
    edges = chosen.get("restarts", 1)
    assert (found.forwards == 1 + runs * 7 * 2 + edges).all()
    assert (found.backwards == runs * 7 * backward).all()
    # `attacked` looks once more.
    assert rows["forward"] == found.forwards.sum() + right.sum()
    assert rows["backward"] == found.backwards.sum()


@norms
def test_misclassified_images_are_left_alone(
    norm: str, trained: nn.Module, examples: Examples
) -> None:
    x, y = examples[0], (examples[1] + 1) % 4
    found, robust = attacked(trained, (x, y), norm, HALF[norm])
    wrong = found.forwards == 1
    assert wrong.float().mean() > 0.9
    assert not robust[wrong].any()
    assert torch.equal(found.x_adv[wrong], x[wrong])
    assert (found.backwards[wrong] == 0).all()
    assert (found.objective[wrong] > 0).all()


def test_more_restarts_find_nearer_points(trained: nn.Module, examples: Examples) -> None:
    x, _ = examples
    threat, distances = ThreatModel("l2", ANYWHERE["l2"]), []
    for restarts in (1, 3):
        found, _ = attacked(trained, examples, "l2", threat.epsilon, steps=6, restarts=restarts)
        distances.append(threat.distance(found.x_adv, x))
    assert (distances[1] <= distances[0]).all()
    assert (distances[1] < distances[0]).any()


@norms
def test_an_overflowed_example_spoils_no_other(
    norm: str, trained: nn.Module, examples: Examples
) -> None:
    x, y = examples[0].clone(), examples[1].clone()
    x[0] = 0
    with torch.no_grad():
        y[0] = trained(x[:1]).argmax()

    class Overflowing(nn.Module):
        """Beside black, the logits are not finite."""

        def forward(self, images: Tensor) -> Tensor:
            grey = images.flatten(1).mean(1, keepdim=True)
            return trained(images).where((grey == 0) | (grey > 0.2), torch.nan)

    threat, noise = ThreatModel(norm, HALF[norm]), noise_for(len(x))
    found = fab(Overflowing(), x, y, threat, noise, steps=6)
    alone = fab(trained, x, y, threat, noise, steps=6)
    with torch.no_grad():
        assert not Overflowing()(found.x_adv[:1]).isfinite().any()
    assert torch.equal(found.x_adv[1:], alone.x_adv[1:])
    assert torch.equal(found.objective[1:], alone.objective[1:])
    assert ((found.x_adv >= 0) & (found.x_adv <= 1)).all()
    # It counts as adversarial and is drawn back at every step.
    first = fab(Overflowing(), x, y, threat, noise, steps=1)
    assert threat.distance(found.x_adv, x)[0] < 0.8 * threat.distance(first.x_adv, x)[0]


def test_a_norm_that_it_does_not_know(trained: nn.Module, examples: Examples) -> None:
    with pytest.raises(ValueError, match="fab knows the norms linf, l2, l1, got spatial"):
        fab(trained, *examples, Transformation("spatial"), noise_for(96))


def test_a_model_that_detaches_its_input(examples: Examples) -> None:
    class Detached(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.detach().flatten(1)[:, :4]

    message = "fab: the logits do not depend on the input: has the model detached it"
    with pytest.raises(ValueError, match=message):
        fab(Detached(), *examples, ThreatModel("linf", 0.1), noise_for(96))
