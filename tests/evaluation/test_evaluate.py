import re
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from advtrain.attacks.attack import Attacked
from advtrain.attacks.cw import cw
from advtrain.attacks.fgsm import fgsm
from advtrain.attacks.pgd import pgd
from advtrain.data.store import Split
from advtrain.evaluation.evaluate import COLUMNS, evaluate
from advtrain.noise import Noise
from advtrain.threat import ThreatModel
from tests.evaluation.memorised import fitted, random_split

CPU = torch.device("cpu")
LINF, L2 = ThreatModel("linf", 0.02), ThreatModel("l2", 0.1)
PGD = partial(pgd, steps=4, restarts=2)


@pytest.fixture(scope="module")
def split() -> Split:
    return random_split(100)


@pytest.fixture(scope="module")
def model(split: Split) -> nn.Module:
    """A small convolutional network that has learnt about half of the labels by heart."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(256, 5),
        )
    return fitted(model, split, 0.01, 15)


def assert_equal(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    for name, column in one.items():
        assert column.tobytes() == other[name].tobytes(), name


def test_one_row_per_example_with_the_types_of_the_table(model: nn.Module, split: Split) -> None:
    rows = evaluate(model, PGD, LINF, split, 0, CPU, 32)
    assert {name: column.dtype for name, column in rows.items()} == COLUMNS
    assert {len(column) for column in rows.values()} == {100}
    assert rows["example"].tolist() == split.example.tolist()
    assert rows["label"].tolist() == split.labels.tolist()
    assert (rows["distance"] <= 0.02 + 1e-6).all()


def test_rows_say_what_the_model_and_the_attack_say(model: nn.Module, split: Split) -> None:
    rows = evaluate(model, PGD, LINF, split, 3, CPU, 100)
    x = split.images.float() / 255
    found = PGD(model, x, split.labels, LINF, Noise(3, split.example))
    with torch.no_grad():
        assert rows["clean_prediction"].tolist() == model(x).argmax(1).tolist()
        assert rows["adversarial_prediction"].tolist() == model(found.x_adv).argmax(1).tolist()
    assert rows["distance"].tolist() == LINF.distance(found.x_adv, x).tolist()
    assert rows["objective"].tolist() == found.objective.tolist()
    assert rows["forward"].tolist() == found.forwards.tolist()
    assert rows["backward"].tolist() == found.backwards.tolist()
    robust = rows["adversarial_prediction"] == rows["label"]
    clean = rows["clean_prediction"] == rows["label"]
    assert 10 < robust.sum() < clean.sum()


@pytest.mark.parametrize("threat", [LINF, L2], ids=["linf", "l2"])
@pytest.mark.parametrize("attack", [None, fgsm, PGD, partial(cw, steps=4)])
def test_rows_do_not_depend_on_the_batch_size(
    model: nn.Module, split: Split, attack: partial[Attacked] | None, threat: ThreatModel
) -> None:
    expected = evaluate(model, attack, threat, split, 0, CPU, 100)
    for batch_size in (7, 32, 64):
        assert_equal(evaluate(model, attack, threat, split, 0, CPU, batch_size), expected)


def test_rows_do_not_depend_on_the_order_or_on_the_other_examples(
    model: nn.Module, split: Split
) -> None:
    expected = evaluate(model, PGD, LINF, split, 0, CPU, 100)
    rows = torch.randperm(100, generator=torch.Generator().manual_seed(1))[:45]
    found = evaluate(model, PGD, LINF, split.take(rows), 0, CPU, 45)
    assert_equal(found, {name: column[rows.numpy()] for name, column in expected.items()})


def test_the_seed_moves_the_starts(model: nn.Module, split: Split) -> None:
    one, other = (evaluate(model, PGD, LINF, split, seed, CPU, 100) for seed in (0, 1))
    assert not np.array_equal(one["objective"], other["objective"])


@pytest.mark.parametrize("threat", [None, LINF], ids=["no threat", "linf"])
def test_without_an_attack_the_rows_are_the_clean_ones(
    model: nn.Module, split: Split, threat: ThreatModel | None
) -> None:
    rows = evaluate(model, None, threat, split, 0, CPU, 32)
    attacked = evaluate(model, PGD, LINF, split, 0, CPU, 32)
    assert np.array_equal(rows["clean_prediction"], attacked["clean_prediction"])
    assert np.array_equal(rows["adversarial_prediction"], rows["clean_prediction"])
    with torch.no_grad():
        logits = model(split.images.float() / 255)
    expected = nn.functional.cross_entropy(logits, split.labels, reduction="none")
    np.testing.assert_allclose(rows["objective"], expected.numpy(), rtol=1e-5)
    for name in ("distance", "forward", "backward"):
        assert not rows[name].any()


@pytest.mark.parametrize("attack", [None, PGD])
def test_a_split_without_examples_has_no_rows(
    model: nn.Module, split: Split, attack: partial[Attacked] | None
) -> None:
    calls: list[int] = []
    rows = evaluate(model, attack, LINF, split.take(slice(0)), 0, CPU, 32, calls.append)
    assert {name: (len(column), column.dtype) for name, column in rows.items()} == {
        name: (0, dtype) for name, dtype in COLUMNS.items()
    }
    assert calls == []


def test_on_batch_hears_how_many_are_done(model: nn.Module, split: Split) -> None:
    calls: list[int] = []
    evaluate(model, fgsm, LINF, split, 0, CPU, 40, calls.append)
    assert calls == [40, 80, 100]


def test_the_model_is_left_as_it_was_found(model: nn.Module, split: Split) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    try:
        evaluate(model.train(), PGD, LINF, split, 0, CPU, 64)
        assert all(module.training for module in model.modules())
    finally:
        model.eval()
    assert all(weight.requires_grad for weight in model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_logits_that_are_not_finite_count_as_no_prediction(split: Split) -> None:
    class Overflowing(nn.Module):
        """Infinite logits for dark images."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            dark = x.flatten(1).mean(1, keepdim=True) < 0.5
            return x.flatten(1)[:, :5].masked_fill(dark, torch.inf)

    for attack in (None, PGD):
        rows = evaluate(Overflowing(), attack, LINF, split, 0, CPU, 64)
        dark = (split.images.float() / 255).flatten(1).mean(1).numpy() < 0.5
        assert 0 < dark.sum() < 100
        assert np.array_equal(rows["clean_prediction"] == -1, dark)


def returning(x_adv: torch.Tensor, row: int, value: float) -> torch.Tensor:
    x_adv = x_adv.clone()
    x_adv[row] = value
    return x_adv


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (1.5, "careless left the pixel range [0, 1] on example {}"),
        (-0.01, "careless left the pixel range [0, 1] on example {}"),
        (float("nan"), "careless left the pixel range [0, 1] on example {}"),
        (1.0, "careless left the linf ball on example {}: distance "),
    ],
)
def test_an_attack_that_leaves_the_threat_set_is_named(
    model: nn.Module, split: Split, value: float, message: str
) -> None:
    culprit = 41

    def careless(
        model: nn.Module, x: torch.Tensor, y: torch.Tensor, threat: ThreatModel, noise: Noise
    ) -> Attacked:
        found = (noise.examples == split.example[culprit]).nonzero().flatten()
        x_adv = returning(x, int(found[0]), value) if len(found) else x
        return Attacked(x_adv, torch.zeros(len(x)), torch.zeros_like(y), torch.zeros_like(y))

    expected = message.format(int(split.example[culprit]))
    with pytest.raises(ValueError, match=re.escape(expected)):
        evaluate(model, careless, LINF, split, 0, CPU, 32)


def test_an_attack_that_returns_other_images_is_named(model: nn.Module, split: Split) -> None:
    def cropping(
        model: nn.Module, x: torch.Tensor, y: torch.Tensor, threat: ThreatModel, noise: Noise
    ) -> Attacked:
        return Attacked(x[:, :, 1:], torch.zeros(len(x)), torch.zeros_like(y), torch.zeros_like(y))

    message = "cropping returned torch.float32 (32, 1, 7, 8), expected images like its input"
    with pytest.raises(ValueError, match=re.escape(message)):
        evaluate(model, cropping, LINF, split, 0, CPU, 32)


def test_an_attack_needs_a_threat_model(model: nn.Module, split: Split) -> None:
    with pytest.raises(ValueError, match="pgd needs a threat model, got None"):
        evaluate(model, PGD, None, split, 0, CPU, 32)
