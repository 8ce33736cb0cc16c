"""A cell trained by several processes: the numbers of one, and none of them left by a kill."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from advtrain.training.checkpoint import load_weights
from pipeline.job import JobError
from pipeline.processes import devices_for, processes_of
from tests.pipeline.workspace import Workspace, clean_environment, make_workspace, only

ROOT = Path(__file__).resolve().parents[2]
CELL = "tiny/fgsm_rs-linf-0.1-s0"
SPEC: dict[str, Any] = {"stage": "train", "step": "train", "unkeyed": {"device": "auto"}}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace with data, in which one cell could be trained; copied, never changed."""
    workspace = make_workspace(tmp_path_factory.mktemp("processes") / "work")
    workspace.edit(only(("fgsm_rs",)))
    workspace.snakemake("--", "prepare_all")
    return workspace


def wip(workspace: Workspace) -> Path:
    (found,) = (workspace.root / ".pipeline/wip/train").glob(f"{CELL}.*[!k]")
    return found


def epoch_of(workspace: Workspace) -> int:
    """The epoch that the running job last reported."""
    path = workspace.root / f".pipeline/progress/train/{CELL}.json"
    try:
        return int(json.loads(path.read_text()).get("epoch", 0))
    except (OSError, ValueError):
        return 0


def history(workspace: Workspace) -> list[dict[str, float]]:
    found: list[dict[str, float]] = pq.read_table(
        workspace.root / f"results/train/{CELL}/history.parquet"
    ).to_pylist()
    return found


def children(pid: int) -> list[int]:
    listed = subprocess.run(["ps", "-o", "pid=,ppid=", "-A"], capture_output=True, text=True)
    pairs = (map(int, line.split()) for line in listed.stdout.splitlines())
    return [child for child, parent in pairs if parent == pid]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = subprocess.run(["ps", "-o", "state=", "-p", str(pid)], capture_output=True, text=True)
    return state.stdout.strip() not in ("", "Z")


@pytest.mark.workflow
def test_two_processes_train_a_cell_as_one(prepared: Workspace, tmp_path: Path) -> None:
    one, two = (prepared.copy(tmp_path / name) for name in ("one", "two"))
    spec = prepared.spec("train", CELL)
    one.by_hand(spec)
    two.by_hand(spec, ADVTRAIN_PROCESSES="2")
    for expected, found in zip(history(one), history(two), strict=True):
        assert found == pytest.approx(expected, rel=1e-4)
        assert found["train_accuracy"] == expected["train_accuracy"]
        assert found["forward_passes"] == expected["forward_passes"]
    weights = [load_weights(w.root / f"checkpoints/{CELL}/last.safetensors") for w in (one, two)]
    for name, expected in weights[0].items():
        torch.testing.assert_close(weights[1][name], expected, rtol=1e-3, atol=1e-4)
    timing = json.loads((two.root / f"results/train/{CELL}/timing.json").read_text())
    assert timing["device"] == "2 x cpu"
    assert len(timing["epochs"]) == 6


@pytest.mark.workflow
def test_a_kill_ends_all_processes_and_loses_no_epoch(prepared: Workspace, tmp_path: Path) -> None:
    whole, killed = (prepared.copy(tmp_path / name) for name in ("whole", "killed"))
    spec = prepared.spec("train", CELL)
    whole.by_hand(spec, ADVTRAIN_PROCESSES="2")

    job = subprocess.Popen(
        ["python", "-m", "pipeline.run", spec],
        cwd=killed.root,
        env=clean_environment({"ADVTRAIN_PROCESSES": "2"}),
    )
    while job.poll() is None and epoch_of(killed) < 2:
        time.sleep(0.005)
    assert job.poll() is None  # a job that ends before its kill would test nothing
    ranks = children(job.pid)
    assert len(ranks) == 2
    job.send_signal(signal.SIGKILL)
    job.wait()
    for _ in range(100):
        if not any(map(is_alive, ranks)):
            break
        time.sleep(0.1)
    assert not any(map(is_alive, ranks))
    assert not (killed.root / f"results/train/{CELL}/manifest.json").exists()
    logged = (wip(killed) / "history.jsonl").read_text().splitlines()
    assert 2 <= len(logged) < 6

    # Another number of processes would give other bits: it is refused, and nothing is lost.
    for count in ("1", "3"):
        told = killed.by_hand(spec, fails=True, ADVTRAIN_PROCESSES=count).stderr
        assert "done by 2 processes" in told
        assert "set ADVTRAIN_PROCESSES=2 to continue" in told
    killed.by_hand(spec, ADVTRAIN_PROCESSES="2")
    assert killed.tables() == whole.tables()


@pytest.mark.workflow
def test_a_killed_process_ends_the_job_which_says_how_to_go_on(
    prepared: Workspace, tmp_path: Path
) -> None:
    workspace = prepared.copy(tmp_path / "work")
    job = subprocess.Popen(
        ["python", "-m", "pipeline.run", prepared.spec("train", CELL)],
        cwd=workspace.root,
        env=clean_environment({"ADVTRAIN_PROCESSES": "2"}),
        stderr=subprocess.PIPE,
        text=True,
    )
    while job.poll() is None and epoch_of(workspace) < 1:
        time.sleep(0.005)
    os.kill(children(job.pid)[1], signal.SIGKILL)
    _, told = job.communicate(timeout=120)
    assert job.returncode == 1
    assert "of 2 was killed by signal 9" in told
    assert "Run it again with ADVTRAIN_PROCESSES=2: it continues" in told


@pytest.mark.workflow
@pytest.mark.parametrize("name", ["ADVTRAIN_PROCESSES", "ADVTRAIN_CELLS_PER_GPU"])
def test_a_count_that_is_none_is_told_without_a_traceback(prepared: Workspace, name: str) -> None:
    failed = prepared.snakemake("-n", fails=True, **{name: "all"})
    told = failed.stdout + failed.stderr
    assert f"{name}: expected a whole number, 1 or more, got 'all'" in told
    assert told.startswith("WorkflowError")
    assert "Traceback" not in told
    assert "processes.py" not in told
    assert "devices.py" not in told
    if name == "ADVTRAIN_PROCESSES":
        failed = prepared.run("advtrain", "plan", fails=True, **{name: "all"})
        assert failed.stderr == f"{name}: expected a whole number, 1 or more, got 'all'\n"


@pytest.mark.workflow
def test_the_cause_of_a_process_that_fails_is_the_jobs(prepared: Workspace, tmp_path: Path) -> None:
    workspace = prepared.copy(tmp_path / "work")
    spec = prepared.spec("train", CELL)
    given = json.loads((workspace.root / spec).read_text())
    given["params"]["recipe"]["parameters"]["halve_on_out_of_memory"] = True
    (workspace.root / spec).write_text(json.dumps(given))
    told = workspace.by_hand(spec, fails=True, ADVTRAIN_PROCESSES="2").stderr
    assert f"train {CELL}: halve_on_out_of_memory: one of several processes" in told


def test_a_training_alone_is_done_by_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ADVTRAIN_PROCESSES", raising=False)
    assert processes_of(SPEC) == 1
    monkeypatch.setenv("ADVTRAIN_PROCESSES", "4")
    assert processes_of(SPEC) == 4
    assert processes_of({"stage": "attack", "step": "attack"}) == 1
    assert processes_of({"stage": "train", "step": "given"}) == 1
    monkeypatch.setenv("ADVTRAIN_PROCESSES", "all")
    with pytest.raises(ValueError, match="ADVTRAIN_PROCESSES: expected a whole number.*'all'"):
        processes_of(SPEC)


@pytest.fixture
def three_devices(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    monkeypatch.setenv("PATH", str(tmp_path))  # no driver to ask
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def test_each_process_has_a_device_of_its_own(three_devices: None, tmp_path: Path) -> None:
    with devices_for(tmp_path, SPEC | {"unkeyed": {"device": "auto", "cells_per_gpu": 2}}, 3) as d:
        assert sorted(d) == ["0", "1", "2"]
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,1,2"


def test_more_processes_than_devices_are_refused(three_devices: None, tmp_path: Path) -> None:
    told = "ADVTRAIN_PROCESSES is 4, but there are 3 GPUs"
    with pytest.raises(JobError, match=told), devices_for(tmp_path, SPEC, 4):
        pass


def test_on_the_cpu_no_device_is_held(three_devices: None, tmp_path: Path) -> None:
    with devices_for(tmp_path, SPEC | {"unkeyed": {"device": "cpu"}}, 4) as devices:
        assert devices == []


GATHER = """
import sys, time
from pathlib import Path
from pipeline.processes import devices_for

spec = {"stage": "train", "step": "train", "unkeyed": {"device": "auto"}}
for _ in range(4):
    with devices_for(Path("."), spec, 2) as devices:
        time.sleep(0.05)
"""


def test_jobs_that_each_need_several_devices_do_not_wait_for_ever(tmp_path: Path) -> None:
    given = {"PATH": str(tmp_path), "CUDA_VISIBLE_DEVICES": "0,1,2", "TMPDIR": str(tmp_path)}
    jobs = [subprocess.Popen([sys.executable, "-c", GATHER], cwd=ROOT, env=given) for _ in range(3)]
    try:
        assert [job.wait(timeout=120) for job in jobs] == [0, 0, 0]
    finally:
        for job in jobs:
            job.kill()
            job.wait()
