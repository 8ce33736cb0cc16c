"""The loss of interval bound propagation, its schedules and what it refuses."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advtrain.bounds.interval import worst_case_logits
from advtrain.methods.ibp import Ibp
from advtrain.methods.method import Batch, Passes, Terms
from advtrain.methods.natural import Natural
from advtrain.models.small_cnn import small_cnn
from advtrain.noise import Noise
from advtrain.threat import ThreatModel
from tests.methods.conftest import CLASSES, batch_of

EPSILON = 0.1
THREAT = ThreatModel("linf", EPSILON)


def step(method: Ibp, model: nn.Module, batch: Batch, threat: ThreatModel = THREAT) -> Terms:
    noise = Noise(0, batch.example)
    x_adv = method.perturb(model, batch, threat, noise)
    assert torch.equal(x_adv, batch.x)
    return method.loss(model, batch, x_adv, threat, noise)


def at(progress: float, count: int = 6) -> Batch:
    batch = batch_of(count)
    return batch._replace(x=batch.x.double(), progress=progress)


def network(seed: int = 0) -> nn.Sequential:
    """Images (N, 2, 5, 3) -> logits, in float64, without BatchNorm."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            *(nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.Flatten()),
            *(nn.Linear(45, 8), nn.ReLU(), nn.Linear(8, CLASSES)),
        ).double()


def one_pixel() -> tuple[nn.Module, Batch]:
    """Logits (3 x, 0) at x = 0.6, class 0."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2, bias=False)).double()
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[3.0], [0.0]]))
    x = torch.full((2, 1, 1, 1), 0.6, dtype=torch.float64)
    return model, Batch(x, torch.zeros(2, dtype=torch.int64), torch.arange(2), progress=0.6)


def cross_entropy(x: float) -> float:
    return math.log1p(math.exp(-3 * x))


def test_the_loss_by_hand() -> None:
    # Half the ramp: epsilon' is .5 * 1.1 * .1 and kappa 1 - .5 * .8 = .6; the attacker lowers x.
    model, batch = one_pixel()
    terms = step(Ibp(warmup=0.2, ramp=0.8, final_kappa=0.2), model, batch)
    natural, verified = cross_entropy(0.6), cross_entropy(0.6 - 0.055)
    assert terms.parts["natural"].item() == pytest.approx(natural, rel=1e-12)
    assert terms.parts["verified"].item() == pytest.approx(verified, rel=1e-12)
    assert terms.total.item() == pytest.approx(0.6 * natural + 0.4 * verified, rel=1e-12)
    assert torch.equal(terms.logits, model(batch.x))


def test_the_gradient_is_that_of_the_whole_loss() -> None:
    # Along a random direction of all weights, by central differences.
    model, batch, method = network(), at(0.9), Ibp()
    generator = torch.Generator().manual_seed(0)
    directions = [
        torch.randn(weight.shape, generator=generator, dtype=torch.float64)
        for weight in model.parameters()
    ]
    step(method, model, batch).total.backward()
    slope = sum(
        float((weight.grad * direction).sum())
        for weight, direction in zip(model.parameters(), directions, strict=True)
    )

    def moved(by: float) -> float:
        with torch.no_grad():
            for weight, direction in zip(model.parameters(), directions, strict=True):
                weight.add_(direction, alpha=by)
            total = step(method, model, batch).total.item()
            for weight, direction in zip(model.parameters(), directions, strict=True):
                weight.sub_(direction, alpha=by)
        return total

    assert slope == pytest.approx((moved(1e-6) - moved(-1e-6)) / 2e-6, rel=1e-6)


@pytest.mark.parametrize(
    ("method", "progress", "threat"),
    [
        (Ibp(), 0.0, THREAT),
        (Ibp(warmup=0.3), 0.29, THREAT),
        (Ibp(), 0.9, ThreatModel("linf", 0.0)),
        (Ibp(final_kappa=1.0), 0.9, THREAT),
    ],
    ids=["first step", "warm-up", "no budget", "kappa 1"],
)
def test_the_warm_up_no_budget_and_kappa_1_are_natural_training(
    method: Ibp, progress: float, threat: ThreatModel
) -> None:
    model, twin, batch = network(), network(), at(progress)
    terms = step(method, model, batch, threat)
    expected = Natural().loss(twin, batch, batch.x, threat, Noise(0, batch.example))
    assert torch.equal(terms.total, expected.total)
    terms.total.backward()
    expected.total.backward()
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        assert one.grad is not None
        assert torch.equal(one.grad, other.grad)


def test_the_verified_term_bounds_the_loss_of_every_attack() -> None:
    model, batch = network(), at(0.9)
    terms = step(Ibp(epsilon_factor=1.0), model, batch)
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        sign = torch.randn(batch.x.shape, generator=generator, dtype=torch.float64).sign()
        x_adv = THREAT.project(batch.x + EPSILON * sign, batch.x)
        assert F.cross_entropy(model(x_adv), batch.y) <= terms.parts["verified"]
    assert terms.parts["verified"] > terms.parts["natural"]


def test_smoothed_labels_are_learnt_by_both_terms() -> None:
    model, batch = network(), at(0.9)
    smoothed = 0.8 * F.one_hot(batch.y, CLASSES).double() + 0.2 / CLASSES
    terms = step(Ibp(), model, batch._replace(smoothed=smoothed))

    def smooth(logits: Tensor) -> Tensor:
        return -(smoothed * logits.log_softmax(1)).sum(1).mean()

    worst = worst_case_logits(model, batch.x, batch.y, 1.1 * EPSILON)
    torch.testing.assert_close(terms.parts["natural"], smooth(model(batch.x)))
    torch.testing.assert_close(terms.parts["verified"], smooth(worst))


@pytest.mark.parametrize(
    ("progress", "share"),
    [(0.0, 0.0), (0.2, 0.0), (0.25, 0.1), (0.45, 0.5), (0.7, 1.0), (0.999, 1.0)],
)
def test_the_ramps_at_their_ends_and_between(progress: float, share: float) -> None:
    method = Ibp(warmup=0.2, ramp=0.5, final_kappa=0.4, epsilon_factor=2.0)
    step(method, network(), at(progress))
    measured = method.measures()
    assert measured["epsilon"] == pytest.approx(share * 2.0 * EPSILON)
    assert measured["kappa"] == pytest.approx(1 - 0.6 * share)


def test_without_a_ramp_the_budget_is_there_after_the_warm_up() -> None:
    method = Ibp(warmup=0.2, ramp=0.0)
    step(method, network(), at(0.19))
    assert method.measures() == {"kappa": 1.0, "epsilon": 0.0}
    step(method, network(), at(0.2))
    assert method.measures() == {"kappa": 0.5, "epsilon": 1.1 * EPSILON}


def test_the_budget_of_the_training_can_leave_the_box() -> None:
    terms = step(Ibp(), network(), at(0.9), ThreatModel("linf", 1.0))
    expected = worst_case_logits(network(), at(0.9).x, at(0.9).y, 1.0)
    torch.testing.assert_close(
        terms.parts["verified"], F.cross_entropy(expected, at(0.9).y), rtol=1e-12, atol=0
    )


def test_an_interval_costs_two_pairs_of_passes_beside_the_image() -> None:
    method = Ibp()
    assert method.cost().loss == Passes(1, 1)
    step(method, network(), at(0.0))
    assert method.cost().loss == Passes(1, 1)
    step(method, network(), at(0.9))
    assert method.cost().loss == Passes(3, 3)
    assert method.cost().crafting == Passes(0, 0)
    assert method.cost().forward_equivalents == 9
    assert Ibp(warmup=0.0, ramp=0.0).cost().loss == Passes(3, 3)


def test_the_bounds_are_those_of_batch_norms_running_averages(model: nn.Module) -> None:
    # In train mode the images go through by the batch's statistics, the bounds do not.
    batch = batch_of(10)._replace(progress=0.9)
    terms = step(Ibp(), model.train(), batch)
    assert int(model[1].num_batches_tracked) == 1
    worst = worst_case_logits(model.eval(), batch.x, batch.y, 1.1 * EPSILON)
    torch.testing.assert_close(terms.parts["verified"], F.cross_entropy(worst, batch.y))
    assert torch.equal(model.train()(batch.x), terms.logits)


def test_bounds_are_not_rounded_by_autocast() -> None:
    model, batch = network().float(), batch_of(6)._replace(progress=0.9)
    expected = step(Ibp(), model, batch)
    with torch.autocast("cpu", torch.bfloat16):
        found = step(Ibp(), model, batch)
    assert torch.equal(found.parts["verified"], expected.parts["verified"])
    assert not torch.equal(found.logits.float(), expected.logits)


def test_another_norm_is_refused_at_the_first_step() -> None:
    with pytest.raises(ValueError, match="ibp trains for linf budgets, got l2"):
        step(Ibp(), network(), at(0.0), ThreatModel("l2", 0.5))


def test_a_network_without_bounds_is_refused_at_the_first_step() -> None:
    model = small_cnn(channels=2, size=4, classes=CLASSES, normalisation="per_image")
    with pytest.raises(ValueError, match="layer 0 of the network, NormalizeEach"):
        step(Ibp(), model, at(0.0))


def test_a_ramp_that_ends_after_the_training_is_refused() -> None:
    with pytest.raises(ValueError, match=r"warmup 0.5 and ramp 0.6 are shares of one training"):
        Ibp(warmup=0.5, ramp=0.6)
    assert Ibp(warmup=0.5, ramp=0.5).ramp == 0.5
