"""Auto-PGD beside the paper's algorithm one example at a time, and where the optimum is known."""

import math
from fractions import Fraction
from itertools import pairwise
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from advtrain.attacks.apgd import apgd, checkpoints
from advtrain.attacks.attack import Attacked, predictions
from advtrain.attacks.objectives import cross_entropy
from advtrain.noise import Noise
from advtrain.threat import NORMS, ThreatModel

Examples = tuple[Tensor, Tensor]

norms = pytest.mark.parametrize("norm", NORMS)

# About half of the examples of the trained network withstand these.
BUDGETS = {"linf": 0.12, "l2": 0.75, "l1": 2.0}


def noise_for(count: int) -> Noise:
    return Noise(0, torch.arange(count))


class Run(NamedTuple):
    best: Tensor
    values: list[float]
    wrong: bool
    step_size: float
    returns: int


def by_hand(model: nn.Module, x: Tensor, y: Tensor, start: Tensor, threat: ThreatModel) -> Run:
    """Algorithm 1 of both papers for one example and 100 steps, as they are written."""

    def evaluated(at: Tensor) -> tuple[float, Tensor, bool]:
        at = at.detach().requires_grad_()
        logits = model(at)
        value = cross_entropy(logits, y).sum()
        wrong = predictions(logits.detach()).item() != y.item()
        return value.item(), torch.autograd.grad(value, at)[0], wrong

    epsilon, size = threat.epsilon, x.numel()
    step_size = epsilon if threat.norm == "l1" else 2 * epsilon
    first, allowed, entries = step_size, math.ceil(0.2 * size), size
    at = before = best = threat.project(start, x)
    value, gradient, wrong = evaluated(at)
    best_value, best_gradient, values = value, gradient, [value]
    best_then, halved, returns, last_check = value, True, 0, 0
    for step in range(1, 101):
        if threat.norm == "l1":
            least = gradient.abs().flatten().topk(allowed).values[-1]
            signs = gradient.sign() * (gradient.abs() >= least)
            ahead = threat.project(at + step_size * signs / signs.abs().sum(), x)
        else:
            z = threat.project(at + step_size * threat.steepest(gradient), x)
            weight = 0.75 if step > 1 else 1.0
            ahead = threat.project(at + weight * (z - at) + (1 - weight) * (at - before), x)
        before, at = at, ahead
        value, gradient, wrong_now = evaluated(at)
        values.append(value)
        if wrong_now:
            return Run(at, values, True, step_size, returns)
        if value > best_value:
            best, best_value, best_gradient = at, value, gradient
        if threat.norm == "l1" and step % 4 == 0:
            now = int(((best - x).abs() > 1e-6).sum())
            back = now < 0.95 * entries
            step_size = first if back else max(step_size / 1.5, first / 10)
            allowed, entries = math.ceil(now / 1.5), now
        elif threat.norm != "l1" and step in (22, 41, 57, 70, 80, 87, 93, 99):
            since = values[last_check:]
            rises = sum(later > earlier for earlier, later in pairwise(since))
            back = rises <= 0.75 * (step - last_check)
            back = back or (not halved and best_value == best_then)
            step_size = step_size / 2 if back else step_size
            halved, best_then, last_check = back, best_value, step
        else:
            continue
        if back:
            at, gradient, returns = best, best_gradient, returns + 1
    return Run(best, values, wrong, step_size, returns)


def start_of(threat: ThreatModel, x: Tensor, noise: Noise) -> Tensor:
    """The published random starts."""
    shape = tuple(x.shape[1:])
    if threat.norm == "linf":
        drawn = 2 * noise.uniform(shape) - 1
        return x + threat.epsilon * drawn / drawn.abs().amax((1, 2, 3), keepdim=True)
    drawn = noise.normal(shape)
    if threat.norm == "l2":
        length = torch.linalg.vector_norm(drawn.double(), dim=(1, 2, 3), keepdim=True)
        return x + threat.epsilon * drawn / length
    return threat.project(x + drawn, x)


@norms
def test_the_batch_is_the_papers_algorithm_for_each_example(
    norm: str, trained: nn.Module, examples: Examples
) -> None:
    """In float64, where no sign of a slope hangs on the size of the batch."""
    model = nn.Sequential(*trained).double()
    try:
        x, y = examples[0][:16].double(), examples[1][:16]
        threat, noise = ThreatModel(norm, BUDGETS[norm]), noise_for(16)
        found = apgd(model, x, y, threat, noise)
        starts = start_of(threat, x, noise.fold_in(0))
        rows = torch.arange(16).split(1)
        runs = [by_hand(model, x[row], y[row], starts[row], threat) for row in rows]
        robust = predictions(model(found.x_adv)) == y
    finally:
        model.float()
    assert robust.tolist() == [not run.wrong for run in runs]
    survivors = [(row, run) for row, run in enumerate(runs) if not run.wrong]
    assert 2 < len(survivors) < 16
    for row, run in enumerate(runs):
        torch.testing.assert_close(found.x_adv[row], run.best[0], rtol=0, atol=1e-6)
    for row, run in survivors:
        assert found.objective[row].item() == pytest.approx(max(run.values))
        assert found.gain[row].item() == pytest.approx(max(run.values) - run.values[0])
        late = max(run.values) - max(run.values[:76])
        assert found.late_gain[row].item() == pytest.approx(late, abs=1e-9)
    # Each has halved its own steps, at its own checkpoints.
    assert len({(run.step_size, run.returns) for _, run in survivors}) > 1


@pytest.mark.parametrize("steps", [100, 200, 1000])
def test_the_checkpoints_are_those_of_the_paper(steps: int) -> None:
    """w_j = ceil(p_j steps), p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03, 0.06), from 0 and 0.22."""
    shares = [Fraction(0), Fraction(22, 100)]
    while (longer := shares[-1] - shares[-2] - Fraction(3, 100)) is not None:
        shares.append(shares[-1] + max(longer, Fraction(6, 100)))
        if shares[-1] >= 1:
            break
    found = checkpoints(steps, "linf")
    assert list(found) == [math.ceil(share * steps) for share in shares[1:-1]]
    assert sum(found.values()) == max(found)


@pytest.mark.parametrize("norm", NORMS)
def test_short_runs_have_checkpoints_at_every_step(norm: str) -> None:
    assert checkpoints(4, norm) == {1: 1, 2: 1, 3: 1}
    assert checkpoints(1, norm) == {}


class Slope(nn.Module):
    """Logits (0, w.x + b), class 1 by far: no perturbation of the test's size changes that."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.w = nn.Parameter(torch.randn(math.prod(shape), generator=generator).div(10))

    def forward(self, x: Tensor) -> Tensor:
        value = 5 + x.flatten(1) @ self.w
        return torch.stack([torch.zeros_like(value), value], 1)


@norms
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 8, 8), (3, 5, 4)])
@pytest.mark.parametrize("count", [1, 9])
@pytest.mark.parametrize("targets", [0, 1])
def test_the_optimum_of_a_linear_model_is_reached(
    norm: str, shape: tuple[int, ...], count: int, targets: int
) -> None:
    """Away from the box the value falls by epsilon times the dual norm.

    For l1 that is the largest slope. The published rule does not go below two entries, since two
    thirds of two, rounded up, are two: it reaches at least the mean of the two largest slopes.
    """
    model, threat = Slope(shape), ThreatModel(norm, 0.2)
    x = 0.4 + 0.2 * torch.rand(count, *shape, generator=torch.Generator().manual_seed(1))
    y = torch.ones(count, dtype=torch.int64)
    found = apgd(model, x, y, threat, noise_for(count), targets=targets)
    slopes = model.w.detach().abs().sort(descending=True).values
    steepest = {"linf": slopes.sum(), "l2": slopes.square().sum().sqrt(), "l1": slopes[0]}[norm]
    reached = steepest if norm != "l1" else slopes[:2].mean()
    gain = (model(x) - model(found.x_adv))[:, 1].detach() / threat.epsilon
    assert (gain <= steepest + 1e-4).all()
    assert (gain >= reached - 1e-4).all()
    assert (found.late_gain <= 1e-6).all()


@norms
def test_an_enlarged_search_ends_in_the_set(
    norm: str, trained: nn.Module, examples: Examples
) -> None:
    x, y = examples
    threat = ThreatModel(norm, BUDGETS[norm])
    if norm != "l1":
        with pytest.raises(ValueError, match=f"enlarged is for l1 and 5 steps .*, got {norm}"):
            apgd(trained, x, y, threat, noise_for(len(x)), enlarged=True)
        return
    found = apgd(trained, x, y, threat, noise_for(len(x)), enlarged=True, steps=20)
    assert (threat.distance(found.x_adv, x) <= threat.epsilon * (1 + 1e-6)).all()
    assert found.x_adv.amin() >= 0
    assert found.x_adv.amax() <= 1
    robust = predictions(trained(found.x_adv)) == y
    assert 0 < robust.sum() < len(y)
    # 6 steps and a start at each larger radius, then 8.
    assert found.forwards[robust].unique().tolist() == [1 + 7 + 7 + 9]
    assert found.backwards[robust].unique().tolist() == [20]


@pytest.mark.parametrize("objective", ["cross_entropy", "dlr"])
def test_no_target_is_the_true_class(
    objective: str, trained: nn.Module, examples: Examples
) -> None:
    """Towards the true class, a robust example would have reached at least log 1/2, or 0."""
    x, y = examples
    threat, steps = ThreatModel("linf", BUDGETS["linf"]), 5
    found = apgd(
        trained, x, y, threat, noise_for(len(x)), objective=objective, targets=9, steps=steps
    )
    robust = predictions(trained(found.x_adv)) == y
    assert 0 < robust.sum() < len(y)
    assert (found.objective[robust] < (math.log(0.5) if objective == "cross_entropy" else 0)).all()
    # Of four classes, three are wrong.
    assert found.forwards[robust].unique().tolist() == [1 + 3 * (steps + 1)]


def test_the_first_target_is_the_most_likely_wrong_class() -> None:
    """Each logit is a pixel: raising a target raises its pixel and lowers the true one alone."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 4, bias=False))
    with torch.no_grad():
        model[1].weight.copy_(torch.eye(4))
    x = torch.tensor([[0.9, 0.3, 0.6, 0.4], [0.2, 0.3, 0.4, 0.8]]).view(2, 1, 2, 2)
    y, threat = torch.tensor([0, 3]), ThreatModel("l1", 0.01)
    found = apgd(model, x, y, threat, noise_for(2), objective="dlr", targets=1)
    delta = (found.x_adv - x).flatten(1)
    assert delta.argmax(1).tolist() == [2, 2]


def test_a_target_found_early_is_the_last(trained: nn.Module, examples: Examples) -> None:
    """A fooled example takes no part in the runs towards other targets."""
    x, y = examples
    threat, steps = ThreatModel("linf", BUDGETS["linf"]), 4
    runs = {}
    for targets in (1, 2, 3):
        found = apgd(
            trained, x, y, threat, noise_for(len(x)), objective="dlr", targets=targets, steps=steps
        )
        runs[targets] = found, predictions(trained(found.x_adv)) != y
    fooled = runs[1][1]
    assert 0 < fooled.sum() < len(y)
    for targets in (2, 3):
        assert torch.equal(runs[targets][0].x_adv[fooled], runs[1][0].x_adv[fooled])
        assert torch.equal(runs[targets][0].forwards[fooled], runs[1][0].forwards[fooled])
        further = runs[targets][0].forwards - runs[targets - 1][0].forwards
        still = ~runs[targets - 1][1]
        assert (further[still] > 0).all()
        assert (further[~still] == 0).all()


class Counting(nn.Module):
    """Counts the rows that pass, forwards and backwards."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.forwards, self.backwards = model, 0, 0

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        self.forwards += len(logits)
        if logits.requires_grad:
            logits.register_hook(self.count)
        return logits

    def count(self, gradient: Tensor) -> None:
        self.backwards += len(gradient)


SETTINGS: list[tuple[str, dict[str, object]]] = [
    ("linf", {"objective": "dlr", "targets": 3, "steps": 20}),
    ("l2", {"objective": "dlr", "restarts": 2, "eot": 2, "steps": 20}),
    ("linf", {"targets": 2, "restarts": 2, "steps": 12}),
    ("l1", {"enlarged": True, "restarts": 2, "steps": 20}),
]
settings = pytest.mark.parametrize(("norm", "chosen"), SETTINGS)


@settings
def test_passes_are_counted_at_the_network(
    norm: str, chosen: dict[str, object], trained: nn.Module, examples: Examples
) -> None:
    """Of an example alone; inside a batch it is charged the same."""
    x, y = examples[0][:48], examples[1][:48]
    threat, noise = ThreatModel(norm, BUDGETS[norm]), noise_for(48)
    whole = apgd(trained, x, y, threat, noise, **chosen)
    for row in torch.arange(8).split(1):
        model = Counting(trained)
        found = apgd(model, x[row], y[row], threat, noise.take(row), **chosen)
        assert model.forwards == found.forwards == whole.forwards[row]
        assert model.backwards == found.backwards == whole.backwards[row]
    assert len(whole.forwards.unique()) > 2


@settings
def test_a_batch_spends_little_more_than_its_examples(
    norm: str, chosen: dict[str, object], trained: nn.Module, examples: Examples
) -> None:
    """Only filling, up to 32 rows, is not charged to an example."""
    x, y = examples
    model = Counting(trained)
    found = apgd(model, x, y, ThreatModel(norm, BUDGETS[norm]), noise_for(len(x)), **chosen)
    longest = int(found.forwards.max())
    charged = int(found.forwards.sum())
    assert charged <= model.forwards <= charged + 32 * longest
    assert model.forwards < 0.9 * longest * len(x)


@settings
def test_an_example_does_not_depend_on_its_batch(
    norm: str, chosen: dict[str, object], trained: nn.Module, examples: Examples
) -> None:
    x, y = examples
    threat, noise = ThreatModel(norm, BUDGETS[norm]), noise_for(len(x))
    whole = apgd(trained, x, y, threat, noise, **chosen)
    rows = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:40]
    part = apgd(trained, x[rows], y[rows], threat, noise.take(rows), **chosen)
    for name, one, other in zip(Attacked._fields, part, whole, strict=True):
        assert torch.equal(one, other[rows]), name


def test_a_clean_error_is_returned_as_it_is(trained: nn.Module, examples: Examples) -> None:
    x, y = examples[0][:8], (predictions(trained(examples[0][:8])) + 1) % 4
    found = apgd(trained, x, y, ThreatModel("linf", 0.1), noise_for(8))
    assert torch.equal(found.x_adv, x)
    assert found.forwards.tolist() == [1] * 8
    assert found.backwards.tolist() == [0] * 8
    torch.testing.assert_close(found.objective, cross_entropy(trained(x), y))


class Noisy(nn.Module):
    """A linear model of two classes that adds new noise to its slope in each evaluation."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.slope = Slope((1, 8, 8))

    def forward(self, x: Tensor) -> Tensor:
        noise = self.scale * torch.randn(64)
        value = 5 + x.flatten(1) @ (self.slope.w + noise)
        return torch.stack([torch.zeros_like(value), value], 1)


def test_eot_climbs_the_mean_of_a_randomised_model() -> None:
    """Many noisy slopes, averaged, lower the value more than one; each evaluation is counted."""
    x, y = torch.full((4, 1, 8, 8), 0.5), torch.ones(4, dtype=torch.int64)
    threat, reached = ThreatModel("l2", 0.2), {}
    for eot in (1, 20):
        model = Counting(Noisy(scale=0.2))
        with torch.random.fork_rng():
            torch.manual_seed(0)
            found = apgd(model, x, y, threat, noise_for(4), steps=10, eot=eot)
        assert found.forwards.tolist() == [1 + 11 * eot] * 4
        assert found.backwards.tolist() == [10 * eot] * 4
        assert model.forwards == 4 * (1 + 11 * eot)
        assert model.backwards == 4 * 10 * eot
        reached[eot] = Slope((1, 8, 8))(found.x_adv)[:, 1].mean()
    assert reached[20] < reached[1]


def test_eot_changes_nothing_on_a_deterministic_model(
    trained: nn.Module, examples: Examples
) -> None:
    x, y = examples
    threat, noise = ThreatModel("linf", BUDGETS["linf"]), noise_for(len(x))
    one, four = (apgd(trained, x, y, threat, noise, steps=10, eot=eot) for eot in (1, 4))
    assert torch.equal(one.x_adv, four.x_adv)
    assert torch.equal(one.objective, four.objective)


def test_logits_that_overflow_fool_and_spoil_no_other_example() -> None:
    class Overflowing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            value = x.flatten(1).sum(1)
            value = value + torch.zeros(len(x)).masked_fill(value < 1.9, math.nan)
            return torch.stack([torch.zeros_like(value), value], 1)

    x, y = torch.tensor([0.5, 0.9]).view(2, 1, 1, 1).expand(2, 1, 2, 2), torch.tensor([1, 1])
    found = apgd(Overflowing(), x, y, ThreatModel("linf", 0.2), noise_for(2))
    assert found.x_adv.isfinite().all()
    assert (found.x_adv[0].sum() < 1.9).item()
    torch.testing.assert_close(found.x_adv[1], x[1] - 0.2)


@pytest.mark.parametrize(
    ("classes", "chosen", "message"),
    [
        (2, {"objective": "dlr"}, "the difference of logits ratio needs 3 classes or more"),
        (3, {"objective": "dlr", "targets": 2}, "the targeted .* needs 4 classes or more, .* 3"),
        (1, {"targets": 2}, "a target needs 2 classes or more, the model has 1"),
        (4, {"objective": "margin"}, "raises the cross_entropy or the dlr, got 'margin'"),
        (4, {"enlarged": True, "steps": 4}, "enlarged is for l1 and 5 steps or more, got l1 and 4"),
    ],
)
def test_what_cannot_be_attacked_is_refused(
    classes: int, chosen: dict[str, object], message: str
) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, classes))
    x, y = torch.full((2, 1, 2, 2), 0.5), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ValueError, match=message):
        apgd(model, x, y, ThreatModel("l1", 0.1), noise_for(2), **chosen)


def test_a_model_that_detaches_its_input_is_refused() -> None:
    class Detached(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.detach().flatten(1)

    x, y = torch.full((2, 1, 2, 2), 0.5), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ValueError, match="does not depend on the input: has the model detached it"):
        apgd(Detached(), x, y, ThreatModel("linf", 0.1), noise_for(2))
