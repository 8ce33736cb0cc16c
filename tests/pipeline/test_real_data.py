"""The chain on published files: CIFAR-10 as torchvision lays it out, and a folder of images."""

import copy
import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.workspace import PARAMS, Workspace, make_workspace, marker

pytestmark = pytest.mark.workflow


def params(raw: Path, dataset: dict[str, Any], model: dict[str, Any]) -> dict[str, Any]:
    given: dict[str, Any] = copy.deepcopy(PARAMS)
    given["raw_data"] = str(raw)
    given["datasets"] = {"real": dataset}
    given["models"] = {"net": model}
    given["recipes"]["short"]["epochs"] = 1
    given["studies"]["tiny"] |= {
        "dataset": "real",
        "model": "net",
        "epsilons": ["8/255"],
        "methods": ["natural", "fgsm_rs"],
        "attacks": ["pgd_2"],
        "attack_examples": 20,
    }
    return given


def run(tmp_path: Path, given: dict[str, Any]) -> Workspace:
    workspace = make_workspace(tmp_path / "work", given)
    workspace.snakemake("--", marker("tables", "tiny"))
    with (workspace.root / "reports/tables/tiny/results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    weights = given["studies"]["tiny"]["weights"]
    expected = [(method, one) for method in ("natural", "fgsm_rs") for one in weights]
    assert [(row["method"], row["weights"]) for row in rows] == expected
    assert all(row["examples"] == "20" for row in rows)  # twenty examples were attacked
    return workspace


def test_cifar10(tmp_path: Path, published: Callable[[str], Path]) -> None:
    dataset = {"module": "cifar10", "train_examples": 100, "test_examples": 40, "validation": 0.001}
    model = {"module": "preact_resnet", "width": 2, "normalisation": "cifar10"}
    given = params(published("cifar10"), dataset, model)
    given["studies"]["tiny"]["weights"] = ["last", "best"]
    workspace = run(tmp_path, given)
    assert (workspace.root / "results/train/tiny/fgsm_rs-linf-8_255-s0/manifest.json").exists()


def test_a_folder_of_images(tmp_path: Path, published: Callable[[str], Path]) -> None:
    folder = "imagenette-sample"
    dataset = {"module": "imagefolder", "folder": folder, "image_size": 32, "test_examples": 40}
    model = {"module": "resnet", "depth": 18, "normalisation": "imagenet"}
    run(tmp_path, params(published("imagenette_sample"), dataset | {"train_examples": 40}, model))


def test_photographs_that_are_decoded_at_every_epoch(
    tmp_path: Path, published: Callable[[str], Path]
) -> None:
    dataset = {
        "module": "imagefolder",
        "folder": "imagenette-sample",
        "image_size": 32,
        "decode": "every_epoch",
        "train_examples": 40,
        "test_examples": 40,
    }
    model = {"module": "resnet", "depth": 18, "normalisation": "imagenet"}
    given = params(published("imagenette_sample"), dataset, model)
    given["recipes"]["short"] |= {"epochs": 2, "flip": True}
    workspace = run(tmp_path, given)
    # What is prepared for training is a list; the checkpoints do not depend on who decodes.
    assert (workspace.root / "data/prepared/real/train.arrow").stat().st_size < 10_000
    trained = [
        path.read_bytes()
        for path in sorted((workspace.root / "checkpoints").rglob("*.safetensors"))
    ]
    assert len(trained) == 4
    for name in ("natural-s0", "fgsm_rs-linf-8_255-s0"):
        spec = workspace.spec("train", f"tiny/{name}")
        workspace.by_hand(spec, ADVTRAIN_FORCE="1", ADVTRAIN_WORKERS="0")
    again = [
        path.read_bytes()
        for path in sorted((workspace.root / "checkpoints").rglob("*.safetensors"))
    ]
    assert again == trained


def test_missing_files_without_a_network_are_said_and_shown(tmp_path: Path) -> None:
    given = params(tmp_path / "nothing", {"module": "cifar10"}, {"module": "small_cnn"})
    workspace = make_workspace(tmp_path / "work", given)
    # A proxy that is not there stands for a network that is not there.
    failed = workspace.snakemake(
        fails=True, http_proxy="http://127.0.0.1:9", https_proxy="http://127.0.0.1:9"
    )
    assert "cifar-10" in failed.stderr
    assert str(tmp_path / "nothing") in failed.stderr
    page = (workspace.root / "reports/index.html").read_text()  # a study without data
    assert "The smallest study" in page
    assert "cifar-10" in page
    assert str(tmp_path / "nothing") in page
