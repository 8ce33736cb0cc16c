"""What each attack spends, counted at the network: any pass more is a pass too many.

The counts are those of an example that withstands the attack, on a network of four classes, alone
in its batch; they do not depend on the machine.
"""

from collections.abc import Callable
from functools import partial
from importlib import import_module

import pytest
import torch
from torch import nn

from advtrain.attacks.attack import Attacked, predictions
from advtrain.attacks.cw import cw
from advtrain.attacks.fgsm import fgsm
from advtrain.attacks.mifgsm import mifgsm
from advtrain.attacks.pgd import pgd
from advtrain.graph.passes import evaluation_passes
from advtrain.params.signatures import signature
from advtrain.threat import ThreatModel, Transformation
from tests.attacks.test_attack_contracts import counted, noise_for

EXPECTED: list[tuple[Callable[..., Attacked], dict[str, object], int, int]] = [
    # An ascent of k steps spends k + 1 forward passes, the last for the verdict, and k backward.
    (fgsm, {}, 2, 1),
    (fgsm, {"targets": 3}, 1 + 3 * 2, 3),
    (pgd, {}, 21, 20),
    (pgd, {"steps": 7}, 8, 7),
    (pgd, {"iterate": "best"}, 21, 20),
    (pgd, {"iterate": "any"}, 21, 20),
    (pgd, {"steps": 50, "restarts": 10}, 510, 500),
    # Targets spend one more, of the clean image.
    (pgd, {"targets": 3}, 1 + 3 * 21, 3 * 20),
    (pgd, {"targets": 3, "restarts": 2, "iterate": "any"}, 1 + 6 * 21, 6 * 20),
    (cw, {}, 21, 20),
    (cw, {"iterate": "any", "restarts": 3}, 63, 60),
    (cw, {"targets": 2}, 1 + 2 * 21, 2 * 20),
    (mifgsm, {}, 11, 10),
    (mifgsm, {"iterate": "any"}, 11, 10),
    (mifgsm, {"targets": 3}, 1 + 3 * 11, 3 * 10),
]


@pytest.mark.parametrize(("attack", "given", "forwards", "backwards"), EXPECTED)
def test_a_robust_example_costs_so_many_passes(
    attack: Callable[..., Attacked],
    given: dict[str, object],
    forwards: int,
    backwards: int,
    trained: nn.Module,
    examples: tuple[torch.Tensor, torch.Tensor],
) -> None:
    x = examples[0][:1]
    with torch.no_grad():
        y = predictions(trained(x))
    model, rows = counted(trained)
    found = partial(attack, **given)(model, x, y, ThreatModel("linf", 1e-4), noise_for(1))
    assert rows == {"forward": forwards, "backward": backwards}
    assert (found.forwards.item(), found.backwards.item()) == (forwards, backwards)


@pytest.mark.parametrize(
    ("attack", "given", "forwards", "backwards"),
    [
        (fgsm, {}, 2, 1),
        (fgsm, {"targets": 3}, 1, 0),
        (pgd, {}, 21, 20),
        (pgd, {"restarts": 10}, 21, 20),
        (pgd, {"iterate": "any"}, 1, 1),
        (pgd, {"iterate": "any", "restarts": 10}, 1, 1),
        (pgd, {"targets": 3}, 1, 0),
        (cw, {"iterate": "any"}, 1, 1),
        (mifgsm, {"iterate": "any"}, 1, 1),
    ],
)
def test_a_misclassified_example_costs_so_many_passes(
    attack: Callable[..., Attacked],
    given: dict[str, object],
    forwards: int,
    backwards: int,
    trained: nn.Module,
    examples: tuple[torch.Tensor, torch.Tensor],
) -> None:
    """It is at every iterate; with "any" the first is found at the first stop."""
    x = examples[0][:1]
    with torch.no_grad():
        y = (predictions(trained(x)) + 1) % 4
    model, rows = counted(trained)
    found = partial(attack, **given)(model, x, y, ThreatModel("linf", 1e-4), noise_for(1))
    assert rows == {"forward": forwards, "backward": backwards}
    assert (found.forwards.item(), found.backwards.item()) == (forwards, backwards)


@pytest.mark.parametrize(
    ("module", "given", "norm"),
    [
        ("fgsm", {}, "linf"),
        ("pgd", {"steps": 7, "restarts": 2}, "linf"),
        ("pgd", {"steps": 7, "targets": 3}, "linf"),
        ("mifgsm", {}, "linf"),
        ("apgd", {"steps": 20}, "linf"),
        ("apgd", {"steps": 10, "objective": "dlr", "targets": 3, "restarts": 2}, "linf"),
        ("apgd", {"steps": 10, "eot": 4}, "linf"),
        ("fab", {"steps": 10, "targets": 3}, "linf"),
        ("random_noise", {"draws": 4}, "linf"),
        ("corruption", {}, "corruption"),
    ],
)
def test_the_passes_that_a_plan_expects_are_those_of_a_robust_example(
    module: str,
    given: dict[str, object],
    norm: str,
    trained: nn.Module,
    examples: tuple[torch.Tensor, torch.Tensor],
) -> None:
    x = examples[0][:1]
    with torch.no_grad():
        y = predictions(trained(x))
    attack = getattr(import_module(f"advtrain.attacks.{module}"), module)
    threat = ThreatModel("linf", 1e-4) if norm == "linf" else Transformation(norm)
    found = attack(trained, x, y, threat, noise_for(1), **given)
    parameters = {name: one.default for name, one in signature("attacks", module).items()} | given
    expected = evaluation_passes(module, parameters, norm)
    runs = int(parameters.get("restarts", 1)) * max(1, int(parameters.get("targets", 0)))
    # Beside them the clean image, and a verdict for each run.
    extra = found.forwards.item() + found.backwards.item() - expected
    assert 0 <= extra <= 1 + runs * int(parameters.get("eot", 1))


def test_autoattack_is_expected_to_cost_what_is_published_of_it() -> None:
    assert evaluation_passes("autoattack", {"version": "standard"}, "linf") == pytest.approx(
        9700, rel=0.01
    )
    few = evaluation_passes("autoattack", {"version": "rand"}, "linf")
    assert few == pytest.approx(2 * 20 * 201)
    more = evaluation_passes("autoattack", {"version": "plus"}, "linf")
    assert more > evaluation_passes("autoattack", {"version": "standard"}, "l1")
