"""Certified rows: one per example, whatever the batch, and no more than the certificate says."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from advtrain.certificates.certificate import Certificate, Certified
from advtrain.certificates.crown import crown
from advtrain.certificates.ibp import ibp
from advtrain.certificates.smoothing import smoothing
from advtrain.data.store import Split
from advtrain.evaluation.certify import COLUMNS, certify
from advtrain.noise import Noise
from advtrain.results.schema import CERTIFIED
from advtrain.threat import ThreatModel
from tests.evaluation.memorised import fitted, random_split

CPU = torch.device("cpu")
LINF = ThreatModel("linf", 0.01)
SMOOTHING = partial(smoothing, sigma=0.1, selection=10, samples=60, alpha=0.05)
CASES = [(ibp, LINF), (crown, LINF), (SMOOTHING, None)]
EVERY = pytest.mark.parametrize(("certificate", "threat"), CASES, ids=["ibp", "crown", "smoothing"])


@pytest.fixture(scope="module")
def split() -> Split:
    return random_split(70)


@pytest.fixture(scope="module")
def model(split: Split) -> nn.Module:
    """A small network that has learnt most of the labels by heart."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            *(nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU()),
            *(nn.Flatten(), nn.Linear(128, 16), nn.ReLU(), nn.Linear(16, 5)),
        )
    return fitted(model, split, 0.02, 12)


@EVERY
def test_one_row_per_example_with_the_types_of_the_table(
    model: nn.Module, split: Split, certificate: Certificate, threat: ThreatModel | None
) -> None:
    rows = certify(model, certificate, threat, split, 0, CPU, 32)
    assert {name: column.dtype for name, column in rows.items()} == COLUMNS
    assert list(COLUMNS) == CERTIFIED.names[4:]
    assert rows["example"].tolist() == split.example.tolist()
    assert rows["label"].tolist() == split.labels.tolist()
    assert 0 < (rows["radius"] > 0).sum() < len(split)


@EVERY
def test_rows_say_what_the_certificate_says(
    model: nn.Module, split: Split, certificate: Certificate, threat: ThreatModel | None
) -> None:
    rows = certify(model, certificate, threat, split, 3, CPU, 100)
    x = split.images.float() / 255
    budget = () if threat is None else (threat,)
    found = certificate(model, x, split.labels, *budget, Noise(3, split.example))
    assert rows["prediction"].tolist() == found.prediction.tolist()
    assert rows["radius"].tolist() == found.radius.tolist()
    assert rows["forward"].tolist() == found.forwards.tolist()
    assert rows["backward"].tolist() == found.backwards.tolist()


@EVERY
@pytest.mark.parametrize("batch_size", [1, 7, 33])
def test_rows_do_not_depend_on_the_batch_size(
    model: nn.Module,
    split: Split,
    certificate: Certificate,
    threat: ThreatModel | None,
    batch_size: int,
) -> None:
    expected = certify(model, certificate, threat, split, 0, CPU, 70)
    found = certify(model, certificate, threat, split, 0, CPU, batch_size)
    for name, column in expected.items():
        assert column.tobytes() == found[name].tobytes(), name


def test_rows_do_not_depend_on_the_draws_at_once(model: nn.Module, split: Split) -> None:
    expected = certify(model, SMOOTHING, None, split, 0, CPU, 70)
    for at_once, batch_size in ((1, 70), (60, 7)):
        found = certify(
            model, partial(SMOOTHING, sample_batch=at_once), None, split, 0, CPU, batch_size
        )
        assert all(np.array_equal(found[name], column) for name, column in expected.items())


def test_the_seed_moves_the_noise(model: nn.Module, split: Split) -> None:
    one, other = (certify(model, SMOOTHING, None, split, seed, CPU, 70) for seed in (0, 1))
    assert not np.array_equal(one["radius"], other["radius"])


def test_predictions_are_certified_right_or_wrong(model: nn.Module, split: Split) -> None:
    rows = certify(model, ibp, ThreatModel("linf", 0.001), split, 0, CPU, 70)
    with torch.no_grad():
        assert rows["prediction"].tolist() == model(split.images.float() / 255).argmax(1).tolist()
    assert ((rows["prediction"] != rows["label"]) & (rows["radius"] > 0)).any()


def test_a_split_without_examples_has_no_rows(model: nn.Module, split: Split) -> None:
    calls: list[int] = []
    rows = certify(model, ibp, LINF, split.take(slice(0)), 0, CPU, 32, calls.append)
    assert {name: (len(c), c.dtype) for name, c in rows.items()} == {
        name: (0, dtype) for name, dtype in COLUMNS.items()
    }
    assert calls == []


def test_on_batch_hears_how_many_are_done(model: nn.Module, split: Split) -> None:
    calls: list[int] = []
    certify(model, ibp, LINF, split, 0, CPU, 40, calls.append)
    assert calls == [40, 70]


@EVERY
def test_the_model_is_left_as_it_was_found(
    model: nn.Module, split: Split, certificate: Certificate, threat: ThreatModel | None
) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    try:
        certify(model.train(), certificate, threat, split, 0, CPU, 64)
        assert all(module.training for module in model.modules())
    finally:
        model.eval()
    assert all(weight.requires_grad and weight.grad is None for weight in model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_budget_is_given_to_those_that_take_one(model: nn.Module, split: Split) -> None:
    with pytest.raises(ValueError, match="ibp certifies at a budget and needs a threat model"):
        certify(model, ibp, None, split, 0, CPU, 32)
    with pytest.raises(ValueError, match=r"smoothing finds a radius without a budget, got linf"):
        certify(model, SMOOTHING, LINF, split, 0, CPU, 32)


@pytest.mark.parametrize(
    ("prediction", "radius", "words"),
    [
        (0, -0.1, "careless returned a radius that is not a finite number, 0 or more"),
        (0, float("nan"), "careless returned a radius that is not a finite number"),
        (0, float("inf"), "careless returned a radius that is not a finite number"),
        (-1, 0.1, "careless returned a radius for an example that it makes no prediction of"),
    ],
)
def test_a_radius_that_is_none_is_refused(
    model: nn.Module, split: Split, prediction: int, radius: float, words: str
) -> None:
    def careless(model: nn.Module, x: Tensor, y: Tensor, noise: Noise) -> Certified:
        radii = torch.zeros(len(x), dtype=torch.float64)
        radii[-1] = radius
        return Certified(torch.full_like(y, prediction), radii, y, y)

    with pytest.raises(ValueError, match=words):
        certify(model, careless, None, split, 0, CPU, 70)
