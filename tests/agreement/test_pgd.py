"""The ascents beside those of torchattacks, foolbox and the Adversarial Robustness Toolbox.

From the clean image no random number enters and the iterates are the same up to rounding. They are
compared in float64: in float32 a gradient entry near zero can round to either sign.
"""

from collections.abc import Callable
from copy import deepcopy
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from advtrain.attacks.attack import Attacked, predictions
from advtrain.attacks.cw import cw
from advtrain.attacks.fgsm import fgsm
from advtrain.attacks.mifgsm import mifgsm
from advtrain.attacks.pgd import pgd
from advtrain.noise import Noise
from advtrain.threat import ThreatModel

pytestmark = pytest.mark.filterwarnings("ignore")  # of the other packages' own

Network = tuple[nn.Module, Tensor, Tensor]

BUDGETS = {"linf": 0.15, "l2": 1.0}
STEPS = 20


def doubled(network: Network) -> Network:
    model, x, y = network
    return deepcopy(model).double(), x.double(), y


def ours(attack: Callable[..., Attacked], network: Network, norm: str, **given: object) -> Tensor:
    model, x, y = network
    noise = Noise(0, torch.arange(len(x)))
    return attack(model, x, y, ThreatModel(norm, BUDGETS[norm]), noise, **given).x_adv


from_clean = {"steps": STEPS, "step_size": "epsilon/8", "random_start": False}


def torchattacks_iterates(name: str, network: Network, **given: object) -> Tensor:
    torchattacks = pytest.importorskip("torchattacks")
    model, x, y = network
    attack = getattr(torchattacks, name)(model, eps=BUDGETS["linf"], **given)
    found: Tensor = attack(x, y)
    return found


def foolbox_iterates(name: str, network: Network, norm: str, **given: object) -> Tensor:
    foolbox = pytest.importorskip("foolbox")
    model, x, y = network
    attack = getattr(foolbox.attacks, name)(**given)
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    _, found, _ = attack(wrapped, x, y, epsilons=BUDGETS[norm])
    return found


def toolbox_iterates(name: str, network: Network, norm: str, **given: object) -> Tensor:
    pytest.importorskip("art")
    import numpy as np
    from art.attacks import evasion
    from art.estimators.classification import PyTorchClassifier

    model, x, y = network
    classifier = PyTorchClassifier(
        model, nn.CrossEntropyLoss(), tuple(x.shape[1:]), 10, clip_values=(0.0, 1.0)
    )
    attack = getattr(evasion, name)(
        classifier,
        norm={"linf": np.inf, "l2": 2}[norm],
        eps=BUDGETS[norm],
        batch_size=len(x),
        verbose=False,
        **given,
    )
    return torch.from_numpy(attack.generate(x.numpy(), y.numpy())).to(x.dtype)


def assert_close(found: Tensor, expected: Tensor, network: Network) -> None:
    """To 1e-6 of a pixel, and with verdicts of both kinds."""
    model, _, y = network
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    right = predictions(model(found)) == y
    assert 0 < right.sum() < len(y)


def test_pgd_is_torchattacks(robust_network: Network) -> None:
    network = doubled(robust_network)
    expected = torchattacks_iterates(
        "PGD", network, alpha=BUDGETS["linf"] / 8, steps=STEPS, random_start=False
    )
    assert_close(ours(pgd, network, "linf", **from_clean), expected, network)


def test_pgd_from_the_same_start_is_torchattacks(
    robust_network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = doubled(robust_network)
    _, x, _ = network
    threat = ThreatModel("linf", BUDGETS["linf"])
    start = threat.random_start(x, Noise(0, torch.arange(len(x))))
    with monkeypatch.context() as patch:
        patch.setattr(Tensor, "uniform_", lambda drawn, low, high: drawn.copy_(start - x))
        expected = torchattacks_iterates(
            "PGD", network, alpha=BUDGETS["linf"] / 8, steps=STEPS, random_start=True
        )
    found = ours(pgd, network, "linf", steps=STEPS, step_size="epsilon/8")
    assert_close(found, expected, network)


def test_in_float32_hardly_a_pixel_differs_and_no_verdict(robust_network: Network) -> None:
    model, _, y = robust_network
    expected = torchattacks_iterates(
        "PGD", robust_network, alpha=BUDGETS["linf"] / 8, steps=STEPS, random_start=False
    )
    found = ours(pgd, robust_network, "linf", **from_clean)
    assert ((found - expected).abs() < 1e-6).float().mean() > 0.995
    assert torch.equal(predictions(model(found)) == y, predictions(model(expected)) == y)


@pytest.mark.parametrize("decay", [1.0, 0.5])
def test_mifgsm_is_torchattacks(decay: float, robust_network: Network) -> None:
    network = doubled(robust_network)
    expected = torchattacks_iterates(
        "MIFGSM", network, alpha=BUDGETS["linf"] / 8, steps=STEPS, decay=decay
    )
    found = ours(mifgsm, network, "linf", decay=decay, **from_clean)
    assert_close(found, expected, network)


def test_fgsm_is_torchattacks(robust_network: Network) -> None:
    network = doubled(robust_network)
    assert_close(ours(fgsm, network, "linf"), torchattacks_iterates("FGSM", network), network)


@pytest.mark.parametrize(("norm", "name"), [("linf", "LinfPGD"), ("l2", "L2PGD")])
def test_pgd_is_foolbox(norm: str, name: str, robust_network: Network) -> None:
    network = doubled(robust_network)
    expected = foolbox_iterates(
        name, network, norm, rel_stepsize=1 / 8, steps=STEPS, random_start=False
    )
    assert_close(ours(pgd, network, norm, **from_clean), expected, network)


@pytest.mark.parametrize(("norm", "name"), [("linf", "LinfFastGradientAttack"), ("l2", "FGM")])
def test_fgsm_is_foolbox(norm: str, name: str, robust_network: Network) -> None:
    network = doubled(robust_network)
    expected = foolbox_iterates(name, network, norm, random_start=False)
    assert_close(ours(fgsm, network, norm), expected, network)


@pytest.mark.parametrize("norm", BUDGETS)
def test_pgd_is_the_toolbox(norm: str, robust_network: Network) -> None:
    """It computes in float32 whatever it is given.

    In l2 it clamps to the box before it projects on the ball, so that only the verdicts compare.
    """
    expected = toolbox_iterates(
        "ProjectedGradientDescent",
        robust_network,
        norm,
        eps_step=BUDGETS[norm] / 8,
        max_iter=STEPS,
        num_random_init=0,
    )
    found = ours(pgd, robust_network, norm, **from_clean)
    if norm == "linf":
        assert ((found - expected).abs() < 1e-6).float().mean() > 0.995
    model, _, y = robust_network
    right = [predictions(model(x_adv)) == y for x_adv in (found, expected)]
    assert (right[0] != right[1]).sum() <= 2
    assert 0 < right[0].sum() < len(y)


def test_the_margins_ascent_is_foolbox_on_its_own_objective(robust_network: Network) -> None:
    """foolbox has no such attack; its loop is given the margin to raise."""
    foolbox, ep = pytest.importorskip("foolbox"), pytest.importorskip("eagerpy")
    network = doubled(robust_network)
    model, x, y = network

    class Margin(foolbox.attacks.LinfPGD):
        def get_loss_fn(self, wrapped: object, labels: object) -> Callable[[object], object]:
            def loss(inputs: object) -> object:
                logits = model(inputs.raw)
                own = logits.gather(1, y[:, None]).squeeze(1)
                others = logits.masked_fill(nn.functional.one_hot(y, 10).bool(), -torch.inf)
                return ep.astensor((others.amax(1) - own).sum())

            return loss

    attack = Margin(rel_stepsize=1 / 8, steps=STEPS, random_start=False)
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    _, expected, _ = attack(wrapped, x, y, epsilons=BUDGETS["linf"])
    found = ours(partial(cw, kappa=torch.inf), network, "linf", **from_clean)
    assert_close(found, expected, network)
