"""The smallest perturbations beside those of torchattacks and foolbox, where they are installed."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from advtrain.attacks.attack import Attacked, predictions
from advtrain.attacks.cw_l2 import cw_l2
from advtrain.attacks.deepfool import deepfool
from advtrain.noise import Noise
from advtrain.threat import ThreatModel

pytestmark = pytest.mark.filterwarnings("ignore")  # of the other packages' own

Network = tuple[nn.Module, Tensor, Tensor]

EXAMPLES = 32
ANYWHERE = {"linf": ThreatModel("linf", 1.0), "l2": ThreatModel("l2", 100.0)}
CLOSE = 0.03


@pytest.fixture(scope="module")
def attacked(robust_network: Network) -> Network:
    """The first examples that the network gets right."""
    model, x, y = robust_network
    right = (predictions(model(x)) == y).nonzero().squeeze(1)[:EXAMPLES]
    return model, x[right], y[right]


def ours(attack: Callable[..., Attacked], norm: str, network: Network, **chosen: Any) -> float:
    """The mean distance; every example is misclassified."""
    model, x, y = network
    x_adv = attack(model, x, y, ANYWHERE[norm], Noise(0, torch.arange(len(x))), **chosen).x_adv
    assert (predictions(model(x_adv)) != y).all()
    return ANYWHERE[norm].distance(x_adv, x).mean().item()


def foolbox_distance(name: str, norm: str, network: Network, **chosen: Any) -> float:
    foolbox = pytest.importorskip("foolbox")
    model, x, y = network
    bounded = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    _, x_adv, success = getattr(foolbox.attacks, name)(**chosen)(bounded, x, y, epsilons=None)
    assert success.all()
    return ANYWHERE[norm].distance(x_adv, x).mean().item()


@pytest.mark.parametrize(
    ("norm", "name"), [("l2", "L2DeepFoolAttack"), ("linf", "LinfDeepFoolAttack")]
)
def test_deepfool_beside_foolbox(norm: str, name: str, attacked: Network) -> None:
    found = ours(deepfool, norm, attacked)
    theirs = foolbox_distance(name, norm, attacked, steps=50, overshoot=0.02, candidates=10)
    assert found == pytest.approx(theirs, rel=CLOSE)


def test_deepfool_beside_torchattacks(attacked: Network) -> None:
    torchattacks = pytest.importorskip("torchattacks")
    model, x, y = attacked
    x_adv = torchattacks.DeepFool(model, steps=50, overshoot=0.02)(x, y)
    theirs = ANYWHERE["l2"].distance(x_adv, x).mean().item()
    assert ours(deepfool, "l2", attacked) == pytest.approx(theirs, rel=CLOSE)


def test_cw_l2_beside_foolbox(attacked: Network) -> None:
    """At a larger learning rate than the default, for fewer steps."""
    found = ours(
        cw_l2,
        "l2",
        attacked,
        steps=100,
        learning_rate=0.05,
        search_steps=5,
        initial_constant=0.1,
    )
    theirs = foolbox_distance(
        "L2CarliniWagnerAttack",
        "l2",
        attacked,
        steps=100,
        stepsize=0.05,
        binary_search_steps=5,
        initial_const=0.1,
        confidence=0,
        abort_early=True,
    )
    assert found < (1 + CLOSE) * theirs
