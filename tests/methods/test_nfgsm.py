"""N-FGSM: noise beyond the budget, one step, no projection onto the ball."""

import numpy as np
import pytest
import torch
from torch import nn

from advtrain.attacks.fgsm import fgsm
from advtrain.methods.fgsm_mixed import FgsmMixed
from advtrain.methods.method import Batch
from advtrain.methods.nfgsm import Nfgsm
from advtrain.noise import Noise
from advtrain.threat import ThreatModel
from tests.methods.test_losses import EPSILON, THREAT, X, cross_entropy, mean, noise, pixels, step


def draws() -> list[float]:
    """Of the two pixels, uniform in [-1, 1)."""
    return [2 * u - 1 for u in noise().uniform((1, 1, 1)).flatten().tolist()]


def test_by_hand() -> None:
    # The attacker lowers x: epsilon below the noisy image, up to 3 epsilon from the clean one.
    expected = mean([cross_entropy(X + 2 * EPSILON * draw - EPSILON) for draw in draws()])
    assert step(Nfgsm(), pixels()).total.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("scale", "length"), [(0.5, 0.03), (4.0, 0.25)])
def test_noise_and_step_by_hand(scale: float, length: float) -> None:
    # A step of 0.25 is longer than the budget and is not cut.
    method = Nfgsm(noise_scale=scale, step_size=length)
    expected = mean([cross_entropy(X + scale * EPSILON * draw - length) for draw in draws()])
    assert step(method, pixels()).total.item() == pytest.approx(expected, rel=1e-6)


def test_a_linear_model_by_numpy() -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(5, 2, 4, 3, generator=generator)
    weights = torch.randn(2, 24, generator=generator)
    model = nn.Sequential(nn.Flatten(), nn.Linear(24, 2, bias=False))
    model[1].weight.data.copy_(weights)
    batch = Batch(x, torch.tensor([0, 1, 0, 1, 1]), torch.arange(5))
    x_adv = Nfgsm().perturb(model, batch, THREAT, Noise(7, batch.example))

    uniform = Noise(7, batch.example).uniform((2, 4, 3)).numpy().astype(np.float64)
    noisy = np.clip(x.numpy() + 2 * EPSILON * (2 * uniform - 1), 0, 1)
    # The loss of the label grows along the other class's weights.
    w = weights.numpy().reshape(2, 2, 4, 3)
    signs = np.stack([np.sign(w[1 - y] - w[y]) for y in batch.y.tolist()])
    expected = np.clip(noisy + EPSILON * signs, 0, 1)
    np.testing.assert_allclose(x_adv.numpy(), expected, atol=1e-6)
    assert (x_adv == 0).any()
    assert (x_adv == 1).any()


def test_the_noisy_image_is_clamped_before_the_step() -> None:
    # From 0.01, noise of -0.2 stops at 0; the step up by 0.1 starts there, not at -0.19.
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2, bias=False))
    model[1].weight.data.copy_(torch.tensor([[0.0], [1.0]]))
    batch = Batch(torch.full((20, 1, 1, 1), 0.01), torch.zeros(20).long(), torch.arange(20))
    x_adv = Nfgsm().perturb(model, batch, THREAT, Noise(0, batch.example))
    assert x_adv.min().item() == pytest.approx(EPSILON)


def test_without_noise_it_is_fgsm(model: nn.Module, batch: Batch) -> None:
    noise = Noise(0, batch.example)
    one_step = Nfgsm(noise_scale=0.0)
    expected = FgsmMixed(clean_fraction=0.0).perturb(model, batch, THREAT, noise)
    assert torch.equal(one_step.perturb(model, batch, THREAT, noise), expected)
    model.eval()
    attacked = fgsm(model, batch.x, batch.y, THREAT, noise).x_adv
    one_step = Nfgsm(noise_scale=0.0, crafting="eval")
    assert torch.equal(one_step.perturb(model, batch, THREAT, noise), attacked)
    assert not torch.equal(Nfgsm(crafting="eval").perturb(model, batch, THREAT, noise), attacked)


def test_the_images_leave_the_ball_but_not_the_box(model: nn.Module, batch: Batch) -> None:
    assert not Nfgsm.within_budget
    x_adv = Nfgsm().perturb(model, batch, THREAT, Noise(0, batch.example))
    distance = THREAT.distance(x_adv, batch.x)
    assert (distance > 2 * EPSILON).all()
    assert (distance <= 3 * EPSILON * (1 + 1e-6)).all()
    assert x_adv.min() >= 0
    assert x_adv.max() <= 1


def test_noise_wider_than_the_box_is_possible(model: nn.Module, batch: Batch) -> None:
    # k epsilon and the step are above 1, which no linf budget may be.
    threat = ThreatModel("linf", 0.9)
    method = Nfgsm(noise_scale=3.0, step_size="2*epsilon")
    x_adv = method.perturb(model, batch, threat, Noise(0, batch.example))
    assert set(x_adv.unique().tolist()) <= {0.0, 1.0}


def test_the_mode_while_crafting_changes_the_images(model: nn.Module, batch: Batch) -> None:
    train, eval_ = (
        Nfgsm(crafting=mode).perturb(model, batch, THREAT, Noise(0, batch.example))
        for mode in ("train", "eval")
    )
    assert not torch.equal(train, eval_)


def test_an_l2_budget_is_refused(model: nn.Module, batch: Batch) -> None:
    with pytest.raises(ValueError, match="made for linf budgets, got l2; train with"):
        Nfgsm().perturb(model, batch, ThreatModel("l2", 0.5), Noise(0, batch.example))
