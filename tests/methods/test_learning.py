"""Every method learns what it is for, on real digits; no claim rests on its loss alone."""

import functools
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from advtrain.attacks.fgsm import fgsm
from advtrain.attacks.pgd import pgd
from advtrain.data.digits import digits
from advtrain.data.prepare import prepare
from advtrain.data.store import load_split
from advtrain.evaluation.evaluate import evaluate
from advtrain.methods.cat import Cat
from advtrain.methods.consistency import Consistency
from advtrain.methods.fat import Fat
from advtrain.methods.fgsm_mixed import FgsmMixed
from advtrain.methods.fgsm_rs import FgsmRs
from advtrain.methods.free import Free
from advtrain.methods.gaussian import Gaussian
from advtrain.methods.gradalign import Gradalign
from advtrain.methods.iaat import Iaat
from advtrain.methods.ibp import Ibp
from advtrain.methods.mart import Mart
from advtrain.methods.method import Method
from advtrain.methods.natural import Natural
from advtrain.methods.nfgsm import Nfgsm
from advtrain.methods.pgd_at import PgdAt
from advtrain.methods.trades import Trades
from advtrain.models.small_cnn import small_cnn
from advtrain.params import signatures
from advtrain.reporting.flags import overfitting
from advtrain.threat import ThreatModel
from advtrain.training.loop import TrainingData, train
from tests.reporting.made import evaluated

EPSILON, LARGE = 0.15, 0.3
WIDE_MARGIN = 0.25
CPU = torch.device("cpu")
STEPS = 3  # of every inner maximisation: enough to learn, in a second or two

ROBUST: dict[str, Method] = {
    "cat": Cat(steps=STEPS, patience=1, least_train_accuracy=0.0),
    "consistency": Consistency(steps=STEPS),
    "fat": Fat(steps=STEPS),
    "fgsm_mixed": FgsmMixed(),
    "fgsm_rs": FgsmRs(),
    "free": Free(replays=4, through_clip=False),
    "gradalign": Gradalign(),
    "iaat": Iaat(steps=STEPS, warmup=0.3, beta=0.5),
    "ibp": Ibp(warmup=0.05, ramp=0.5),
    "mart": Mart(steps=STEPS),
    "nfgsm": Nfgsm(),
    "pgd_at": PgdAt(steps=STEPS),
    "trades": Trades(steps=STEPS),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("digits")
    prepare(digits(made), made, train_examples=700, test_examples=150)
    return made


Rows = dict[str, npt.NDArray[np.generic]]


def attacked(folder: Path, method: Method, epsilon: float, epochs: int = 14) -> dict[str, Rows]:
    """Train a small network, and attack it with one step and with many and restarts."""
    threat = ThreatModel("linf", epsilon)
    data = TrainingData(load_split(folder, "train"), load_split(folder, "validation"))
    torch.manual_seed(0)
    model = small_cnn(channels=1, size=8, classes=10, width=8, hidden=64)
    train(
        *(model, method, threat, data, 0, folder / f"{type(method).__name__}-{epsilon}"),
        *(lambda row: None, CPU),
        epochs=epochs * method.replays,
        batch_size=64,
        optimizer="adam",
        learning_rate=0.004,
        schedule="cyclic",
        peak_share=0.3,
        validation_steps=3,
    )
    attacks = {"fgsm": fgsm, "pgd_20": partial(pgd, steps=20, restarts=2)}
    return {
        name: evaluate(model, attack, threat, load_split(folder, "test"), 0, CPU, 250)
        for name, attack in attacks.items()
    }


Accuracies = dict[str, float]


def accuracies(folder: Path, method: Method) -> Accuracies:
    rows = attacked(folder, method, EPSILON)["pgd_20"]
    return {
        "clean": float((rows["clean_prediction"] == rows["label"]).mean()),
        "pgd_20": float((rows["adversarial_prediction"] == rows["label"]).mean()),
    }


@functools.cache
def natural(folder: Path) -> Accuracies:
    return accuracies(folder, Natural())


@pytest.mark.parametrize("name", ROBUST)
def test_a_robust_method_beats_natural_training_by_a_wide_margin(folder: Path, name: str) -> None:
    found = accuracies(folder, ROBUST[name])
    assert found["pgd_20"] > natural(folder)["pgd_20"] + WIDE_MARGIN, found
    assert found["clean"] > 0.75


def test_the_methods_asked_are_those_that_there_are() -> None:
    assert len({*ROBUST, "natural", "gaussian"} & set(signatures.modules("methods"))) == 15


def test_natural_training_and_noise_learn_the_clean_images(folder: Path) -> None:
    assert natural(folder)["clean"] > 0.9
    assert natural(folder)["pgd_20"] < 0.2
    assert accuracies(folder, Gaussian())["clean"] > 0.9


def test_catastrophic_overfitting_is_made_and_flagged(folder: Path) -> None:
    # One step from the clean image, a budget that is too large for it, and enough epochs.
    found = attacked(folder, FgsmMixed(clean_fraction=0.0), LARGE, epochs=40)
    flag = overfitting(
        evaluated(
            f"{name}-linf-{LARGE}",
            0.0,
            broken=np.flatnonzero(rows["adversarial_prediction"] != rows["label"]),
            backwards=int(rows["backward"].max()),
            examples=len(rows["label"]),
        )
        for name, rows in found.items()
    )
    assert flag is not None
    assert flag.kind == "catastrophic overfitting"
