"""Crafted on one network, judged on another; both are left as they were found."""

import pytest
import torch
from torch import nn

from advtrain.attacks.attack import Attacked, predictions
from advtrain.attacks.objectives import cross_entropy
from advtrain.attacks.pgd import pgd
from advtrain.attacks.transfer import transfer
from advtrain.noise import Noise
from advtrain.threat import ThreatModel

Examples = tuple[torch.Tensor, torch.Tensor]
norms = pytest.mark.parametrize(
    "threat", [ThreatModel("linf", 0.15), ThreatModel("l2", 1.0)], ids=["linf", "l2"]
)
STEPS = 4


@pytest.fixture(scope="module")
def source(examples: Examples) -> nn.Module:
    """A linear classifier of the same classes: the difference of the means."""
    x, y = examples
    model = nn.Sequential(nn.BatchNorm2d(1), nn.Dropout(0.5), nn.Flatten(), nn.Linear(64, 4))
    means = torch.stack([x[y == label].mean(0).flatten() for label in range(4)])
    with torch.no_grad():
        model[3].weight.copy_(means)
        model[3].bias.copy_(-means.square().sum(1) / 2)
    return model.train()


def run(
    model: nn.Module,
    source: nn.Module,
    examples: Examples,
    threat: ThreatModel,
    **chosen: int,
) -> Attacked:
    x, y = examples
    noise = Noise(0, torch.arange(len(x)))
    return transfer(model, x, y, threat, noise, source=source, **{"steps": STEPS} | chosen)


def right(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return predictions(model(x)) == y


@norms
def test_it_is_pgd_on_the_source(
    threat: ThreatModel, trained: nn.Module, source: nn.Module, examples: Examples
) -> None:
    """Of the examples that the model classifies rightly; the others are not touched."""
    x, y = examples
    found = run(trained, source, examples, threat)
    expected = pgd(source, x, y, threat, Noise(0, torch.arange(len(x))), steps=STEPS)
    clean = right(trained, x, y)
    both = clean & right(source.eval(), x, y)
    source.train()
    assert both.any()
    torch.testing.assert_close(found.x_adv[both], expected.x_adv[both], rtol=0, atol=1e-6)
    assert torch.equal(found.x_adv[~clean], x[~clean])


@norms
def test_the_model_is_the_judge(
    threat: ThreatModel, trained: nn.Module, source: nn.Module, examples: Examples
) -> None:
    x, y = examples
    found = run(trained, source, examples, threat)
    with torch.no_grad():
        expected = cross_entropy(trained(found.x_adv), y)
    torch.testing.assert_close(found.objective, expected, rtol=1e-5, atol=1e-6)
    fooled = right(trained, x, y) & ~right(trained, found.x_adv, y)
    assert fooled.any()


@norms
def test_it_is_weaker_than_the_same_steps_on_the_model_itself(
    threat: ThreatModel, trained: nn.Module, source: nn.Module, examples: Examples
) -> None:
    _, y = examples
    counts = [
        right(trained, run(trained, network, examples, threat).x_adv, y).sum()
        for network in (source, trained)
    ]
    assert counts[1] < counts[0]


def test_a_source_of_another_kind_is_left_as_it_was_found(
    trained: nn.Module, source: nn.Module, examples: Examples
) -> None:
    """In train mode, with a frozen weight and a gradient of its owner's."""
    source[1].eval()
    source[3].bias.requires_grad_(False)
    gradient = torch.ones_like(source[3].weight)
    source[3].weight.grad = gradient
    before = {key: tensor.clone() for key, tensor in source.state_dict().items()}
    try:
        run(trained, source, examples, ThreatModel("linf", 0.1), restarts=2)
        assert [module.training for module in source.modules()] == [True, True, False, True, True]
        assert [one.requires_grad for one in source.parameters()] == [True, True, True, False]
        assert source[3].weight.grad is gradient
        for key, tensor in source.state_dict().items():
            assert torch.equal(tensor, before[key]), key
    finally:
        source.train()
        source.zero_grad()


def test_the_source_is_crafted_on_in_eval_mode(
    trained: nn.Module, source: nn.Module, examples: Examples
) -> None:
    """Its dropout would draw from the global generator, and its BatchNorm mix the examples."""
    threat = ThreatModel("linf", 0.1)
    training = run(trained, source, examples, threat)
    evaluating = run(trained, source.eval(), examples, threat)
    source.train()
    assert torch.equal(training.x_adv, evaluating.x_adv)


def test_passes_of_both_networks_are_counted(
    trained: nn.Module, source: nn.Module, examples: Examples
) -> None:
    x, y = examples
    found = run(trained, source, examples, ThreatModel("linf", 0.1), restarts=3)
    clean, robust = right(trained, x, y), right(trained, found.x_adv, y)
    assert robust.any()
    assert (found.forwards[robust] == 1 + 3 * (STEPS + 1)).all()
    assert (found.backwards[robust] == 3 * STEPS).all()
    assert (found.forwards[~clean] == 1).all()
    assert (found.backwards[~clean] == 0).all()
    assert (found.forwards == 1 + found.backwards * (STEPS + 1) // STEPS).all()


@norms
def test_robust_accuracy_never_rises_with_restarts(
    threat: ThreatModel, trained: nn.Module, source: nn.Module, examples: Examples
) -> None:
    """Also where the source is another network: the model decides between the restarts."""
    _, y = examples
    robust, objective = torch.ones_like(y, dtype=torch.bool), torch.full((len(y),), -torch.inf)
    for restarts in (1, 2, 5):
        found = run(trained, source, examples, threat, restarts=restarts)
        now = right(trained, found.x_adv, y)
        assert not (now & ~robust).any()
        assert (found.objective >= objective)[now].all()
        robust, objective = now, found.objective
    assert 0 < robust.sum() < len(y)


@norms
def test_an_examples_result_does_not_depend_on_its_batch(
    threat: ThreatModel, trained: nn.Module, source: nn.Module, examples: Examples
) -> None:
    x, y = examples
    noise = Noise(0, torch.arange(len(x)))
    rows = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:40]
    whole = run(trained, source, examples, threat, restarts=3)
    part = transfer(
        trained,
        x[rows],
        y[rows],
        threat,
        noise.take(rows),
        source=source,
        steps=STEPS,
        restarts=3,
    )
    for one, other in zip(part[:4], whole[:4], strict=True):
        assert torch.equal(one, other[rows])
