"""The steps that are timed: what they are compared with is what they are made of."""

import copy
import inspect
from dataclasses import replace

import pytest
import torch

from advtrain.models.preact_resnet import preact_resnet
from advtrain.models.small_cnn import small_cnn
from advtrain.threat import ThreatModel
from benchmarks import training
from benchmarks.harness import CPU, Network, Size
from benchmarks.training import Step, all_steps, counts, least, optimized, ours, usual


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(0)
    model = small_cnn(channels=1, size=8, classes=10, width=4, hidden=8).eval()
    x = torch.rand(16, 1, 8, 8)
    y = model(x).argmax(1)
    return Network("CNN-8", model, x, y, ThreatModel("linf", 0.1), 8)


@pytest.fixture(params=["PGD-7", "TRADES-10", "AT-AWP-10", "Free, a replay", "Consistency-10"])
def step(request: pytest.FixtureRequest, network: Network) -> Step:
    return {one.name: one for one in all_steps(network)}[request.param]


def test_the_parts_of_a_step_add_up_to_its_price(step: Step) -> None:
    """With an input gradient at 2 F and a plain step at 3 F, as the literature counts."""
    seconds = {"7 A, in eval mode": [14.0], "7 A, in train mode": [14.0], "7 F": [7.0]}
    seconds |= {"B": [3.0], "B, of the image too": [3.0], "P": [3.0]}
    evaluations = step.cost.loss.backward / step.method.cost().loss.backward
    price = step.method.cost().forward_equivalents * step.method.views
    price += (evaluations - 1) * 3 * step.method.cost().loss.backward
    assert least(step, seconds) == [price]
    assert step.cost.forward_equivalents * step.method.views == price


def test_the_optimizers_step_is_counted_once() -> None:
    seconds = {"7 A, in eval mode": [0.0], "7 A, in train mode": [0.0], "7 F": [0.0]}
    seconds |= {"B": [3.0], "B, of the image too": [3.0], "P": [3.5]}
    awp = Step("AT-AWP", training.PgdAt(), "awp")
    assert least(awp, seconds) == [6.5]


def test_a_step_takes_the_operations_of_its_price(step: Step, network: Network) -> None:
    """Never more; the first layer's gradient is not taken where no one asks for it."""
    step.method.start(torch.arange(len(network.y)))
    model = optimized(copy.deepcopy(network.model))
    price = step.cost.forward_equivalents * step.method.views
    assert 0.8 * price < counts(ours(step, network, *model), network) <= price * 1.0001


def test_the_usual_code_does_more_for_the_same(network: Network) -> None:
    step = Step("PGD-7", training.PgdAt(steps=7, crafting="eval"))
    model = optimized(copy.deepcopy(network.model))
    own = counts(ours(step, network, *model), network)
    theirs = counts(usual(step, network, *model, "eval"), network)
    assert theirs > own + 5  # seven gradients of the weights, but for the first layer's


def test_a_step_leaves_the_weights(step: Step, network: Network) -> None:
    model = optimized(copy.deepcopy(network.model))
    step.method.start(torch.arange(len(network.y)))
    x, y, noise = next(network.batches())
    ours(step, network, *model)(x, y, noise)
    for before, after in zip(network.model.parameters(), model[0].parameters(), strict=True):
        torch.testing.assert_close(after, before, rtol=0, atol=1e-6)


def test_every_method_is_measured(network: Network) -> None:
    from advtrain.params import signatures

    measured = {type(step.method).__module__.rsplit(".", 1)[1] for step in all_steps(network)}
    assert measured == set(signatures.modules("methods")) - {"given"}


@pytest.mark.parametrize("section", ["steps", "augmentation", "throughput"])
def test_a_section_runs_to_its_goals(section: str, network: Network) -> None:
    found = training.SECTIONS[section]([network], Size(rounds=1, images=16))
    assert found.rows
    assert all(goal.name.split()[0] in ("P3", "P4") for goal in found.goals)
    assert bool(found.goals) == (section == "steps")


def test_an_epoch_of_the_loop_is_timed(network: Network) -> None:
    seconds = training.epochs(network, training.Free(replays=2), 2, 3)
    assert len(seconds) == 3
    assert all(one >= 0 for one in seconds)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_the_options_of_the_recipes_are_the_loops(network: Network, batch_norm: bool) -> None:
    model = preact_resnet(channels=1, size=8, classes=10, width=2) if batch_norm else network.model
    chosen = training.recipes(replace(network, model=model))
    assert ("float32, micro-batches of a half" in chosen) is not batch_norm
    for recipe in chosen.values():
        if "compile_mode" not in recipe:  # takes a compiler, and a minute
            training.epochs(replace(network, model=model), training.Natural(), 1, 1, **recipe)
    assert {key for recipe in chosen.values() for key in recipe} <= set(
        inspect.signature(training.train).parameters
    )


def test_the_networks_have_two_batches_each() -> None:
    for network in training.networks(CPU):
        assert len(network.x) == 2 * network.batch
