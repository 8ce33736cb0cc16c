"""AutoAttack's versions have the published stages, iterations and order."""

from functools import partial

import pytest
import torch
from torch import nn

from advtrain.attacks import apgd, fab, square
from advtrain.attacks.attack import predictions
from advtrain.attacks.autoattack import autoattack, ensemble
from advtrain.attacks.ensemble import Ensemble
from advtrain.attacks.fgsm import fgsm
from advtrain.attacks.pgd import pgd
from advtrain.noise import Noise
from advtrain.params.signatures import signature
from advtrain.threat import ThreatModel

Examples = tuple[torch.Tensor, torch.Tensor]

APGD, FAB, SQUARE = apgd.apgd, fab.fab, square.square


def described(norm: str, version: str) -> list[tuple[str, object, dict[str, object]]]:
    """Each stage with all of its parameters, those by default too."""
    found = []
    for name, attack in ensemble(ThreatModel(norm, 0.5), version=version).stages.items():
        function = getattr(attack, "func", attack)
        defaults = signature("attacks", function.__name__)
        values = {key: one.default for key, one in defaults.items()}
        found.append((name, function, {**values, **getattr(attack, "keywords", {})}))
    return found


def test_the_standard_version() -> None:
    """Croce and Hein 2020, section 6 and the official `set_version`."""
    for norm in ("linf", "l2"):
        ce, targeted, boundary, black_box = described(norm, "standard")
        assert [one[0] for one in (ce, targeted, boundary, black_box)] == [
            *("apgd-ce", "apgd-t", "fab-t", "square")
        ]
        assert [one[1] for one in (ce, targeted, boundary, black_box)] == [APGD, APGD, FAB, SQUARE]
        assert ce[2] == {
            "objective": "cross_entropy", "targets": 0, "steps": 100, "restarts": 1,
            "rho": 0.75, "eot": 1, "enlarged": False,
        }  # fmt: skip
        assert targeted[2] == {**ce[2], "objective": "dlr", "targets": 9}
        assert (boundary[2]["targets"], boundary[2]["steps"], boundary[2]["restarts"]) == (
            9,
            100,
            1,
        )
        assert black_box[2]["queries"] == 5000
        assert black_box[2]["initial_share"] == 0.8
        assert black_box[2]["rescaled"] is False
        assert black_box[2]["reach"] == "published"


def test_the_l1_version_has_restarts_and_enlarged_balls() -> None:
    ce, targeted, boundary, _ = described("l1", "standard")
    assert (ce[2]["restarts"], ce[2]["enlarged"]) == (5, True)
    assert [targeted[2][key] for key in ("restarts", "targets", "enlarged")] == [1, 5, True]
    assert boundary[2]["targets"] == 9


def test_the_other_versions() -> None:
    plus = described("linf", "plus")
    assert [name for name, _, _ in plus] == [
        *("apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t")
    ]
    assert [one[2]["restarts"] for one in plus if one[1] is not SQUARE] == [5, 5, 5, 1, 1]
    assert [one[2]["targets"] for one in plus if one[1] is not SQUARE] == [0, 0, 0, 9, 9]
    rand = described("l2", "rand")
    assert [(name, values["eot"]) for name, _, values in rand] == [
        ("apgd-ce", 20),
        ("apgd-dlr", 20),
    ]


def test_an_ensemble_shows_a_stage_only_what_is_left(
    trained: nn.Module, examples: Examples
) -> None:
    x, y = examples
    y = y.clone()
    y[:3] = (y[:3] + 1) % 4  # misclassified without an attack
    threat, noise = ThreatModel("linf", 0.1), Noise(0, torch.arange(len(x)))
    weak, strong = fgsm, partial(pgd, steps=3)
    both = Ensemble({"weak": weak, "strong": strong})
    found = both(trained, x, y, threat, noise)
    clean = predictions(trained(x)) == y
    first = weak(trained, x, y, threat, both.noise(noise, "weak"))
    fooled = clean & (predictions(trained(first.x_adv)) != y)
    robust = clean & ~fooled
    assert 3 < fooled.sum() < clean.sum()
    assert torch.equal(found.x_adv[~clean], x[~clean])
    assert torch.equal(found.x_adv[fooled], first.x_adv[fooled])
    assert found.forwards[~clean].unique().tolist() == [1]
    assert found.forwards[fooled].unique().tolist() == [1 + 2 + 1]
    assert found.forwards[robust].unique().tolist() == [1 + 2 + 1 + 4 + 1]
    second = strong(trained, x, y, threat, both.noise(noise, "strong"))
    won = robust & (predictions(trained(second.x_adv)) != y)
    assert torch.equal(found.x_adv[won], second.x_adv[won])


def test_nothing_is_left_of_an_undefended_network(trained: nn.Module, examples: Examples) -> None:
    x, y = (part[:40] for part in examples)
    threat, noise = ThreatModel("linf", 0.5), Noise(0, torch.arange(40))
    found = autoattack(trained, x, y, threat, noise)
    assert (predictions(trained(found.x_adv)) != y).all()
    assert (found.forwards + found.backwards).float().mean() < 60
    assert (threat.distance(found.x_adv, x) <= 0.5 + 1e-6).all()


def test_too_few_classes_are_refused() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    x = torch.full((32, 1, 8, 8), 0.5)
    y = model(x).argmax(1)
    with pytest.raises(ValueError, match="4 classes"):
        autoattack(model, x, y, ThreatModel("linf", 1e-4), Noise(0, torch.arange(32)))
