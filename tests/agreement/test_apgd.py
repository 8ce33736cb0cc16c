"""Auto-PGD beside torchattacks' and the Adversarial Robustness Toolbox's, on a robust network.

Compared are the verdicts, example by example, with AutoAttack's settings (100 steps, rho 0.75).
torchattacks has the official algorithm for linf and l2; towards targets in l2 it gives all examples
the step size of the first, which these verdicts survive. The toolbox has a variant that judges the
last iterate of each start. Neither has the l1 version.
"""

from collections.abc import Callable
from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from advtrain.attacks.apgd import apgd
from advtrain.attacks.attack import predictions
from advtrain.noise import Noise
from advtrain.threat import ThreatModel

pytestmark = pytest.mark.filterwarnings("ignore")  # of the other packages' own

Network = tuple[nn.Module, Tensor, Tensor]

BUDGETS = {"linf": 0.15, "l2": 1.0}
LOSSES = {"cross_entropy": "ce", "dlr": "dlr"}

norms = pytest.mark.parametrize("norm", BUDGETS)


def robust(network: Network, x_adv: Tensor) -> Tensor:
    model, _, y = network
    with torch.no_grad():
        return predictions(model(x_adv)) == y


def noise_for(x: Tensor) -> Noise:
    return Noise(0, torch.arange(len(x)))


def assert_agreement(ours: Tensor, theirs: Tensor) -> None:
    """The same verdict on 98 % of the examples, and accuracies within a point."""
    assert 0.2 < ours.float().mean() < 0.8
    assert (ours == theirs).float().mean() >= 0.98
    assert abs(int(ours.sum()) - int(theirs.sum())) <= max(0.01 * len(ours), 1)


def drawing(draw: Callable[..., Tensor]) -> Callable[[torch.Size], Tensor]:
    """A generator in the place of torch's, which is asked for numbers of a whole batch's shape."""
    return lambda shape: draw(tuple(shape[1:]))


@norms
@pytest.mark.parametrize("objective", LOSSES)
def test_the_verdicts_from_the_same_starts_are_torchattacks(
    norm: str, objective: str, robust_network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One start each: the verdicts of other starts differ on up to 6 % of the examples."""
    torchattacks = pytest.importorskip("torchattacks")
    model, x, y = robust_network
    noise, clean = noise_for(x), robust(robust_network, x)
    ours = apgd(model, x, y, ThreatModel(norm, BUDGETS[norm]), noise, objective=objective)
    # Both attack only the examples that are right when clean.
    same = noise.fold_in(0).take(clean)
    attack = torchattacks.APGD(
        model,
        norm={"linf": "Linf", "l2": "L2"}[norm],
        eps=BUDGETS[norm],
        steps=100,
        loss=LOSSES[objective],
    )
    with monkeypatch.context() as patched:
        patched.setattr(torch, "rand", drawing(same.uniform))
        patched.setattr(torch, "randn", drawing(same.normal))
        theirs = attack(x, y)
    assert_agreement(robust(robust_network, ours.x_adv), robust(robust_network, theirs))


@norms
def test_the_verdicts_towards_nine_targets_are_torchattacks(
    norm: str, robust_network: Network
) -> None:
    """The targeted difference of logits ratio, each with its own random starts."""
    torchattacks = pytest.importorskip("torchattacks")
    model, x, y = robust_network
    threat = ThreatModel(norm, BUDGETS[norm])
    ours = apgd(model, x, y, threat, noise_for(x), objective="dlr", targets=9)
    attack = torchattacks.APGDT(
        model,
        norm={"linf": "Linf", "l2": "L2"}[norm],
        eps=BUDGETS[norm],
        steps=100,
        n_classes=10,
    )
    assert_agreement(robust(robust_network, ours.x_adv), robust(robust_network, attack(x, y)))


def test_the_verdicts_of_five_restarts_are_the_toolboxs(robust_network: Network) -> None:
    """linf and the cross-entropy, each with its own random starts."""
    attacks = pytest.importorskip("art.attacks.evasion")
    classification = pytest.importorskip("art.estimators.classification")
    model, x, y = robust_network
    threat = ThreatModel("linf", BUDGETS["linf"])
    ours = apgd(model, x, y, threat, noise_for(x), restarts=5)
    classifier = classification.PyTorchClassifier(
        deepcopy(model), nn.CrossEntropyLoss(), (1, 8, 8), 10, clip_values=(0, 1), device_type="cpu"
    )
    attack = attacks.AutoProjectedGradientDescent(
        classifier,
        norm=np.inf,
        eps=threat.epsilon,
        eps_step=2 * threat.epsilon,
        max_iter=100,
        nb_random_init=5,
        batch_size=len(x),
        loss_type="cross_entropy",
        verbose=False,
    )
    np.random.seed(0)  # the package draws from it
    theirs = torch.from_numpy(attack.generate(x.numpy(), y.numpy()))
    assert_agreement(robust(robust_network, ours.x_adv), robust(robust_network, theirs))
