import pytest
import torch
import torch.nn.functional as F
from torch import nn

from advtrain.methods.gaussian import Gaussian
from advtrain.methods.method import Batch
from advtrain.noise import Noise
from advtrain.threat import ThreatModel
from tests.methods.conftest import batch_of

NOTHING = ThreatModel("linf", 0.0)


def test_the_noise_is_normal_and_of_the_given_deviation(model: nn.Module) -> None:
    batch = batch_of(2000)
    delta = Gaussian(sigma=0.3).perturb(model, batch, NOTHING, Noise(0, batch.example)) - batch.x
    # 60 000 draws: the mean is within 4 sigma / sqrt(60000), the deviation within 1.2 %.
    assert abs(delta.mean().item()) < 4 * 0.3 / 60_000**0.5
    assert delta.std().item() == pytest.approx(0.3, rel=0.012)
    assert (delta.abs() < 0.3).float().mean().item() == pytest.approx(0.6827, abs=0.008)


def test_images_keep_what_leaves_the_pixel_range(model: nn.Module) -> None:
    batch = batch_of(100)
    x_adv = Gaussian().perturb(model, batch, NOTHING, Noise(0, batch.example))
    assert x_adv.min() < 0
    assert x_adv.max() > 1
    expected = batch.x + 0.25 * Noise(0, batch.example).normal((2, 5, 3))
    assert torch.equal(x_adv, expected)


def test_the_loss_is_that_of_the_noisy_images(model: nn.Module, batch: Batch) -> None:
    noise = Noise(0, batch.example)
    x_adv = Gaussian().perturb(model, batch, NOTHING, noise)
    total = Gaussian().loss(model, batch, x_adv, NOTHING, noise).total
    assert torch.equal(total, F.cross_entropy(model(x_adv), batch.y))
    assert not torch.equal(total, F.cross_entropy(model(batch.x), batch.y))


def test_the_noise_follows_the_example_and_not_its_place(model: nn.Module, batch: Batch) -> None:
    rows = torch.tensor([7, 2])
    whole = Gaussian().perturb(model, batch, NOTHING, Noise(3, batch.example))
    part = Batch(batch.x[rows], batch.y[rows], batch.example[rows])
    found = Gaussian().perturb(model, part, NOTHING, Noise(3, part.example))
    assert torch.equal(found, whole[rows])
