"""What every attack promises, whichever modules there are."""

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import nn

import advtrain.attacks
from advtrain.attacks.attack import Attack, Attacked, predictions
from advtrain.noise import Noise
from advtrain.threat import NORMS, ThreatModel

Examples = tuple[torch.Tensor, torch.Tensor]

SHARED = ["model", "x", "y", "threat", "noise"]


def discovered() -> dict[str, Callable[..., Attacked]]:
    """The modules whose function of the same name takes what an attack takes."""
    found = {}
    for module in pkgutil.iter_modules(advtrain.attacks.__path__):
        loaded = importlib.import_module(f"advtrain.attacks.{module.name}")
        attack = getattr(loaded, module.name, None)
        if callable(attack) and list(inspect.signature(attack).parameters)[:5] == SHARED:
            found[module.name] = attack
    return found


ATTACKS = discovered()

attacks = pytest.mark.parametrize("name", ATTACKS)
norms = pytest.mark.parametrize("norm", NORMS)

BUDGETS = {"linf": 0.2, "l2": 1.0}


def with_parameter(parameter: str) -> pytest.MarkDecorator:
    chosen = [name for name, attack in ATTACKS.items() if parameter in parameters(attack)]
    return pytest.mark.parametrize("name", chosen)


def parameters(attack: Callable[..., Attacked]) -> dict[str, inspect.Parameter]:
    return dict(list(inspect.signature(attack).parameters.items())[5:])


def quick(name: str, **chosen: object) -> Attack:
    """The attack with few steps, and the chosen parameters."""
    attack = ATTACKS[name]
    few = {"steps": 3} if "steps" in parameters(attack) else {}
    return partial(attack, **(few | chosen))


def noise_for(count: int) -> Noise:
    return Noise(0, torch.arange(count))


def robust(model: nn.Module, found: Attacked, y: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return predictions(model(found.x_adv)) == y


def assert_equal(one: Attacked, other: Attacked) -> None:
    for left, right in zip(one, other, strict=True):
        assert torch.equal(left, right)


def test_the_attacks_are_found() -> None:
    assert {"fgsm", "pgd", "cw"} <= set(ATTACKS)


@attacks
def test_parameters_are_keyword_only_with_defaults(name: str) -> None:
    for parameter in parameters(ATTACKS[name]).values():
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY
        assert parameter.default is not inspect.Parameter.empty


@attacks
@norms
def test_x_adv_lies_in_the_threat_set(
    name: str, norm: str, trained: nn.Module, examples: Examples
) -> None:
    x, y = examples
    threat = ThreatModel(norm, BUDGETS[norm])
    found = quick(name)(trained, x, y, threat, noise_for(len(x)))
    assert found.x_adv.shape == x.shape
    assert found.x_adv.dtype == x.dtype
    assert (found.x_adv >= 0).all()
    assert (found.x_adv <= 1).all()
    assert (threat.distance(found.x_adv, x) <= threat.epsilon * (1 + 1e-6) + 2.0**-23).all()


@attacks
@norms
def test_the_objective_is_higher_than_at_the_clean_image(
    name: str, norm: str, trained: nn.Module, examples: Examples
) -> None:
    x, y = examples
    found = quick(name)(trained, x, y, ThreatModel(norm, BUDGETS[norm]), noise_for(len(x)))
    clean = quick(name)(trained, x, y, ThreatModel(norm, 0.0), noise_for(len(x)))
    assert torch.equal(clean.x_adv, x)
    assert (found.objective > clean.objective).float().mean() > 0.9


@attacks
def test_results_are_per_example_and_detached(
    name: str, trained: nn.Module, examples: Examples
) -> None:
    x, y = examples
    found = quick(name)(trained, x, y, ThreatModel("linf", 0.1), noise_for(len(x)))
    assert found.objective.shape == found.forwards.shape == found.backwards.shape == y.shape
    assert found.forwards.dtype == found.backwards.dtype == torch.int64
    assert not found.x_adv.requires_grad
    assert not found.objective.requires_grad
    assert found.x_adv.data_ptr() != x.data_ptr()


@attacks
def test_the_model_is_left_as_it_was_found(name: str, examples: Examples) -> None:
    """BatchNorm in train mode, a weight frozen by its owner, a gradient not yet used."""
    x, y = examples
    model = nn.Sequential(nn.BatchNorm2d(1), nn.Dropout(0.5), nn.Flatten(), nn.Linear(64, 4))
    model.train()
    model[1].eval()
    model[3].bias.requires_grad_(False)
    gradient = torch.ones_like(model[3].weight)
    model[3].weight.grad = gradient
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    images, labels = x.clone(), y.clone()

    quick(name)(model, x, y, ThreatModel("linf", 0.1), noise_for(len(x)))

    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[key]), key
    modes = [module.training for module in model.modules()]
    assert modes == [True, True, False, True, True]
    assert [weight.requires_grad for weight in model.parameters()] == [True, True, True, False]
    assert model[3].weight.grad is gradient
    assert torch.equal(gradient, torch.ones_like(gradient))
    assert model[0].weight.grad is None
    assert model[0].track_running_stats
    assert torch.equal(x, images)
    assert torch.equal(y, labels)
    assert not x.requires_grad


@attacks
def test_crafting_uses_the_running_averages(
    name: str, trained: nn.Module, examples: Examples
) -> None:
    """Whatever mode the model is in."""
    x, y = examples
    threat = ThreatModel("linf", 0.1)
    expected = quick(name)(trained.eval(), x, y, threat, noise_for(len(x)))
    try:
        found = quick(name)(trained.train(), x, y, threat, noise_for(len(x)))
    finally:
        trained.eval()
    assert_equal(found, expected)


@attacks
@norms
def test_a_rerun_is_bitwise_equal(
    name: str, norm: str, trained: nn.Module, examples: Examples
) -> None:
    x, y = examples
    threat = ThreatModel(norm, BUDGETS[norm])
    runs = [quick(name)(trained, x, y, threat, noise_for(len(x))) for _ in range(2)]
    assert_equal(*runs)


@attacks
@norms
def test_an_examples_result_does_not_depend_on_its_batch(
    name: str, norm: str, trained: nn.Module, examples: Examples
) -> None:
    """Batches of 32 and more; for smaller ones see `SMALLEST_BATCH`."""
    x, y = examples
    threat, noise = ThreatModel(norm, BUDGETS[norm]), noise_for(len(x))
    whole = quick(name)(trained, x, y, threat, noise)
    rows = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:40]
    part = quick(name)(trained, x[rows], y[rows], threat, noise.take(rows))
    assert_equal(part, Attacked(*(column[rows] for column in whole)))


@with_parameter("restarts")
@norms
def test_robust_accuracy_never_rises_with_restarts(
    name: str, norm: str, trained: nn.Module, examples: Examples
) -> None:
    x, y = examples
    threat = ThreatModel(norm, BUDGETS[norm])
    robust_then = torch.ones_like(y, dtype=torch.bool)
    objective = torch.full((len(y),), -torch.inf)
    for restarts in (1, 2, 4):
        found = quick(name, restarts=restarts)(trained, x, y, threat, noise_for(len(x)))
        now = robust(trained, found, y)
        assert not (now & ~robust_then).any()
        assert (found.objective >= objective)[now].all()
        robust_then, objective = now, found.objective
    assert 0 < robust_then.sum() < len(y)


def binary(examples: Examples) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """A linear model of two classes, where every step of an ascent gains on every example."""
    x, y = examples
    kept = y < 2
    x, y = x[kept], y[kept]
    difference = (x[y == 1].mean(0) - x[y == 0].mean(0)).flatten()
    model = nn.Sequential(nn.Flatten(), nn.Linear(len(difference), 2))
    with torch.no_grad():
        model[1].weight.copy_(torch.stack([-difference, difference]))
        middle = (x.flatten(1) @ difference).median()
        model[1].bias.copy_(torch.stack([middle, -middle]))
    return model, x, y


@with_parameter("steps")
@norms
def test_robust_accuracy_never_rises_with_steps(name: str, norm: str, examples: Examples) -> None:
    model, x, y = binary(examples)
    threat = ThreatModel(norm, 2 * BUDGETS[norm])
    clean = {"random_start": False} if "random_start" in parameters(ATTACKS[name]) else {}
    counts = []
    for steps in (1, 2, 4, 8):
        attack = quick(name, steps=steps, step_size="epsilon/8", **clean)
        counts.append(robust(model, attack(model, x, y, threat, noise_for(len(x))), y).sum())
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] < counts[0]


@attacks
@norms
def test_robust_accuracy_never_rises_with_epsilon(name: str, norm: str, examples: Examples) -> None:
    model, x, y = binary(examples)
    counts = []
    for factor in (0.0, 0.25, 0.5, 1.0, 2.0, 4.0):
        threat = ThreatModel(norm, factor * BUDGETS[norm])
        attack = quick(name, **({"steps": 40} if "steps" in parameters(ATTACKS[name]) else {}))
        counts.append(robust(model, attack(model, x, y, threat, noise_for(len(x))), y).sum())
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] < counts[0]


@attacks
@norms
def test_a_constant_model_is_attacked_without_harm(
    name: str, norm: str, examples: Examples
) -> None:
    """Its gradient is zero everywhere: it is right on one class and wrong on the others."""
    x, y = examples
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    nn.init.zeros_(model[1].weight)
    with torch.no_grad():
        model[1].bias.copy_(torch.tensor([0.0, 3.0, 1.0, 2.0]))
    found = quick(name)(model, x, y, ThreatModel(norm, 0.1), noise_for(len(x)))
    assert torch.equal(robust(model, found, y), y == 1)
    assert found.x_adv.isfinite().all()
    assert found.objective.isfinite().all()


@attacks
@norms
@pytest.mark.parametrize("count", [0, 1])
def test_no_example_and_one_example(
    name: str, norm: str, count: int, trained: nn.Module, examples: Examples
) -> None:
    x, y = examples[0][:count], examples[1][:count]
    found = quick(name)(trained, x, y, ThreatModel(norm, 0.1), noise_for(count))
    assert found.x_adv.shape == x.shape
    assert [len(column) for column in found] == [count] * 4


@with_parameter("restarts")
@pytest.mark.parametrize("count", [0, 1])
def test_no_example_and_one_example_with_restarts(
    name: str, count: int, trained: nn.Module, examples: Examples
) -> None:
    x, y = examples[0][:count], examples[1][:count]
    threat = ThreatModel("linf", 0.0)
    found = quick(name, restarts=3)(trained, x, y, threat, noise_for(count))
    assert found.forwards.tolist() == [3 * 4] * count


@attacks
@norms
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 5), (3, 7, 1), (4, 2, 9)])
def test_odd_shapes(name: str, norm: str, shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(5, *shape, generator=generator)
    model = nn.Sequential(nn.Flatten(), nn.Linear(x[0].numel(), 3))
    threat = ThreatModel(norm, 0.2)
    found = quick(name)(model, x, torch.arange(5) % 3, threat, noise_for(5))
    assert found.x_adv.shape == x.shape
    assert (threat.distance(found.x_adv, x) > 0).all()


def counted(model: nn.Module) -> tuple[nn.Module, dict[str, int]]:
    """A model that counts the rows that pass through it, forwards and backwards."""
    rows = {"forward": 0, "backward": 0}

    def count_backward(gradient: torch.Tensor) -> None:
        rows["backward"] += len(gradient)

    def count_forward(
        module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor
    ) -> None:
        rows["forward"] += len(output)
        if output.requires_grad:
            output.register_hook(count_backward)

    wrapped = nn.Sequential(model)
    wrapped.register_forward_hook(count_forward)
    return wrapped, rows


@attacks
def test_passes_are_those_that_a_hook_counts(
    name: str, trained: nn.Module, examples: Examples
) -> None:
    """Example by example: each alone in its batch, and with the same counts inside a large one."""
    restarted = "restarts" in parameters(ATTACKS[name])
    x, y = examples
    attack = quick(name, **({"restarts": 3} if restarted else {}))
    threat, noise = ThreatModel("linf", 0.2), noise_for(len(x))
    whole = attack(trained, x, y, threat, noise)
    for row in torch.arange(0, 12).split(1):
        model, rows = counted(trained)
        attack(model, x[row], y[row], threat, noise.take(row))
        assert rows == {"forward": whole.forwards[row], "backward": whole.backwards[row]}
    assert (len(whole.forwards[:12].unique()) > 1) == restarted
