"""The messages: what was got, what was expected, the likely mend."""

import re

import pytest
import torch
from torch import nn

from advtrain.attacks.ascent import ascend
from advtrain.attacks.cw import cw
from advtrain.attacks.frozen import crafting
from advtrain.attacks.pgd import pgd
from advtrain.noise import Noise
from advtrain.threat import ThreatModel

X, Y = torch.full((2, 1, 2, 2), 0.5), torch.tensor([0, 1])
THREAT, NOISE = ThreatModel("linf", 0.1), Noise(0, torch.arange(2))


def linear(classes: int = 2) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(4, classes))


def test_several_restarts_from_one_start() -> None:
    message = "restarts=3 without a random start repeats one run; set random_start to true"
    with pytest.raises(ValueError, match=message):
        pgd(linear(), X, Y, THREAT, NOISE, restarts=3, random_start=False)


def test_an_iterate_that_cannot_be_judged() -> None:
    message = "the judged iterate is 'final', 'best' or 'any', got 'last'"
    with pytest.raises(ValueError, match=message):
        pgd(linear(), X, Y, THREAT, NOISE, iterate="last")


def test_a_model_with_one_class_has_no_target() -> None:
    message = "a target needs 2 classes or more, the model has 1"
    with pytest.raises(ValueError, match=message):
        pgd(linear(classes=1), X, torch.zeros_like(Y), THREAT, NOISE, targets=1)


def test_a_step_size_that_is_neither_pixels_nor_relative() -> None:
    with pytest.raises(ValueError, match="'eps/4' is neither pixel units"):
        pgd(linear(), X, Y, THREAT, NOISE, step_size="eps/4")


def test_a_model_with_one_class_has_no_margin() -> None:
    message = "the margin needs 2 classes or more, the model has 1"
    with pytest.raises(ValueError, match=message):
        cw(linear(classes=1), X, torch.zeros_like(Y), THREAT, NOISE)


def test_a_model_that_detaches_its_input() -> None:
    class Detached(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.detach().flatten(1)

    message = "the objective does not depend on the input: has the model detached it"
    with pytest.raises(ValueError, match=message):
        ascend(Detached(), X, X, lambda logits: logits.sum(1), THREAT, steps=1, step_size=0.1)


def test_an_unknown_mode_while_crafting() -> None:
    message = "the mode while crafting is 'eval' or 'train', got 'test'"
    with pytest.raises(ValueError, match=message), crafting(linear(), "test"):
        pass


def test_an_attack_that_fails_leaves_the_model_as_it_was() -> None:
    model = linear(classes=1).train()
    with pytest.raises(ValueError, match="margin"):
        cw(model, X, torch.zeros_like(Y), THREAT, NOISE)
    assert model.training
    assert all(weight.requires_grad for weight in model.parameters())


@pytest.mark.parametrize(
    ("norm", "epsilon", "message"),
    [
        ("linf", 8, "linf epsilon is in [0, 1] pixel units, got 8; did you mean 8/255?"),
        ("linf", -0.1, "linf epsilon is a length in pixel units, 0 or more, got -0.1"),
        ("l2", float("nan"), "l2 epsilon is a length in pixel units, 0 or more, got nan"),
        ("l2", float("inf"), "l2 epsilon is a length in pixel units, 0 or more, got inf"),
        ("l7", 0.1, "threat norm 'l7' is not known; it is one of ('linf', 'l2', 'l1')"),
    ],
)
def test_a_threat_model_that_cannot_be(norm: str, epsilon: float, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        ThreatModel(norm, epsilon)
