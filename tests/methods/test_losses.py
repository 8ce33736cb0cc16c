"""Losses worked out by hand, and the identities between methods."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from advtrain.methods.fgsm_mixed import FgsmMixed
from advtrain.methods.fgsm_rs import FgsmRs
from advtrain.methods.free import Free
from advtrain.methods.method import Batch, Method, Terms
from advtrain.methods.natural import Natural
from advtrain.methods.pgd_at import PgdAt
from advtrain.methods.trades import Trades
from advtrain.noise import Noise
from advtrain.threat import ThreatModel

SLOPE, X, EPSILON = 3.0, 0.6, 0.1
THREAT = ThreatModel("linf", EPSILON)


class OnePixel(nn.Module):
    """Logits (3 x, 0) of a one-pixel image: class 0 has probability sigmoid(3 x)."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(SLOPE, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        z = self.slope * x.flatten(1)
        return torch.cat([z, torch.zeros_like(z)], dim=1)


def pixels(count: int = 2) -> Batch:
    return Batch(
        torch.full((count, 1, 1, 1), X, dtype=torch.float64),
        torch.zeros(count, dtype=torch.int64),
        torch.arange(count),
    )


def noise() -> Noise:
    return Noise(5, torch.arange(2))


def step(method: Method, batch: Batch) -> Terms:
    model = OnePixel()
    x_adv = method.perturb(model, batch, THREAT, noise())
    x_adv.requires_grad_(method.input_gradient)
    terms = method.loss(model, batch, x_adv, THREAT, noise())
    terms.total.backward()
    method.after_step(batch, x_adv.detach(), x_adv.grad, THREAT)
    return terms


def cross_entropy(x: float) -> float:
    """Of class 0 at x: log(1 + exp(-3 x)). It falls with x, so the attacker lowers x."""
    return math.log1p(math.exp(-SLOPE * x))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-SLOPE * x))


def divergence(x: float, x_adv: float) -> float:
    p, q = sigmoid(x), sigmoid(x_adv)
    return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def test_natural_by_hand() -> None:
    assert step(Natural(), pixels()).total.item() == pytest.approx(cross_entropy(X), rel=1e-12)


def test_pgd_at_by_hand() -> None:
    # From anywhere in the ball, ten steps of epsilon / 4 reach its end.
    expected = cross_entropy(X - EPSILON)
    assert step(PgdAt(), pixels()).total.item() == pytest.approx(expected, rel=1e-12)


def test_pgd_at_without_random_start_by_hand() -> None:
    method = PgdAt(steps=2, step_size=0.03, random_start=False)
    expected = cross_entropy(X - 0.06)
    assert step(method, pixels()).total.item() == pytest.approx(expected, rel=1e-12)


def test_fgsm_rs_by_hand() -> None:
    starts = [X + EPSILON * (2 * u - 1) for u in noise().uniform((1, 1, 1)).flatten().tolist()]
    ends = [max(start - 1.25 * EPSILON, X - EPSILON) for start in starts]
    expected = mean([cross_entropy(end) for end in ends])
    assert step(FgsmRs(), pixels()).total.item() == pytest.approx(expected, rel=1e-6)
    assert step(FgsmRs(step_size=0.01), pixels()).total.item() == pytest.approx(
        mean([cross_entropy(start - 0.01) for start in starts]), rel=1e-6
    )


def test_fgsm_mixed_by_hand() -> None:
    expected = mean([cross_entropy(X), cross_entropy(X - EPSILON)])
    assert step(FgsmMixed(), pixels()).total.item() == pytest.approx(expected, rel=1e-12)
    expected = mean([cross_entropy(X)] * 3 + [cross_entropy(X - EPSILON)])
    method = FgsmMixed(clean_fraction=0.75)
    assert step(method, pixels(4)).total.item() == pytest.approx(expected, rel=1e-12)


def test_free_by_hand() -> None:
    method = Free(replays=3, step_size=0.06)
    expected = [cross_entropy(x) for x in (X, X - 0.06, X - EPSILON)]
    got = [step(method, pixels()).total.item() for _ in range(3)]
    assert got == pytest.approx(expected, rel=1e-12)


def test_trades_by_hand() -> None:
    # The divergence grows on both sides of x; the start decides which one is climbed.
    sides = noise().normal((1, 1, 1)).flatten().sign().tolist()
    robust = mean([divergence(X, X + side * EPSILON) for side in sides])
    terms = step(Trades(), pixels())
    assert terms.parts["natural"].item() == pytest.approx(cross_entropy(X), rel=1e-12)
    assert terms.parts["robust"].item() == pytest.approx(robust, rel=1e-12)
    assert terms.total.item() == pytest.approx(cross_entropy(X) + 6 * robust, rel=1e-12)


def test_both_sides_of_the_divergence_learn() -> None:
    # d/dw [CE(w x) + beta KL(w x || w x')] by central differences, as no side is detached.
    batch, x_adv, method = pixels(), pixels().x - EPSILON, Trades(beta=2.0)

    def loss(slope: float) -> float:
        p, q = (1 / (1 + math.exp(-slope * x)) for x in (X, X - EPSILON))
        kl = p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
        return math.log1p(math.exp(-slope * X)) + 2.0 * kl

    model = OnePixel()
    method.loss(model, batch, x_adv, THREAT, noise()).total.backward()
    expected = (loss(SLOPE + 1e-5) - loss(SLOPE - 1e-5)) / 2e-5
    assert model.slope.grad is not None
    assert model.slope.grad.item() == pytest.approx(expected, rel=1e-7)


def test_trades_with_beta_0_is_natural_training(model: nn.Module, batch: Batch) -> None:
    threat = ThreatModel("linf", 0.1)
    method = Trades(beta=0.0)
    noise = Noise(0, batch.example)
    x_adv = method.perturb(model, batch, threat, noise)
    assert not torch.equal(x_adv, batch.x)
    expected = F.cross_entropy(model(batch.x), batch.y)
    assert torch.equal(method.loss(model, batch, x_adv, threat, noise).total, expected)


def test_the_divergence_is_zero_at_the_image_itself(model: nn.Module, batch: Batch) -> None:
    terms = Trades().loss(model, batch, batch.x, THREAT, noise())
    assert terms.parts["robust"].item() == 0.0


@pytest.mark.parametrize("method", [PgdAt(), FgsmRs(), FgsmMixed(), Trades(), Free()])
def test_a_budget_of_0_is_natural_training(method: Method, model: nn.Module, batch: Batch) -> None:
    nothing, noise = ThreatModel("linf", 0.0), Noise(0, batch.example)
    x_adv = method.perturb(model, batch, nothing, noise)
    assert torch.equal(x_adv, batch.x)
    expected = F.cross_entropy(model(batch.x), batch.y)
    assert torch.equal(method.loss(model, batch, x_adv, nothing, noise).total, expected)


def test_fgsm_mixed_with_all_clean_is_natural_training(model: nn.Module, batch: Batch) -> None:
    threat = ThreatModel("linf", 0.1)
    x_adv = FgsmMixed(clean_fraction=1.0).perturb(model, batch, threat, Noise(0, batch.example))
    assert torch.equal(x_adv, batch.x)


def test_fgsm_mixed_keeps_the_first_share_clean(model: nn.Module, batch: Batch) -> None:
    threat = ThreatModel("linf", 0.1)
    for share, clean in ((0.0, 0), (0.3, 3), (0.5, 5)):
        method = FgsmMixed(clean_fraction=share)
        x_adv = method.perturb(model, batch, threat, Noise(0, batch.example))
        changed = (x_adv != batch.x).flatten(1).any(1)
        assert changed.tolist() == [False] * clean + [True] * (len(batch.x) - clean)


def test_one_pgd_step_of_fgsm_rs_length_is_fgsm_rs(model: nn.Module, batch: Batch) -> None:
    threat, noise = ThreatModel("linf", 0.1), Noise(0, batch.example)
    one_step = PgdAt(steps=1, step_size="1.25*epsilon")
    assert torch.equal(
        one_step.perturb(model, batch, threat, noise), FgsmRs().perturb(model, batch, threat, noise)
    )


def test_the_mode_while_crafting_changes_the_images(model: nn.Module, batch: Batch) -> None:
    threat, noise = ThreatModel("linf", 0.1), Noise(0, batch.example)
    for made in (PgdAt, FgsmRs, FgsmMixed, Trades):
        train, eval_ = (
            made(crafting=mode).perturb(model, batch, threat, noise) for mode in ("train", "eval")
        )
        assert not torch.equal(train, eval_)
