"""MART: by hand, by numpy on random logits, by finite differences."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from advtrain.methods.mart import Mart
from advtrain.methods.method import Batch, Passes, Terms
from advtrain.methods.pgd_at import PgdAt
from advtrain.noise import Noise
from advtrain.threat import ThreatModel
from tests.methods.test_losses import (
    EPSILON,
    SLOPE,
    THREAT,
    OnePixel,
    X,
    cross_entropy,
    divergence,
    noise,
    pixels,
    sigmoid,
    step,
)

COUNT, CLASSES = 6, 5


def logits() -> tuple[Tensor, Tensor, Tensor]:
    """Clean logits, adversarial logits and labels; some of them are the prediction, some not."""
    generator = torch.Generator().manual_seed(3)
    clean, adversarial = (
        torch.randn(COUNT, CLASSES, generator=generator, dtype=torch.float64) * 2 for _ in range(2)
    )
    return clean, adversarial, torch.arange(COUNT) % CLASSES


def loss(
    clean: Tensor,
    adversarial: Tensor,
    y: Tensor,
    *,
    smoothed: Tensor | None = None,
    beta: float = 5.0,
) -> Terms:
    """The method's loss of a network whose images are its logits."""
    batch = Batch(clean[:, :, None, None], y, torch.arange(len(y)), smoothed)
    x_adv = adversarial[:, :, None, None]
    return Mart(beta=beta).loss(nn.Flatten(), batch, x_adv, THREAT, Noise(0, batch.example))


def softmax(z: np.ndarray) -> np.ndarray:
    return np.exp(z) / np.exp(z).sum()


def reference(clean: Tensor, adversarial: Tensor, y: Tensor) -> tuple[float, float]:
    """Boosted cross-entropy and weighted divergence, example by example from the formulas."""
    boosted, weighted = [], []
    for z, z_adv, label in zip(clean.numpy(), adversarial.numpy(), y.tolist(), strict=True):
        p, q = softmax(z), softmax(z_adv)
        wrong = max(q[k] for k in range(CLASSES) if k != label)
        boosted.append(-np.log(q[label]) - np.log(1 - wrong))
        weighted.append(np.sum(p * np.log(p / q)) * (1 - p[label]))
    return float(np.mean(boosted)), float(np.mean(weighted))


def test_by_hand() -> None:
    # With two classes, 1 minus the wrong one's probability is that of the label.
    boosted = 2 * cross_entropy(X - EPSILON)
    weighted = divergence(X, X - EPSILON) * (1 - sigmoid(X))
    terms = step(Mart(), pixels())
    assert terms.parts["boosted"].item() == pytest.approx(boosted, rel=1e-12)
    assert terms.parts["weighted"].item() == pytest.approx(weighted, rel=1e-12)
    assert terms.total.item() == pytest.approx(boosted + 5 * weighted, rel=1e-12)


def test_every_probability_learns() -> None:
    # By central differences in the slope: both sides of the divergence and the weight 1 - p.
    def by_hand(slope: float) -> float:
        p, q = (1 / (1 + math.exp(-slope * x)) for x in (X, X - EPSILON))
        kl = p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
        return -2 * math.log(q) + 5 * kl * (1 - p)

    model, batch = OnePixel(), pixels()
    Mart().loss(model, batch, batch.x - EPSILON, THREAT, noise()).total.backward()
    expected = (by_hand(SLOPE + 1e-5) - by_hand(SLOPE - 1e-5)) / 2e-5
    assert model.slope.grad is not None
    assert model.slope.grad.item() == pytest.approx(expected, rel=1e-7)


def test_random_logits_by_numpy() -> None:
    clean, adversarial, y = logits()
    right = adversarial.argmax(1) == y
    assert right.any()
    assert not right.all()
    boosted, weighted = reference(clean, adversarial, y)
    terms = loss(clean, adversarial, y)
    assert terms.parts["boosted"].item() == pytest.approx(boosted, rel=1e-12)
    assert terms.parts["weighted"].item() == pytest.approx(weighted, rel=1e-12)
    assert terms.total.item() == pytest.approx(boosted + 5 * weighted, rel=1e-12)
    assert torch.equal(terms.logits, adversarial)


def test_the_official_constants_move_the_loss_by_little() -> None:
    clean, adversarial, y = logits()
    total = []
    for z, z_adv, label in zip(clean.numpy(), adversarial.numpy(), y.tolist(), strict=True):
        p, q = softmax(z), softmax(z_adv)
        second, first = np.argsort(q)[-2:]
        wrong = second if first == label else first
        boosted = -np.log(q[label]) - np.log(1.0001 - q[wrong] + 1e-12)
        kl = np.sum(p * (np.log(p) - np.log(q + 1e-12)))
        total.append(boosted + 5 * kl * (1.0000001 - p[label]))
    difference = abs(loss(clean, adversarial, y).total.item() - np.mean(total))
    assert 0 < difference < 2e-3


def test_gradients_of_the_logits_by_central_differences() -> None:
    clean, adversarial, y = logits()
    sides = [clean.clone().requires_grad_(), adversarial.clone().requires_grad_()]
    loss(*sides, y).total.backward()
    for which, side in enumerate(sides):
        assert side.grad is not None
        for row in range(COUNT):
            for column in range(CLASSES):
                values = []
                for shift in (1e-5, -1e-5):
                    moved = [clean.clone(), adversarial.clone()]
                    moved[which][row, column] += shift
                    values.append(loss(*moved, y).total.item())
                expected = (values[0] - values[1]) / 2e-5
                assert side.grad[row, column].item() == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_beta_0_is_the_boosted_cross_entropy_alone() -> None:
    terms = loss(*logits(), beta=0.0)
    assert torch.equal(terms.total, terms.parts["boosted"])
    assert terms.parts["weighted"].item() > 0
    assert loss(*logits(), beta=2.0).total.item() == pytest.approx(
        (terms.parts["boosted"] + 2 * terms.parts["weighted"]).item(), rel=1e-12
    )


def test_smoothed_labels_enter_the_cross_entropy_alone() -> None:
    clean, adversarial, y = logits()
    smoothed = nn.functional.one_hot(y, CLASSES).double() * 0.9 + 0.1 / CLASSES
    hard, soft = loss(clean, adversarial, y), loss(clean, adversarial, y, smoothed=smoothed)
    log_q = adversarial.log_softmax(1)
    moved = -(smoothed * log_q).sum(1).mean() + log_q[torch.arange(COUNT), y].mean()
    difference = soft.parts["boosted"] - hard.parts["boosted"]
    assert difference.item() == pytest.approx(moved.item(), rel=1e-9)
    assert torch.equal(soft.parts["weighted"], hard.parts["weighted"])


def test_a_certain_and_right_prediction_has_no_weight() -> None:
    clean = torch.tensor([[60.0, 0.0, 0.0]])
    terms = loss(clean, torch.tensor([[0.0, 3.0, 1.0]]), torch.tensor([0]))
    assert terms.parts["weighted"].item() == pytest.approx(0.0, abs=1e-6)


def test_certain_and_wrong_predictions_stay_finite() -> None:
    # 1 - p is e^-300 in float32: the official constants would stop at 9.2.
    clean = torch.tensor([[-300.0, 300.0, 0.0]], requires_grad=True)
    adversarial = torch.tensor([[0.0, 300.0, 0.0]], requires_grad=True)
    terms = loss(clean, adversarial, torch.tensor([0]), beta=0.0)
    # -log p_0 = 300, and -log(1 - p_1) = 300 - log 2.
    assert terms.total.item() == pytest.approx(600 - math.log(2), rel=1e-6)
    loss(clean, adversarial, torch.tensor([0])).total.backward()
    assert clean.grad is not None
    assert clean.grad.isfinite().all()
    assert adversarial.grad is not None
    assert adversarial.grad.isfinite().all()


def test_without_a_start_it_crafts_as_pgd_in_eval_mode(model: nn.Module, batch: Batch) -> None:
    threat, noise = ThreatModel("linf", 0.1), Noise(0, batch.example)
    expected = PgdAt(steps=4, step_size=0.04, random_start=False, crafting="eval")
    method = Mart(steps=4, step_size=0.04, start_deviation=0.0)
    assert torch.equal(
        method.perturb(model, batch, threat, noise), expected.perturb(model, batch, threat, noise)
    )


@pytest.mark.parametrize(
    "option",
    [{"steps": 1}, {"step_size": 0.01}, {"start_deviation": 0.1}, {"crafting": "train"}],
    ids=str,
)
def test_each_option_of_the_ascent_changes_the_images(
    option: dict[str, object], model: nn.Module, batch: Batch
) -> None:
    threat, noise = ThreatModel("linf", 0.1), Noise(0, batch.example)
    default = Mart().perturb(model, batch, threat, noise)
    assert not torch.equal(Mart(**option).perturb(model, batch, threat, noise), default)


def test_a_budget_of_0_leaves_the_boosted_cross_entropy_of_the_image(
    model: nn.Module, batch: Batch
) -> None:
    nothing, noise = ThreatModel("linf", 0.0), Noise(0, batch.example)
    x_adv = Mart().perturb(model, batch, nothing, noise)
    assert torch.equal(x_adv, batch.x)
    terms = Mart().loss(model, batch, x_adv, nothing, noise)
    assert terms.parts["weighted"].item() == 0.0
    assert torch.equal(terms.total, terms.parts["boosted"])


def test_the_cost_follows_the_steps() -> None:
    assert Mart().cost() == (Passes(10, 10), Passes(2, 2))
    assert Mart(steps=3).cost().crafting == Passes(3, 3)
