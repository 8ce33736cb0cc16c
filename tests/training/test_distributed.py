"""Two processes train one network with the numbers of one, but for the rounding of sums."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from advtrain.methods.cat import Cat
from advtrain.methods.fat import Fat
from advtrain.methods.fgsm_mixed import FgsmMixed
from advtrain.methods.free import Free
from advtrain.methods.iaat import Iaat
from advtrain.methods.method import Method
from advtrain.methods.natural import Natural
from advtrain.threat import ThreatModel
from advtrain.training.distributed import ALONE, Processes, joined
from advtrain.training.loop import train
from tests.training.several import CPU, SCENARIOS, norms_of, trained
from tests.training.tiny import assert_equal, network, tiny_data

ROOT = Path(__file__).resolve().parents[2]
IMAGE = torch.zeros(1, 1, 4, 4)


def torchrun(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    paths = [str(ROOT / "src"), str(ROOT)]
    given = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE")}
    return subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node", "2", "-m", "tests.training.several", str(folder), *arguments),
        ],
        cwd=ROOT,
        env={**given, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of the two processes found; a training of theirs was killed before."""
    folder = tmp_path_factory.mktemp("several")
    killed = torchrun(folder, "--die-at", "3")
    assert killed.returncode != 0
    assert "Signal 9 (SIGKILL)" in killed.stderr, killed.stderr
    assert not (folder / "0.pt").exists()
    done = torchrun(folder)
    assert done.returncode == 0, done.stderr
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


def assert_alike(one: object, other: object, tolerance: float) -> None:
    if isinstance(one, Tensor):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_alike(one[key], other[key], tolerance)
    elif isinstance(one, list):
        assert len(one) == len(other)
        for pair in zip(one, other, strict=True):
            assert_alike(*pair, tolerance)
    elif isinstance(one, float):
        assert one == pytest.approx(other, rel=tolerance, abs=tolerance)
    else:
        assert one == other


@pytest.mark.parametrize("name", SCENARIOS)
def test_two_processes_train_as_one(found: list[dict[str, Any]], name: str, tmp_path: Path) -> None:
    expected = trained(name, tmp_path)._asdict()
    got = dict(found[0][name])
    values = [run.pop("example_values") for run in (got, expected)]
    assert_alike(got, expected, 2e-6)
    assert_alike(*values, 2e-6)
    assert len(expected["history"]) == 4
    for theirs, ours in zip(got["history"], expected["history"], strict=True):
        for measure in ours:  # accuracies, counts and rates are the same numbers
            if not measure.startswith(("loss", "mean_")):
                assert theirs[measure] == ours[measure], measure


@pytest.mark.parametrize("name", SCENARIOS)
def test_all_processes_hold_the_same_network(found: list[dict[str, Any]], name: str) -> None:
    first, second = (one[name]["last"] for one in found)
    assert all(torch.equal(first[weight], second[weight]) for weight in first)


def test_the_first_process_alone_reports(found: list[dict[str, Any]]) -> None:
    rows = [one["natural: rows"] for one in found]
    assert [row["epoch"] for row in rows[0]] == [1, 2, 3, 4]
    assert rows[1] == []


def test_the_radii_of_examples_are_those_of_one_process(found: list[dict[str, Any]]) -> None:
    values = found[0]["iaat, with radii"]["example_values"]
    assert len(values["example"]) == 4 * 25
    assert values["epsilon"].unique().numel() > 4


def test_a_killed_training_of_two_processes_goes_on(found: list[dict[str, Any]]) -> None:
    assert [row["epoch"] for row in found[0]["resumed rows"]] == [3, 4]
    assert_equal(found[0]["resumed"], found[0]["pgd_at"])


def test_batchnorm_looks_at_the_rows_of_all_processes(found: list[dict[str, Any]]) -> None:
    # Alone, torch's own BatchNorm computes them.
    expected = norms_of(ALONE)
    for one in found:
        # The largest are second derivatives, of sums that nearly cancel at an offset of 100.
        assert_alike(one["norms"], expected, 1e-8)


def test_what_the_processes_tell_each_other(found: list[dict[str, Any]]) -> None:
    first, second = (one["facts"] for one in found)
    assert first["share"].tolist() == [0, 20, 40, 60]
    assert second["share"].tolist() == [10, 30, 50]
    for facts in (first, second):
        assert facts["whole"].tolist() == [0, 10, 20, 30, 40, 50, 60]
        assert [one.tolist() for one in facts["sums"]] == [[3.0, 3.0, 3.0], 3]
        assert facts["sum"] == 2.0
        assert facts["agreed"] == "process 0"
        assert facts["spread"].tolist() == [0.0, 0.0]
        assert "draws random numbers by itself" in facts["draws"]
        assert facts["does not draw"] == ""


@pytest.mark.parametrize(
    ("method", "model", "smallest", "told"),
    [
        (Cat(), network(), 6, "Cat cannot be shared by 3 processes.* place in the minibatch"),
        (FgsmMixed(), network(), 6, "FgsmMixed cannot be shared .* place in the minibatch"),
        (Fat(crafting="train"), network(), 6, "Fat cannot be shared .* in train mode"),
        (Natural(), network(dropout=0), 2, "has 2 rows, which 3 processes cannot share"),
    ],
)
def test_what_cannot_be_shared_is_refused(
    method: Method, model: nn.Module, smallest: int, told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        Processes(0, 3).refuse(method, model, IMAGE, smallest)


@pytest.mark.parametrize("method", [Free(), Iaat(), Fat(), Natural()])
def test_what_can_be_shared_is_not(method: Method) -> None:
    model = network(dropout=0)
    before = {name: one.clone() for name, one in model.state_dict().items()}
    Processes(1, 3).refuse(method, model, IMAGE, 3)
    assert all(torch.equal(one, before[name]) for name, one in model.state_dict().items())
    assert model.training


def test_a_smaller_micro_batch_of_one_process_alone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="one of several processes would repeat a step"):
        train(
            *(network(norm=False), Natural(), ThreatModel("linf", 0.1), tiny_data(), 0, tmp_path),
            *(lambda row: None, CPU),
            processes=Processes(0, 2),
            halve_on_out_of_memory=True,
        )


def test_without_an_environment_a_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    with joined(CPU) as processes:
        assert processes is ALONE


def test_alone_nothing_changes() -> None:
    model, x = network(), torch.arange(6.0)
    forward = model[1].forward
    with ALONE.normalising(model):
        assert model[1].forward == forward
    assert ALONE.share(x) is x
    assert ALONE.whole(x, 6) is x
    step = object()
    assert ALONE.sharing(step, 3) is step  # type: ignore[arg-type]
    ALONE.add_up([x])
    assert x.tolist() == [0, 1, 2, 3, 4, 5]


def test_the_layers_are_left_as_found() -> None:
    model = network()
    inside = []

    def fail() -> None:
        with Processes(0, 2).normalising(model):
            inside.append("forward" in vars(model[1]))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert inside == [True]
    assert "forward" not in vars(model[1])


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_two_devices_train_as_one(tmp_path: Path) -> None:
    done = torchrun(tmp_path, "--cuda")
    assert done.returncode == 0, done.stderr
    found = torch.load(tmp_path / "0.pt", weights_only=True)
    for name in SCENARIOS:
        got = trained(name, tmp_path / "one" / name, device=torch.device("cuda", 0))
        assert_alike(found[name]["last"], got.last, 1e-4)
        for theirs, ours in zip(found[name]["history"], got.history, strict=True):
            assert theirs["forward_passes"] == ours["forward_passes"]
