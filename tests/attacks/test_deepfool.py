"""DeepFool on models whose nearest boundary is known, and what it spends."""

import math

import pytest
import torch
from torch import Tensor, nn

from advtrain.attacks.attack import Attacked, predictions
from advtrain.attacks.deepfool import deepfool
from advtrain.attacks.minimum_norm import sure_margin
from advtrain.attacks.objectives import margin
from advtrain.noise import Noise
from advtrain.threat import ThreatModel
from tests.attacks.test_attack_contracts import assert_equal, counted, rows_of

Examples = tuple[Tensor, Tensor]

ANYWHERE = {"linf": 1.0, "l2": 100.0}
"""Budgets that hold the whole box."""

DUAL = {"linf": 1.0, "l2": 2.0}

norms = pytest.mark.parametrize("norm", ANYWHERE)


def noise_for(count: int) -> Noise:
    return Noise(0, torch.arange(count))


def linear(classes: int) -> tuple[nn.Module, Tensor, Tensor]:
    """A linear model and grey images that it gets right, near enough for the box not to matter."""
    generator = torch.Generator().manual_seed(classes)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, classes))
    with torch.no_grad():
        model[1].weight.copy_(torch.randn(classes, 16, generator=generator))
        model[1].bias.copy_(
            0.1 * torch.randn(classes, generator=generator) - model[1].weight.sum(1) / 2
        )
    x = 0.5 + 0.1 * torch.randn(48, 1, 4, 4, generator=generator)
    return model, x, predictions(model(x))


def to_the_boundary(model: nn.Module, x: Tensor, y: Tensor, norm: str) -> Tensor:
    """The exact distance: the least of the margins over the dual norms of their gradients."""
    logits, weight = model(x).detach(), model[1].weight.detach()
    lead = logits.gather(1, y[:, None]) - logits
    steepness = torch.linalg.vector_norm(weight[y][:, None] - weight, ord=DUAL[norm], dim=2)
    return (lead / steepness).scatter(1, y[:, None], math.inf).amin(1)


@norms
@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("overshoot", [0.0, 0.02])
def test_on_a_linear_model_the_distance_is_exact(norm: str, classes: int, overshoot: float) -> None:
    model, x, y = linear(classes)
    threat = ThreatModel(norm, ANYWHERE[norm])
    found = deepfool(model, x, y, threat, noise_for(48), overshoot=overshoot)
    exact = to_the_boundary(model, x, y, norm)
    further = threat.distance(found.x_adv, x) - exact
    assert (further > 0).all()
    # The aim beyond the boundary is a share of the logits, and so of no matter for the farther.
    assert (further < overshoot * exact + 1e-4).all()
    assert (further / exact).median() < overshoot + 0.002
    assert (predictions(model(found.x_adv)) != y).all()


@norms
@pytest.mark.parametrize("classes", [2, 5])
def test_a_linear_model_takes_one_step(norm: str, classes: int) -> None:
    model, x, y = linear(classes)
    found = deepfool(model, x, y, ThreatModel(norm, ANYWHERE[norm]), noise_for(48))
    assert found.forwards.tolist() == [1 + 2] * 48
    assert found.backwards.tolist() == [classes - 1] * 48


@norms
def test_beyond_the_budget_it_returns_the_point_of_the_segment(
    norm: str, trained: nn.Module, examples: Examples
) -> None:
    x, y = examples
    anywhere = ThreatModel(norm, ANYWHERE[norm])
    far = deepfool(trained, x, y, anywhere, noise_for(len(x)))
    distance = anywhere.distance(far.x_adv, x)
    threat = ThreatModel(norm, distance.median().item())
    near = deepfool(trained, x, y, threat, noise_for(len(x)))
    beyond = distance > threat.epsilon
    assert 10 < beyond.sum() < 86
    assert_equal(rows_of(near, ~beyond), rows_of(far, ~beyond))
    share = (threat.epsilon / distance).view(-1, 1, 1, 1)
    expected = (x + share * (far.x_adv - x))[beyond]
    torch.testing.assert_close(near.x_adv[beyond], expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(near.objective, margin(trained(near.x_adv), y).detach())
    assert torch.equal(near.forwards, far.forwards + beyond)


@norms
def test_what_is_found_is_misclassified_in_a_batch_of_any_size(
    norm: str, trained: nn.Module, examples: Examples
) -> None:
    """Without an overshoot the points lie as close to the boundary as they can."""
    x, y = examples
    threat = ThreatModel(norm, ANYWHERE[norm])
    found = deepfool(trained, x, y, threat, noise_for(len(x)), overshoot=0.0)
    for size in (1, 3, 7, 96):
        logits = torch.cat([trained(part) for part in found.x_adv.split(size)]).detach()
        assert (predictions(logits) != y).all()
    attacked = predictions(trained(x)) == y
    assert (found.objective > sure_margin(logits))[attacked].all()
    assert found.objective[attacked].median() < 0.01


def spent_at_the_network(
    model: nn.Module, x: Tensor, y: Tensor, rows: Tensor, **chosen: object
) -> tuple[Attacked, dict[str, int]]:
    observed, passes = counted(model)
    threat = ThreatModel("l2", 100.0)
    noise = noise_for(len(x)).take(rows)
    return deepfool(observed, x[rows], y[rows], threat, noise, **chosen), passes


@pytest.mark.parametrize("candidates", [2, 3, 4, 10, 0])
def test_passes_are_two_forwards_and_one_backward_per_other_candidate(
    candidates: int, trained: nn.Module, examples: Examples
) -> None:
    others = min(candidates or 4, 4) - 1
    for row in torch.arange(6).split(1):
        found, passes = spent_at_the_network(trained, *examples, row, candidates=candidates)
        steps = found.backwards.item() / others
        assert steps >= 1
        assert found.forwards.item() == 1 + 2 * steps
        assert passes == {"forward": found.forwards.item(), "backward": found.backwards.item()}


def test_an_example_that_is_found_spends_nothing_more(
    trained: nn.Module, examples: Examples
) -> None:
    """Its batch runs on without it: the network sees each row as often as the row counts."""
    x, y = examples
    alone, _ = spent_at_the_network(trained, x, y, torch.arange(len(x)))
    slow = alone.forwards.argmax()
    quick = (alone.forwards < alone.forwards[slow]).nonzero().squeeze(1)[:60]
    rows = torch.cat([slow[None].expand(33), quick])
    found, passes = spent_at_the_network(trained, x, y, rows)
    assert found.forwards.unique().numel() > 2
    assert passes["forward"] == found.forwards.sum()
    assert passes["backward"] == found.backwards.sum()


@norms
def test_dropping_examples_changes_no_bit(
    norm: str, trained: nn.Module, examples: Examples
) -> None:
    x, y = examples
    threat, noise = ThreatModel(norm, ANYWHERE[norm]), noise_for(len(x))
    whole = deepfool(trained, x, y, threat, noise)
    assert whole.forwards.unique().numel() > 2
    for rows in torch.randperm(len(x), generator=torch.Generator().manual_seed(1)).split(48):
        part = deepfool(trained, x[rows], y[rows], threat, noise.take(rows))
        assert_equal(part, rows_of(whole, rows))


def test_an_example_misclassified_when_clean_is_returned_as_it_is(
    trained: nn.Module, examples: Examples
) -> None:
    x, y = examples[0], (examples[1] + 1) % 4
    wrong = predictions(trained(x)) != y
    found = deepfool(trained, x, y, ThreatModel("l2", 1.0), noise_for(len(x)))
    assert torch.equal(found.x_adv[wrong], x[wrong])
    assert (found.objective[wrong] > 0).all()
    assert found.forwards[wrong].unique().tolist() == [1]
    assert found.backwards[wrong].unique().tolist() == [0]


def test_few_candidates_are_those_most_likely_when_clean() -> None:
    """Five classes; the third is nearest but less likely than the second."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 5))
    with torch.no_grad():
        model[1].weight.zero_()
        model[1].weight[1, 0], model[1].weight[2, 1] = 1.0, 10.0
        model[1].bias.copy_(torch.tensor([0.8, 0.0, -5.2, -9.0, -9.0]))
    x, y = torch.full((1, 1, 2, 2), 0.5), torch.tensor([0])
    threat = ThreatModel("l2", 100.0)
    near, far = (
        predictions(model(deepfool(model, x, y, threat, noise_for(1), candidates=count).x_adv))
        for count in (0, 2)
    )
    assert (near.item(), far.item()) == (2, 1)


def test_a_vanishing_gradient_is_followed_all_the_same() -> None:
    """Of 1e-25, as behind a saturated layer; its square is 0 in float32."""

    class Saturated(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            ahead = (x.flatten(1).sum(1, keepdim=True) - 2) * 1e-25
            return torch.cat([torch.zeros_like(ahead), ahead], 1)

    x, y = torch.full((3, 1, 2, 2), 0.4), torch.zeros(3, dtype=torch.int64)
    found = deepfool(Saturated(), x, y, ThreatModel("l2", 100.0), noise_for(3))
    assert (found.objective > 0).all()


def test_a_single_candidate_is_refused(trained: nn.Module, examples: Examples) -> None:
    message = "candidates=1 is the example's own class alone; set 2 or more, or 0 for all"
    with pytest.raises(ValueError, match=message):
        deepfool(trained, *examples, ThreatModel("l2", 1.0), noise_for(96), candidates=1)


def test_logits_that_do_not_depend_on_the_input_are_refused() -> None:
    class Detached(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.detach().flatten(1)

    x = torch.rand(3, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    y = x.flatten(1).argmax(1)
    with pytest.raises(ValueError, match="deepfool: the logits do not depend on the input"):
        deepfool(Detached(), x, y, ThreatModel("l2", 1.0), noise_for(3))
