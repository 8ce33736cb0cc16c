"""A run that was killed ends as one that was not, to the bit."""

import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from advtrain.params import signatures
from advtrain.threat import ThreatModel
from advtrain.training.loop import Trained, TrainingData, train
from tests.training.killed import METHODS, MOMENTS, run
from tests.training.tiny import assert_equal, network, split_of, tiny_data

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders of all runs: killed with SIGKILL, continued, and never killed."""
    folder = tmp_path_factory.mktemp("killed")
    paths = [str(ROOT / "src"), str(ROOT)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.training.killed", str(folder), "0"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("moment", [*MOMENTS, "at random"])
def test_a_killed_run_ends_with_the_same_bits(runs: Path, name: str, moment: str) -> None:
    whole, killed = (
        torch.load(runs / name / kind / "trained.pt", weights_only=True)
        for kind in ("whole", moment)
    )
    assert len(whole["history"]) == 5
    assert_equal(killed, whole)
    left, expected = (load_left(runs / name / kind) for kind in (moment, "whole"))
    assert_equal(left, expected)


def load_left(workspace: Path) -> object:
    """What a further call would continue from: optimizer, method, generators, ..."""
    return torch.load(workspace / "resume.pt", weights_only=True)


class StoppedError(Exception):
    """Stands for anything that ends the caller."""


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("epoch", [1, 3, 5])
def test_an_exception_in_the_caller_loses_no_epoch(tmp_path: Path, name: str, epoch: int) -> None:
    def stop(row: dict[str, float]) -> None:
        if row["epoch"] == epoch:
            raise StoppedError

    expected = run(tmp_path / "whole", name, lambda row: None)
    with pytest.raises(StoppedError):
        run(tmp_path / "stopped", name, stop)
    rows: list[dict[str, float]] = []
    got = run(tmp_path / "stopped", name, rows.append)
    assert [row["epoch"] for row in rows] == list(range(epoch + 1, 6))
    assert_equal(got._asdict(), expected._asdict())


@pytest.mark.parametrize("name", [*filter(signatures.is_trained, signatures.modules("methods"))])
def test_every_method_resumes_exactly(tmp_path: Path, name: str) -> None:
    """With every part of a recipe that has a state of its own."""

    def train_it(workspace: Path, on_epoch: Callable[[dict[str, float]], None]) -> Trained:
        module = importlib.import_module(f"advtrain.methods.{name}")
        method = getattr(module, signatures.camel_case(name))(**OPTIONS.get(name, {}))
        # Bounds are known for plain layers only, which a dropout is not.
        model = nn.Sequential(*(one for one in network() if not isinstance(one, nn.Dropout)))
        data = TrainingData(*tiny_data()[:2], extra=split_of(10, seed=5))
        return train(
            *(model, method, ThreatModel("linf", 0.1), data, 0, workspace, on_epoch, CPU),
            epochs=6 * method.replays,
            batch_size=8,
            learning_rate=0.05,
            update="awp",
            averaging="ema" if len(name) % 2 else "swa",
            swa_start=0.2,
            extra_fraction=0.25,
            cutout=1,
            validation_steps=1,
        )

    def stop(row: dict[str, float]) -> None:
        if row["epoch"] in (2, 4):
            raise StoppedError

    expected = train_it(tmp_path / "whole", lambda row: None)
    for _ in range(2):
        with pytest.raises(StoppedError):
            train_it(tmp_path / "stopped", stop)
    got = train_it(tmp_path / "stopped", lambda row: None)
    assert len(got.history) == 6
    assert_equal(got._asdict(), expected._asdict())


OPTIONS: dict[str, dict[str, object]] = {
    "cat": {"patience": 1, "least_train_accuracy": 0.0},
    "fgsm_rs": {"early_stop": True, "stop_drop": 1.0},
    "iaat": {"warmup": 0.2},
    "ibp": {"warmup": 0.1, "ramp": 0.5},
}
"""What gives a method a state to lose within six epochs."""


def test_a_damaged_file_starts_over_and_says_so(
    tmp_path: Path, data: TrainingData, caplog: pytest.LogCaptureFixture
) -> None:
    expected = run(tmp_path, "free", lambda row: None)
    path = tmp_path / "resume.pt"
    path.write_bytes(path.read_bytes()[:-100])
    got = run(tmp_path, "free", lambda row: None)
    assert "resume.pt: damaged" in caplog.text
    assert "the training starts over" in caplog.text
    assert_equal(got._asdict(), expected._asdict())


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_run_continues_after_the_disk_was_full(tmp_path: Path) -> None:
    def fill(row: dict[str, float]) -> None:
        if row["epoch"] == 2:
            (tmp_path / "full" / "resume.pt.tmp").symlink_to("/dev/full")

    expected = run(tmp_path / "whole", "free", lambda row: None)
    with pytest.raises(OSError, match="No space left on device"):
        run(tmp_path / "full", "free", fill)
    rows: list[dict[str, float]] = []
    got = run(tmp_path / "full", "free", rows.append)
    assert rows[0]["epoch"] == 3
    assert_equal(got._asdict(), expected._asdict())
