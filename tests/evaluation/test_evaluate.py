import contextlib
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from advtrain.attacks.attack import Attacked
from advtrain.attacks.cw import cw
from advtrain.attacks.ensemble import Ensemble
from advtrain.attacks.fgsm import fgsm
from advtrain.attacks.pgd import pgd
from advtrain.data.store import Split
from advtrain.evaluation.evaluate import COLUMNS, NUMBERS, evaluate
from advtrain.noise import Noise
from advtrain.results.schema import CLAIMS, OUTCOMES
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
    assert {name: rows[name].dtype for name in NUMBERS} == NUMBERS
    assert tuple(rows) == COLUMNS
    of_the_table = {"cell", "attack", "protocol", "norm", "epsilon"}
    assert set(rows) | of_the_table == set(OUTCOMES.names)
    assert {len(column) for column in rows.values()} == {100}
    assert rows["example"].tolist() == split.example.tolist()
    assert rows["label"].tolist() == split.labels.tolist()
    assert (rows["distance"] <= 0.02 + 1e-6).all()


def test_rows_say_what_the_model_and_the_attack_say(model: nn.Module, split: Split) -> None:
    rows = evaluate(model, PGD, LINF, split, 3, CPU, 100)
    x = (split.images.float() / 255).contiguous(memory_format=torch.channels_last)
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
    assert {name: len(column) for name, column in rows.items()} == dict.fromkeys(COLUMNS, 0)
    assert {name: rows[name].dtype for name in NUMBERS} == NUMBERS
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


Forger = partial[Attacked]


def forged(culprit: int, value: float) -> Forger:
    """An attack that paints one example (of that id) in one grey and leaves the others."""

    def painting(
        model: nn.Module,
        x: torch.Tensor,
        y: torch.Tensor,
        threat: ThreatModel,
        noise: Noise,
        *,
        grey: float,
    ) -> Attacked:
        x_adv = x.clone()
        x_adv[noise.examples == culprit] = grey
        return Attacked(x_adv, torch.zeros(len(x)), torch.zeros_like(y), torch.zeros_like(y))

    return partial(painting, grey=value)


@pytest.mark.parametrize("value", [1.5, -0.01, float("nan"), 1.0])
def test_an_image_that_is_not_allowed_is_refused_and_shown(
    model: nn.Module, split: Split, value: float
) -> None:
    culprit = int(split.example[41])
    rows = evaluate(model, forged(culprit, value), LINF, split, 0, CPU, 32)
    refused = rows["example"] == culprit
    assert rows["claim"][refused].tolist() == ["outside the set"]
    assert np.array_equal(rows["adversarial_prediction"], rows["clean_prediction"])
    assert set(rows["claim"][~refused]) <= {"none", "confirmed"}


class Moody(nn.Module):
    """Says class 1 in every other forward pass, and class 0 in the rest."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        odd = torch.full((len(x), 1), float(self.calls % 2))
        return torch.cat([1 - odd, odd, torch.zeros(len(x), 3)], 1)


def test_a_claim_that_does_not_hold_a_second_time_does_not_count(split: Split) -> None:
    """Passes: 1 clean (class 1), 2 after the attack (class 0), 3 the check (class 1)."""
    labelled = Split(split.images[:32], torch.ones(32, dtype=torch.int64), split.example[:32])
    rows = evaluate(Moody(), forged(-1, 0.0), LINF, labelled, 0, CPU, 64)
    assert set(rows["claim"]) == {"not misclassified"}
    assert rows["adversarial_prediction"].tolist() == [1] * 32


def test_claims_are_those_of_the_schema() -> None:
    from advtrain.evaluation import evaluate as module

    assert module.CLAIMS == CLAIMS


WEAK = partial(pgd, steps=1, step_size="epsilon/4", random_start=False)
TWO = Ensemble({"weak": WEAK, "strong": PGD})


@pytest.mark.parametrize("threat", [LINF, L2], ids=["linf", "l2"])
def test_an_ensemble_is_its_stages_in_turn(
    model: nn.Module, split: Split, threat: ThreatModel
) -> None:
    rows = evaluate(model, TWO, threat, split, 3, CPU, 32)
    clean = rows["clean_prediction"] == rows["label"]
    robust = rows["adversarial_prediction"] == rows["label"]
    weak = evaluate(model, WEAK, threat, split, 3, CPU, 32)
    fooled = clean & (weak["adversarial_prediction"] != weak["label"])
    assert np.array_equal(rows["stage"] == "weak", fooled)
    assert (rows["stage"] == "strong").any()
    assert np.array_equal(rows["stage"] == "", robust | ~clean)
    assert rows["forward"][~clean].tolist() == [1] * (~clean).sum()
    assert rows["forward"][rows["stage"] == "weak"].tolist() == [3] * fooled.sum()
    assert rows["forward"][robust].tolist() == [3 + 10] * robust.sum()


@pytest.mark.parametrize("attack", [PGD, TWO], ids=["pgd", "ensemble"])
def test_rows_do_not_depend_on_batches_shards_or_a_kill(
    model: nn.Module, split: Split, attack: partial[Attacked] | Ensemble, tmp_path: Path
) -> None:
    expected = evaluate(model, attack, LINF, split, 0, CPU, 100)
    for size in (7, 40):
        assert_equal(evaluate(model, attack, LINF, split, 0, CPU, size), expected)
    shards = [
        evaluate(model, attack, LINF, split.take(slice(a, b)), 0, CPU, 32)
        for a, b in ((0, 37), (37, 99), (99, 100))
    ]
    assert_equal({n: np.concatenate([s[n] for s in shards]) for n in expected}, expected)
    for killed_after in (1, 2, 3, 4, 6, 8):
        path = tmp_path / f"{killed_after}.npz"
        calls: list[int] = []

        def stop(done: int, calls: list[int] = calls, limit: int = killed_after) -> None:
            calls.append(done)
            if len(calls) == limit:
                raise KeyboardInterrupt

        with contextlib.suppress(KeyboardInterrupt):
            evaluate(model, attack, LINF, split, 0, CPU, 32, stop, unfinished=path)
        spent: list[int] = []
        again = evaluate(model, attack, LINF, split, 0, CPU, 50, spent.append, unfinished=path)
        assert_equal(again, expected)
        assert not spent or spent[0] > calls[-1] - 1


@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_kept_images_are_those_that_were_judged(model: nn.Module, split: Split, kind: type) -> None:
    images = np.zeros((100, 1, 8, 8), kind)
    rows = evaluate(model, TWO, LINF, split, 0, CPU, 32, adversarial=images)
    x = split.images.float() / 255
    x_adv = torch.from_numpy(images).float()
    distance = LINF.distance(x_adv, x).numpy()
    attacked = rows["clean_prediction"] == rows["label"]
    assert (distance <= 0.02 + 1e-6).all()
    np.testing.assert_array_equal(rows["distance"][attacked], distance[attacked])
    with torch.no_grad():
        found = model(x_adv).argmax(1).numpy()
    assert np.array_equal(rows["adversarial_prediction"][attacked], found[attacked])
    assert "outside the set" not in rows["claim"]
    assert (rows["claim"] == "confirmed").sum() > 10


def test_bfloat16_claims_count_once_float32_confirms_them(model: nn.Module, split: Split) -> None:
    exact = evaluate(model, PGD, LINF, split, 0, CPU, 50)
    fast = evaluate(model, PGD, LINF, split, 0, CPU, 50, precision="bfloat16")
    assert not np.array_equal(exact["objective"], fast["objective"])
    assert np.array_equal(exact["clean_prediction"], fast["clean_prediction"])
    agree = exact["adversarial_prediction"] == fast["adversarial_prediction"]
    assert agree.mean() >= 0.95
    wrong = fast["adversarial_prediction"] != fast["label"]
    assert set(fast["claim"][wrong]) == {"confirmed"}


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
