"""Verified predictions: what no attack changes, on a network that was trained for it."""

import copy
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from advtrain.attacks.attack import predictions
from advtrain.attacks.pgd import pgd
from advtrain.bounds import interval
from advtrain.certificates.certificate import Certificate, Certified
from advtrain.certificates.crown import crown
from advtrain.certificates.ibp import ibp
from advtrain.noise import Noise
from advtrain.threat import ThreatModel
from tests.certificates.networks import CLASSES, THREAT, blobs, trained

CERTIFICATES = [ibp, crown, partial(crown, intermediate="ibp")]
IDS = ["ibp", "crown", "crown-ibp"]
EVERY = pytest.mark.parametrize("certificate", CERTIFICATES, ids=IDS)
EXAMPLES = 90


def certified(certificate: Certificate, epsilon: float = THREAT.epsilon) -> Certified:
    x, y = blobs(EXAMPLES, seed=2)
    threat = ThreatModel("linf", epsilon)
    return certificate(trained(), x, y, threat, Noise(0, torch.arange(EXAMPLES)))


@EVERY
def test_no_attack_changes_a_verified_prediction(certificate: Certificate) -> None:
    x, _ = blobs(EXAMPLES, seed=2)
    found = certified(certificate)
    verified = found.radius > 0
    assert 20 < verified.sum() < EXAMPLES
    attacked = pgd(
        trained(), x, found.prediction, THREAT, Noise(1, torch.arange(EXAMPLES)), steps=40
    )
    changed = predictions(trained()(attacked.x_adv)) != found.prediction
    assert changed.any()
    assert not (changed & verified).any()


@EVERY
def test_the_prediction_is_certified_right_or_wrong(certificate: Certificate) -> None:
    x, y = blobs(EXAMPLES, seed=2)
    found = certified(certificate)
    with torch.no_grad():
        assert torch.equal(found.prediction, predictions(trained()(x)))
    wrong = certificate(trained(), x, (y + 1) % CLASSES, THREAT, Noise(0, y))
    assert all(torch.equal(one, other) for one, other in zip(found, wrong, strict=True))


@EVERY
def test_the_radius_is_the_budget_or_nothing(certificate: Certificate) -> None:
    for epsilon in (0.01, 0.05):
        found = certified(certificate, epsilon)
        assert found.radius.dtype == torch.float64
        assert set(found.radius.tolist()) == {0.0, epsilon}


@EVERY
def test_a_larger_budget_is_verified_for_no_more_examples(certificate: Certificate) -> None:
    counts = [int((certified(certificate, e).radius > 0).sum()) for e in (0.01, 0.05, 0.1, 0.4)]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > counts[-1] == 0


def test_verified_means_that_the_worst_case_keeps_the_class() -> None:
    x, _ = blobs(EXAMPLES, seed=2)
    found, network = certified(ibp), copy.deepcopy(trained()).double()
    worst = interval.worst_case_logits(network, x.double(), found.prediction, THREAT.epsilon)
    others = worst.scatter(1, found.prediction[:, None], -torch.inf)
    assert ((others < 0).all(1) == (found.radius > 0)).all()


def test_linear_bounds_verify_more_of_this_network() -> None:
    # Not a law: on a network trained for intervals they are tighter on every example here.
    by_intervals, by_lines = certified(ibp).radius > 0, certified(crown).radius > 0
    assert not (by_intervals & ~by_lines).any()
    assert by_lines.sum() > by_intervals.sum()


def test_what_is_spent() -> None:
    assert (certified(ibp).forwards == 3).all()
    assert (certified(ibp).backwards == 0).all()
    assert (certified(partial(crown, intermediate="ibp")).backwards == CLASSES).all()
    assert (certified(crown).backwards > CLASSES).any()


@EVERY
def test_the_model_is_left_as_it_was_found(certificate: Certificate) -> None:
    x, y = blobs(6, seed=3)
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(72, 3)
    )
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    certificate(model.train(), x, y, THREAT, Noise(0, y))
    assert all(module.training for module in model.modules())
    assert all(weight.requires_grad and weight.grad is None for weight in model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(weight.dtype == torch.float32 for weight in model.parameters())


@EVERY
def test_logits_that_are_not_finite_prove_nothing(certificate: Certificate) -> None:
    x, y = blobs(4, seed=3)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    nn.init.constant_(model[1].weight, torch.inf)
    found = certificate(model, x, y, THREAT, Noise(0, y))
    assert found.prediction.tolist() == [-1] * 4
    assert found.radius.tolist() == [0.0] * 4


@EVERY
def test_a_tie_is_not_verified(certificate: Certificate) -> None:
    x, y = blobs(4, seed=3)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    for weight in model.parameters():
        nn.init.zeros_(weight)
    assert certificate(model, x, y, THREAT, Noise(0, y)).radius.tolist() == [0.0] * 4


@EVERY
def test_another_norm_is_refused(certificate: Certificate) -> None:
    x, y = blobs(4, seed=3)
    with pytest.raises(ValueError, match=r"certifies linf budgets, got l2 0.5; .* use smoothing"):
        certificate(trained(), x, y, ThreatModel("l2", 0.5), Noise(0, y))


@EVERY
def test_a_network_without_bounds_is_refused(certificate: Certificate) -> None:
    class Other(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)

    x, y = blobs(4, seed=3)
    with pytest.raises(ValueError, match="layer 0 of the network, Other, cannot be bounded"):
        certificate(Other(), x, y, THREAT, Noise(0, y))
