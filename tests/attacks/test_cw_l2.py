"""Carlini and Wagner's attack on models whose nearest boundary is known, and what it spends."""

import math

import pytest
import torch
from torch import Tensor, nn

from advtrain.attacks.attack import Attacked, predictions
from advtrain.attacks.cw_l2 import cw_l2
from advtrain.attacks.objectives import margin
from advtrain.noise import Noise
from advtrain.threat import ThreatModel
from tests.attacks.test_attack_contracts import assert_equal, counted, rows_of
from tests.attacks.test_deepfool import linear, to_the_boundary

Examples = tuple[Tensor, Tensor]

ANYWHERE = ThreatModel("l2", 100.0)

# Enough for a distance within 1 % on a linear model.
FINE = {"steps": 200, "learning_rate": 0.003, "search_steps": 6, "initial_constant": 0.05}

# Enough to find something on the small network.
SHORT = {"steps": 30, "learning_rate": 0.05, "search_steps": 3, "initial_constant": 0.5}


def noise_for(count: int) -> Noise:
    return Noise(0, torch.arange(count))


@pytest.mark.parametrize(("classes", "targets"), [(2, 0), (3, 2)])
def test_on_a_linear_model_the_distance_is_exact(classes: int, targets: int) -> None:
    """With targets where there are several: the class that leads need not be the nearest."""
    model, x, y = linear(classes)
    found = cw_l2(model, x, y, ANYWHERE, noise_for(48), targets=targets, **FINE)
    exact = to_the_boundary(model, x, y, "l2")
    ratio = ANYWHERE.distance(found.x_adv, x) / exact
    assert (ratio > 1).all()
    # Nearer ones are missed by the length of a step.
    far = exact > 0.03
    assert far.sum() > 30
    assert (ratio[far] < 1.01).all()
    assert (predictions(model(found.x_adv)) != y).all()


def test_kappa_is_the_margin_that_is_reached() -> None:
    model, x, y = linear(2)
    found = cw_l2(model, x, y, ANYWHERE, noise_for(48), kappa=0.5, **FINE)
    assert (found.objective > 0.5).all()
    assert found.objective.median() < 0.51


def test_each_target_is_reached(trained: nn.Module, examples: Examples) -> None:
    """With one target, the class most likely after the label's."""
    x, y = examples
    attacked = predictions(trained(x)) == y
    found = cw_l2(trained, x, y, ANYWHERE, noise_for(len(x)), targets=1, **SHORT)
    target = trained(x).scatter(1, y[:, None], -math.inf).argmax(1)
    assert torch.equal(predictions(trained(found.x_adv))[attacked], target[attacked])


def test_of_several_targets_the_nearest_is_kept(trained: nn.Module, examples: Examples) -> None:
    x, y = examples
    distances = [
        ANYWHERE.distance(
            cw_l2(trained, x, y, ANYWHERE, noise_for(len(x)), targets=count, **SHORT).x_adv, x
        )
        for count in (1, 3)
    ]
    assert (distances[1] <= distances[0]).all()
    assert (distances[1] < distances[0]).any()


def test_beyond_the_budget_it_returns_the_point_of_the_segment(
    trained: nn.Module, examples: Examples
) -> None:
    x, y = examples
    far = cw_l2(trained, x, y, ANYWHERE, noise_for(len(x)), **SHORT)
    distance = ANYWHERE.distance(far.x_adv, x)
    threat = ThreatModel("l2", distance.median().item())
    near = cw_l2(trained, x, y, threat, noise_for(len(x)), **SHORT)
    beyond = distance > threat.epsilon
    assert 10 < beyond.sum() < 86
    assert_equal(rows_of(near, ~beyond), rows_of(far, ~beyond))
    share = (threat.epsilon / distance).view(-1, 1, 1, 1)
    expected = (x + share * (far.x_adv - x))[beyond]
    torch.testing.assert_close(near.x_adv[beyond], expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(near.objective, margin(trained(near.x_adv), y).detach())
    assert torch.equal(near.forwards, far.forwards + beyond)


def test_what_is_found_is_misclassified_in_a_batch_of_any_size(
    trained: nn.Module, examples: Examples
) -> None:
    x, y = examples
    found = cw_l2(trained, x, y, ANYWHERE, noise_for(len(x)), **SHORT)
    for size in (1, 3, 7, 96):
        logits = torch.cat([trained(part) for part in found.x_adv.split(size)])
        assert (predictions(logits) != y).all()


@pytest.mark.parametrize(("targets", "runs"), [(0, 1), (3, 3)])
def test_without_abortion_every_search_step_costs_the_same(
    targets: int, runs: int, trained: nn.Module, examples: Examples
) -> None:
    x, y = examples
    chosen = {"steps": 6, "search_steps": 2, "targets": targets}
    found = cw_l2(trained, x, y, ANYWHERE, noise_for(len(x)), abort_early=False, **chosen)
    attacked = predictions(trained(x)) == y
    assert found.forwards[attacked].unique().tolist() == [1 + runs * 2 * (6 + 1)]
    assert found.backwards[attacked].unique().tolist() == [runs * 2 * 6]
    assert found.forwards[~attacked].unique().tolist() in ([], [1])


def spent_at_the_network(
    model: nn.Module, x: Tensor, y: Tensor, rows: Tensor, **chosen: object
) -> tuple[Attacked, dict[str, int]]:
    observed, passes = counted(model)
    noise = noise_for(len(x)).take(rows)
    return cw_l2(observed, x[rows], y[rows], ANYWHERE, noise, **(SHORT | chosen)), passes


def test_passes_are_those_that_the_network_sees(trained: nn.Module, examples: Examples) -> None:
    for row in torch.arange(4).split(1):
        found, passes = spent_at_the_network(trained, *examples, row, targets=2)
        assert passes == {"forward": found.forwards.item(), "backward": found.backwards.item()}


def test_an_example_without_progress_spends_nothing_more(
    trained: nn.Module, examples: Examples
) -> None:
    """Its batch runs on without it: the network sees each row as often as the row counts."""
    x, y = examples
    alone, _ = spent_at_the_network(trained, x, y, torch.arange(len(x)), search_steps=1)
    assert alone.forwards.unique().numel() > 2
    slow = alone.forwards.argmax()
    rows = torch.cat([slow[None].expand(33), torch.arange(60)])
    found, passes = spent_at_the_network(trained, x, y, rows, search_steps=1)
    assert passes["forward"] == found.forwards.sum()
    assert passes["backward"] == found.backwards.sum()


def test_early_abortion_saves_passes_and_hardly_lengthens() -> None:
    model, x, y = linear(2)
    early, late = (
        cw_l2(model, x, y, ANYWHERE, noise_for(48), abort_early=flag, **FINE)
        for flag in (True, False)
    )
    assert early.forwards.sum() < 0.7 * late.forwards.sum()
    mean = ANYWHERE.distance(late.x_adv, x).mean()
    assert ANYWHERE.distance(early.x_adv, x).mean() < 1.01 * mean


@pytest.mark.parametrize("targets", [0, 2])
def test_dropping_examples_changes_no_bit(
    targets: int, trained: nn.Module, examples: Examples
) -> None:
    x, y = examples
    noise, chosen = noise_for(len(x)), SHORT | {"targets": targets}
    whole = cw_l2(trained, x, y, ANYWHERE, noise, **chosen)
    assert whole.forwards.unique().numel() > 2
    for rows in torch.randperm(len(x), generator=torch.Generator().manual_seed(1)).split(48):
        part = cw_l2(trained, x[rows], y[rows], ANYWHERE, noise.take(rows), **chosen)
        assert_equal(part, rows_of(whole, rows))


def test_an_example_misclassified_when_clean_is_returned_as_it_is(
    trained: nn.Module, examples: Examples
) -> None:
    x, y = examples[0], (examples[1] + 1) % 4
    wrong = predictions(trained(x)) != y
    found = cw_l2(trained, x, y, ThreatModel("l2", 1.0), noise_for(len(x)), **SHORT)
    assert wrong.any()
    assert torch.equal(found.x_adv[wrong], x[wrong])
    assert (found.objective[wrong] > 0).all()
    assert found.forwards[wrong].unique().tolist() == [1]
    assert found.backwards[wrong].unique().tolist() == [0]


def test_black_and_white_pixels_can_be_moved() -> None:
    """The inverse of tanh is infinite there."""
    model, x, _ = linear(3)
    x = (x > 0.5).float()
    y = predictions(model(x))
    chosen = {"steps": 150, "learning_rate": 0.1, "search_steps": 2, "initial_constant": 10.0}
    found = cw_l2(model, x, y, ANYWHERE, noise_for(48), abort_early=False, **chosen)
    assert found.x_adv.isfinite().all()
    assert (predictions(model(found.x_adv)) != y).all()


def test_more_targets_than_wrong_classes_are_refused(
    trained: nn.Module, examples: Examples
) -> None:
    with pytest.raises(ValueError, match="cw_l2: targets=4, but 4 classes leave 3 wrong ones"):
        cw_l2(trained, *examples, ANYWHERE, noise_for(96), targets=4)


def test_logits_that_do_not_depend_on_the_input_are_refused() -> None:
    class Detached(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.detach().flatten(1)

    x = torch.rand(3, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    y = x.flatten(1).argmax(1)
    with pytest.raises(ValueError, match="cw_l2: the logits do not depend on the input"):
        cw_l2(Detached(), x, y, ANYWHERE, noise_for(3))
