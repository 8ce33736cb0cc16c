"""What every attack promises, whichever modules there are."""

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from functools import partial
from types import ModuleType
from unittest.mock import patch

import pytest
import torch
from torch import nn

import advtrain.attacks
from advtrain.attacks.attack import Attack, Attacked, predictions
from advtrain.noise import Noise
from advtrain.threat import TRANSFORMATIONS, Ball, ThreatModel, Transformation

Examples = tuple[torch.Tensor, torch.Tensor]

SHARED = ["model", "x", "y", "threat", "noise"]

FEW = {"steps": 5, "queries": 40, "search_steps": 2}
"""What makes an attack short, where it has such a parameter."""

BUDGETS = {"linf": 0.14, "l2": 0.8, "l1": 3.0}
"""At which the strongest attack fools a part of the examples, and the weakest some."""


def modules() -> tuple[dict[str, ModuleType], dict[str, Exception]]:
    """The modules of the folder, and those that cannot be imported, which fail a test below."""
    loaded, broken = {}, {}
    for module in pkgutil.iter_modules(advtrain.attacks.__path__):
        try:
            loaded[module.name] = importlib.import_module(f"advtrain.attacks.{module.name}")
        except Exception as error:
            broken[module.name] = error
    return loaded, broken


MODULES, BROKEN = modules()


def discovered() -> dict[str, Callable[..., Attacked]]:
    """The modules whose function of the same name takes what an attack takes."""
    found = {}
    for name, module in MODULES.items():
        attack = getattr(module, name, None)
        if callable(attack) and list(inspect.signature(attack).parameters)[:5] == SHARED:
            found[name] = attack
    return found


ATTACKS = discovered()


def norms_of(name: str) -> tuple[str, ...]:
    """What the file of an attack says that it knows."""
    known: tuple[str, ...] = getattr(MODULES[name], "NORMS", ("linf", "l2"))
    return known


def parameters(attack: Callable[..., Attacked]) -> dict[str, inspect.Parameter]:
    return dict(list(inspect.signature(attack).parameters.items())[5:])


attacks = pytest.mark.parametrize("name", ATTACKS)


def each_norm(*having: str, balls: bool = False) -> pytest.MarkDecorator:
    """Every attack that has these parameters, under every norm that it knows.

    Args:
        having: names of parameters.
        balls: only norms with a budget.
    """
    pairs = [
        (name, norm)
        for name, attack in ATTACKS.items()
        if set(having) <= set(parameters(attack))
        for norm in norms_of(name)
        if not (balls and norm in TRANSFORMATIONS)
    ]
    return pytest.mark.parametrize(("name", "norm"), pairs)


def threat_of(norm: str, epsilon: float | None = None) -> Ball:
    """The budget, in a test's own units for each norm if none is given."""
    if norm in TRANSFORMATIONS:
        return Transformation(norm)
    return ThreatModel(norm, BUDGETS[norm] if epsilon is None else epsilon)


def some_threat(name: str) -> Ball:
    """A threat model that the attack knows."""
    return threat_of(norms_of(name)[0])


def quick(name: str, **chosen: object) -> Attack:
    """The attack with few steps, and the chosen parameters; one made of others takes short ones.

    A parameter without a default is a model: the one that is attacked. Several restarts start at
    random.
    """
    attack = ATTACKS[name]
    models = [key for key, one in parameters(attack).items() if one.default is one.empty]
    if "restarts" in chosen and "random_start" in parameters(attack):
        chosen["random_start"] = True
    used = [key for key in ATTACKS if key != name and hasattr(MODULES[name], key)]
    stages = {key: short(key) for key in used}

    def run(
        model: nn.Module, x: torch.Tensor, y: torch.Tensor, threat: ThreatModel, noise: Noise
    ) -> Attacked:
        own = partial(short(name), **(chosen | dict.fromkeys(models, model)))
        with patch.dict(vars(MODULES[name]), stages):
            return own(model, x, y, threat, noise)

    return run


def short(name: str) -> Callable[..., Attacked]:
    few = {key: value for key, value in FEW.items() if key in parameters(ATTACKS[name])}
    return partial(ATTACKS[name], **few)


def noise_for(count: int) -> Noise:
    return Noise(0, torch.arange(count))


def robust(model: nn.Module, found: Attacked, y: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return predictions(model(found.x_adv)) == y


def assert_equal(one: Attacked, other: Attacked) -> None:
    for name, left, right in zip(one._fields, one, other, strict=True):
        assert (left is None) == (right is None), name
        assert left is None or torch.equal(left, right), name


def rows_of(found: Attacked, rows: torch.Tensor) -> Attacked:
    return Attacked._make(None if column is None else column[rows] for column in found)


def test_the_attacks_are_found() -> None:
    assert {"fgsm", "pgd", "cw"} <= set(ATTACKS)


def test_every_module_can_be_imported() -> None:
    assert not BROKEN


@attacks
def test_parameters_are_keyword_only_with_defaults(name: str) -> None:
    """Only a second model has none: what a study gives is its name, and it is bound before."""
    for parameter in parameters(ATTACKS[name]).values():
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY
        assert parameter.default is not parameter.empty or parameter.annotation is nn.Module


@attacks
def test_a_norm_that_an_attack_does_not_know_is_named(
    name: str, trained: nn.Module, examples: Examples
) -> None:
    x, y = examples[0][:2], examples[1][:2]
    for norm in sorted({*BUDGETS, *TRANSFORMATIONS} - set(norms_of(name))):
        message = f"{name} knows the norms {', '.join(norms_of(name))}, got {norm}"
        with pytest.raises(ValueError, match=message):
            quick(name)(trained, x, y, threat_of(norm), noise_for(2))


@each_norm()
def test_x_adv_lies_in_the_threat_set(
    name: str, norm: str, trained: nn.Module, examples: Examples
) -> None:
    x, y = examples
    threat = threat_of(norm)
    found = quick(name)(trained, x, y, threat, noise_for(len(x)))
    assert found.x_adv.shape == x.shape
    assert found.x_adv.dtype == x.dtype
    assert (found.x_adv >= 0).all()
    assert (found.x_adv <= 1).all()
    assert (threat.distance(found.x_adv, x) <= threat.radius(x) * (1 + 1e-6) + 2.0**-23).all()


@each_norm(balls=True)
def test_the_objective_is_higher_than_at_the_clean_image(
    name: str, norm: str, trained: nn.Module, examples: Examples
) -> None:
    x, y = examples
    found = quick(name)(trained, x, y, threat_of(norm), noise_for(len(x)))
    clean = quick(name)(trained, x, y, threat_of(norm, 0.0), noise_for(len(x)))
    assert torch.equal(clean.x_adv, x)
    assert (found.objective > clean.objective).float().mean() > 0.9


@attacks
def test_results_are_per_example_and_detached(
    name: str, trained: nn.Module, examples: Examples
) -> None:
    x, y = examples
    found = quick(name)(trained, x, y, some_threat(name), noise_for(len(x)))
    for column in found[1:]:
        assert column is None or column.shape == y.shape
    assert found.forwards.dtype == found.backwards.dtype == torch.int64
    assert not any(column is not None and column.requires_grad for column in found)
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

    quick(name)(model, x, y, some_threat(name), noise_for(len(x)))

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
    threat = some_threat(name)
    expected = quick(name)(trained.eval(), x, y, threat, noise_for(len(x)))
    try:
        found = quick(name)(trained.train(), x, y, threat, noise_for(len(x)))
    finally:
        trained.eval()
    assert_equal(found, expected)


@each_norm()
def test_a_rerun_is_bitwise_equal(
    name: str, norm: str, trained: nn.Module, examples: Examples
) -> None:
    x, y = examples
    threat = threat_of(norm)
    runs = [quick(name)(trained, x, y, threat, noise_for(len(x))) for _ in range(2)]
    assert_equal(*runs)


@each_norm()
def test_an_examples_result_does_not_depend_on_its_batch(
    name: str, norm: str, trained: nn.Module, examples: Examples
) -> None:
    """Batches of 40 and more; for small ones see `SMALLEST_BATCH`."""
    x, y = examples
    threat, noise = threat_of(norm), noise_for(len(x))
    whole = quick(name)(trained, x, y, threat, noise)
    rows = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:40]
    part = quick(name)(trained, x[rows], y[rows], threat, noise.take(rows))
    assert_equal(part, rows_of(whole, rows))


@each_norm("restarts")
def test_robust_accuracy_never_rises_with_restarts(
    name: str, norm: str, trained: nn.Module, examples: Examples
) -> None:
    x, y = examples
    threat = threat_of(norm)
    robust_then = torch.ones_like(y, dtype=torch.bool)
    objective = torch.full((len(y),), -torch.inf)
    for restarts in (1, 2, 4):
        found = quick(name, restarts=restarts)(trained, x, y, threat, noise_for(len(x)))
        now = robust(trained, found, y)
        assert not (now & ~robust_then).any()
        assert (found.objective >= objective)[now].all()
        robust_then, objective = now, found.objective
    assert robust_then.any()


def binary(examples: Examples) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """A linear model of two classes, where every step of an ascent gains on every example.

    Two more classes are always the least likely, since some attacks ask for four.
    """
    x, y = examples
    kept = y < 2
    x, y = x[kept], y[kept]
    difference = (x[y == 1].mean(0) - x[y == 0].mean(0)).flatten()
    model = nn.Sequential(nn.Flatten(), nn.Linear(len(difference), 4))
    with torch.no_grad():
        never = torch.zeros_like(difference)
        model[1].weight.copy_(torch.stack([-difference, difference, never, never]))
        middle = (x.flatten(1) @ difference).median()
        model[1].bias.copy_(torch.tensor([middle, -middle, -30.0, -30.0]))
    return model, x, y


@each_norm("steps", "step_size", balls=True)
def test_robust_accuracy_never_rises_with_steps(name: str, norm: str, examples: Examples) -> None:
    model, x, y = binary(examples)
    threat = threat_of(norm, 2 * BUDGETS[norm])
    clean = {"random_start": False} if "random_start" in parameters(ATTACKS[name]) else {}
    counts = []
    for steps in (1, 2, 4, 8):
        attack = quick(name, steps=steps, step_size="epsilon/8", **clean)
        counts.append(robust(model, attack(model, x, y, threat, noise_for(len(x))), y).sum())
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] < counts[0]


@each_norm(balls=True)
def test_robust_accuracy_never_rises_with_epsilon(name: str, norm: str, examples: Examples) -> None:
    model, x, y = binary(examples)
    counts = []
    for factor in (0.0, 0.25, 0.5, 1.0, 2.0, 4.0):
        threat = threat_of(norm, factor * BUDGETS[norm])
        attack = quick(name, **({"steps": 40} if "steps" in parameters(ATTACKS[name]) else {}))
        counts.append(robust(model, attack(model, x, y, threat, noise_for(len(x))), y).sum())
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] < counts[0]


@each_norm()
def test_a_constant_model_is_attacked_without_harm(
    name: str, norm: str, examples: Examples
) -> None:
    """Its gradient is zero everywhere: it is right on one class and wrong on the others."""
    x, y = examples
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    nn.init.zeros_(model[1].weight)
    with torch.no_grad():
        model[1].bias.copy_(torch.tensor([0.0, 3.0, 1.0, 2.0]))
    found = quick(name)(model, x, y, threat_of(norm), noise_for(len(x)))
    assert torch.equal(robust(model, found, y), y == 1)
    assert found.x_adv.isfinite().all()
    assert found.objective.isfinite().all()


@each_norm()
@pytest.mark.parametrize("count", [0, 1])
def test_no_example_and_one_example(
    name: str, norm: str, count: int, trained: nn.Module, examples: Examples
) -> None:
    x, y = examples[0][:count], examples[1][:count]
    found = quick(name)(trained, x, y, threat_of(norm), noise_for(count))
    assert found.x_adv.shape == x.shape
    assert {len(column) for column in found if column is not None} == {count}


@each_norm("restarts", balls=True)
@pytest.mark.parametrize("count", [0, 1])
def test_no_example_and_one_example_with_restarts(
    name: str, norm: str, count: int, trained: nn.Module, examples: Examples
) -> None:
    """Without a budget the example withstands each of them."""
    x, y = examples[0][:count], examples[1][:count]
    passes = [
        quick(name, restarts=restarts)(
            trained, x, y, threat_of(norm, 0.0), noise_for(count)
        ).forwards
        for restarts in (1, 2, 3)
    ]
    assert passes[2].shape == (count,)
    assert (passes[0] < passes[1]).all()
    assert (passes[1] < passes[2]).all()


@each_norm()
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 5), (3, 7, 1), (4, 2, 9)])
def test_odd_shapes(name: str, norm: str, shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(5, *shape, generator=generator)
    model = nn.Sequential(nn.Flatten(), nn.Linear(x[0].numel(), 5))
    for weight in model.parameters():
        nn.init.normal_(weight, generator=generator)
    y, threat = predictions(model(x)), threat_of(norm)
    found = quick(name)(model, x, y, threat, noise_for(5))
    assert found.x_adv.shape == x.shape
    assert found.x_adv.isfinite().all()
    assert (threat.distance(found.x_adv, x) <= threat.radius(x) * (1 + 1e-6) + 2.0**-23).all()
    if x[0].numel() > 1:  # of which every attack has something to move
        assert (threat.distance(found.x_adv, x) > 0).any()


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
    threat, noise = some_threat(name), noise_for(len(x))
    whole = attack(trained, x, y, threat, noise)
    for row in torch.arange(0, 12).split(1):
        model, rows = counted(trained)
        attack(model, x[row], y[row], threat, noise.take(row))
        assert rows == {"forward": whole.forwards[row], "backward": whole.backwards[row]}
    assert len(whole.forwards.unique()) > 1 or not restarted
