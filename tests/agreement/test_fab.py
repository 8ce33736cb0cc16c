"""FAB beside torchattacks, whose code is that of AutoAttack: verdicts and distances."""

import pytest
import torch
from torch import Tensor, nn

from advtrain.attacks.attack import predictions
from advtrain.attacks.fab import fab
from advtrain.noise import Noise
from advtrain.threat import ThreatModel

torchattacks = pytest.importorskip("torchattacks", reason="torchattacks is not installed")

pytestmark = pytest.mark.filterwarnings("ignore")  # of the other package's own

Network = tuple[nn.Module, Tensor, Tensor]

EXAMPLES = 50
NAMES = {"linf": "Linf", "l2": "L2", "l1": "L1"}
ANYWHERE = {"linf": 1.0, "l2": 8.0, "l1": 64.0}
"""Budgets that hold every image of 8 x 8 pixels."""


@torch.no_grad()
def wrong(model: nn.Module, images: Tensor, y: Tensor) -> Tensor:
    return predictions(model(images)) != y


def theirs(model: nn.Module, threat: ThreatModel, steps: int) -> "torchattacks.FAB":
    return torchattacks.FAB(
        model,
        norm=NAMES[threat.norm],
        eps=threat.epsilon,
        steps=steps,
        n_restarts=1,
        multi_targeted=True,
        n_classes=10,
    )


@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 0.15), ("l2", 1.0)])
def test_verdicts_agree(robust_network: Network, norm: str, epsilon: float) -> None:
    """As AutoAttack runs it: 9 targets, 100 steps, 1 restart."""
    model, x, y = (
        part if isinstance(part, nn.Module) else part[:EXAMPLES] for part in robust_network
    )
    threat, noise = ThreatModel(norm, epsilon), Noise(0, torch.arange(EXAMPLES))
    robust = ~wrong(model, fab(model, x, y, threat, noise, minimise=False).x_adv, y)
    x_adv = theirs(model, threat, steps=100)(x, y)
    inside = threat.distance(x_adv, x) <= epsilon * (1 + 1e-6)
    expected = ~(wrong(model, x_adv, y) & inside)
    assert 0.1 < expected.float().mean() < 0.9
    assert (robust.float().mean() - expected.float().mean()).abs() <= 0.01
    assert (robust == expected).float().mean() >= 0.98


@pytest.mark.parametrize("norm", NAMES)
@pytest.mark.parametrize("targets", [0, 3])
def test_distances_agree(robust_network: Network, norm: str, targets: int) -> None:
    model, x, y = robust_network
    right = (~wrong(model, x, y)).nonzero().squeeze(1)[:EXAMPLES]
    x, y, threat = x[right], y[right], ThreatModel(norm, ANYWHERE[norm])
    noise = Noise(0, torch.arange(EXAMPLES))
    found = fab(model, x, y, threat, noise, targets=targets, steps=30)
    other, expected = theirs(model, threat, steps=30), torch.full((EXAMPLES,), torch.inf)
    # Their targets are numbered from the right class, 1. Called as a whole, they would stop at the
    # first that is fooled within the budget.
    for target in range(2, 2 + max(targets, 1)):
        other.target_class = target
        run = other.attack_single_run_targeted if targets else other.attack_single_run
        x_adv = run(x, y)
        distance = threat.distance(x_adv, x).where(wrong(model, x_adv, y), torch.inf)
        expected = expected.minimum(distance)
    assert wrong(model, found.x_adv, y).all()
    reached = threat.distance(found.x_adv, x)
    assert abs(reached.mean() / expected.mean() - 1) <= 0.02
    assert ((reached / expected - 1).abs() <= 0.02).float().mean() >= 0.98
