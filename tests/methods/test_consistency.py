import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from advtrain.methods.consistency import Consistency, jensen_shannon
from advtrain.methods.method import Batch
from advtrain.methods.pgd_at import PgdAt
from advtrain.noise import Noise
from advtrain.params.signatures import DEFAULT_NORMS as NORMS
from advtrain.threat import ThreatModel
from tests.methods.conftest import CLASSES, batch_of
from tests.methods.pixel import Pixel, noise_of, pixels

THREAT = ThreatModel("linf", 0.1)


def views() -> Batch:
    """Two views of five examples."""
    one = batch_of(5)
    return Batch(torch.cat([one.x, one.x.flip(-1)]), one.y.repeat(2), one.example.repeat(2))


def draws() -> Noise:
    return Noise(0, torch.arange(10))


def reference(one: np.ndarray, other: np.ndarray, temperature: float) -> np.ndarray:
    def softmax(z: np.ndarray) -> np.ndarray:
        e = np.exp(z / temperature - (z / temperature).max(1, keepdims=True))
        return e / e.sum(1, keepdims=True)

    p, q = softmax(one), softmax(other)
    m = (p + q) / 2
    return ((p * np.log(p / m)).sum(1) + (q * np.log(q / m)).sum(1)) / 2


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_divergence_is_that_of_numpy(temperature: float) -> None:
    generator = np.random.default_rng(0)
    one, other = 4 * generator.standard_normal((2, 50, 7))
    found = jensen_shannon(torch.tensor(one) / temperature, torch.tensor(other) / temperature)
    np.testing.assert_allclose(found.numpy(), reference(one, other, temperature), rtol=1e-9)


def test_the_divergence_by_hand() -> None:
    # (1/2, 1/2) and (1/4, 3/4), whose mean is (3/8, 5/8).
    one, other = torch.tensor([[1.0, 1.0]]).log(), torch.tensor([[1.0, 3.0]]).log()
    first = 0.5 * math.log(4 / 3) + 0.5 * math.log(4 / 5)
    second = 0.25 * math.log(2 / 3) + 0.75 * math.log(6 / 5)
    assert jensen_shannon(one, other).item() == pytest.approx((first + second) / 2, rel=1e-5)


def test_the_divergence_is_symmetric_and_at_most_log_2() -> None:
    one, other = torch.randn(2, 9, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(jensen_shannon(one, other), jensen_shannon(other, one))
    assert jensen_shannon(one, one).abs().max() < 1e-6
    sure = torch.tensor([[200.0, 0.0]], requires_grad=True)
    apart = jensen_shannon(sure, sure.flip(1))
    assert apart.item() == pytest.approx(math.log(2), rel=1e-6)
    apart.sum().backward()
    assert sure.grad is not None
    assert sure.grad.isfinite().all()


def test_the_loss_by_hand() -> None:
    # Two views of one image, 0.9 and 0.8, each attacked to its own end of the ball.
    batch, model = pixels([0.9, 0.8], [0, 0]), Pixel(slope=3.0)
    method = Consistency(weight=2.0, temperature=0.5)
    x_adv = method.perturb(model, batch, THREAT, noise_of(batch))
    assert x_adv.flatten().tolist() == pytest.approx([0.8, 0.7])
    terms = method.loss(model, batch, x_adv, THREAT, noise_of(batch))
    z = 3.0 * (np.array([0.8, 0.7]) - 0.5)
    adversarial = np.log1p(np.exp(-z)).mean()
    divergence = reference(np.array([[z[0], 0.0]]), np.array([[z[1], 0.0]]), 0.5).item()
    assert terms.parts["adversarial"].item() == pytest.approx(adversarial, rel=1e-9)
    assert terms.parts["consistency"].item() == pytest.approx(divergence, rel=1e-6)
    assert terms.total.item() == pytest.approx(adversarial + 2.0 * divergence, rel=1e-6)


def test_both_sides_of_the_divergence_learn() -> None:
    batch, method = pixels([0.9, 0.8], [0, 0]), Consistency(weight=5.0)

    def loss(slope: float) -> torch.Tensor:
        model = Pixel(slope=slope)
        total = method.loss(model, batch, batch.x, THREAT, noise_of(batch)).total
        total.backward()
        assert model.slope.grad is not None
        return torch.stack([total.detach(), model.slope.grad])

    expected = (loss(3.0 + 1e-5)[0] - loss(3.0 - 1e-5)[0]) / 2e-5
    assert loss(3.0)[1].item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_with_weight_0_it_is_pgd_at_on_both_views(norm: str, model: nn.Module) -> None:
    batch, threat = views(), ThreatModel(norm, 0.1)
    consistency, pgd_at = Consistency(weight=0.0), PgdAt(crafting="eval")
    x_adv = consistency.perturb(model, batch, threat, draws())
    assert torch.equal(x_adv, pgd_at.perturb(model, batch, threat, draws()))
    terms = consistency.loss(model, batch, x_adv, threat, draws())
    expected = pgd_at.loss(model, batch, x_adv, threat, draws())
    assert torch.equal(terms.total, expected.total)
    assert torch.equal(terms.logits, expected.logits)


def test_views_that_are_predicted_alike_cost_nothing(model: nn.Module) -> None:
    one = batch_of(5)
    batch = Batch(one.x.repeat(2, 1, 1, 1), one.y.repeat(2), one.example.repeat(2))
    terms = Consistency().loss(model, batch, batch.x, THREAT, draws())
    assert terms.parts["consistency"].abs().item() < 1e-6
    apart = Consistency().loss(model, views(), views().x, THREAT, draws())
    assert apart.parts["consistency"].item() > 1e-4


def test_the_weights_learn_the_smoothed_labels(model: nn.Module) -> None:
    batch = views()._replace(smoothed=torch.full((10, CLASSES), 1 / CLASSES))
    terms = Consistency().loss(model, batch, batch.x, THREAT, draws())
    expected = -F.log_softmax(model(batch.x), dim=1).mean()
    torch.testing.assert_close(terms.parts["adversarial"], expected)


def test_rows_that_are_not_pairs_are_named(model: nn.Module) -> None:
    batch = batch_of(3)
    with pytest.raises(ValueError, match="consistency: .* got 3 rows, which are not pairs"):
        Consistency().loss(model, batch, batch.x, THREAT, draws())
