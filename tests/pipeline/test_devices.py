"""Leases: with simulated devices, no two jobs on one, and none left behind by a kill."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline import devices

ROOT = Path(__file__).resolve().parents[2]

HOLD = """
import sys, time
from pathlib import Path
from pipeline.devices import leased_device
spec = {"stage": "train", "unkeyed": {"device": "auto"}}
with leased_device(Path("."), spec):
    import os
    gpu = os.environ["CUDA_VISIBLE_DEVICES"]
    mine = Path(sys.argv[1]) / f"on-{gpu}"
    mine.touch(exist_ok=False)  # another job on this device would be an error
    time.sleep(float(sys.argv[2]))
    mine.unlink()
    with (Path(sys.argv[1]) / "done").open("a") as done:
        done.write(gpu)
"""


def hold(folder: Path, seconds: float) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder), str(seconds)],
        cwd=ROOT,
        env={"PATH": "", "CUDA_VISIBLE_DEVICES": "0,1", "TMPDIR": str(folder)},
    )


def test_no_two_jobs_share_a_device(tmp_path: Path) -> None:
    jobs = [hold(tmp_path, 0.2) for _ in range(6)]
    assert [job.wait() for job in jobs] == [0] * 6
    assert set((tmp_path / "done").read_text()) == {"0", "1"}


def test_a_lease_dies_with_its_job(tmp_path: Path) -> None:
    first, second = hold(tmp_path, 60), hold(tmp_path, 60)
    while len(list(tmp_path.glob("on-*"))) < 2:
        time.sleep(0.02)
    third = hold(tmp_path, 0)
    first.send_signal(signal.SIGKILL)
    first.wait()
    for left in tmp_path.glob("on-*"):  # what the killed job could not tidy
        left.unlink()
    assert third.wait(10) == 0
    second.kill()
    second.wait()


@pytest.mark.parametrize(
    ("given", "expected"), [("", []), ("-1", []), ("0", ["0"]), ("2, GPU-ab", ["2", "GPU-ab"])]
)
def test_an_inherited_choice_is_respected(
    monkeypatch: pytest.MonkeyPatch, given: str, expected: list[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert devices.visible_gpus() == expected


def test_without_a_choice_and_without_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", "")
    assert devices.visible_gpus() == []


def test_a_cpu_job_leases_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    for stage, device in (("train", "cpu"), ("tables", "auto")):
        spec = {"stage": stage, "unkeyed": {"device": device}}
        with devices.leased_device(tmp_path, spec) as describe:
            assert describe() == "cpu"
