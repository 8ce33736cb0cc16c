"""Leases: with simulated devices, no more jobs on one than may share it, none left by a kill."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline import devices
from tests.pipeline.workspace import BIN, Workspace, clean_environment, make_workspace, only

ROOT = Path(__file__).resolve().parents[2]

# Two whole GPUs and one in two slices, as the driver lists them.
LISTED = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-aa01)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-bb02)
GPU 2: NVIDIA A100-SXM4-40GB (UUID: GPU-cc03)
  MIG 1g.5gb      Device  0: (UUID: MIG-c1)
  MIG 1g.5gb      Device  1: (UUID: MIG-c2)
"""

HOLD = """
import os, sys, time
from pathlib import Path
from pipeline.devices import leased_device

folder, seconds, cells = Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
spec = {"stage": "train", "unkeyed": {"device": "auto", "cells_per_gpu": cells}}
with leased_device(Path("."), spec):
    gpu = os.environ["CUDA_VISIBLE_DEVICES"]
    mine = folder / f"on-{gpu}-{os.getpid()}-{cells}"
    mine.touch()
    together = sorted(path.name.split("-")[-1] for path in folder.glob(f"on-{gpu}-*"))
    with (folder / "done").open("a") as done:
        done.write(f"{gpu} {','.join(together)}\\n")
    mine.write_text("told")
    time.sleep(seconds)
    mine.unlink()
"""

Job = subprocess.Popen[bytes]


def hold(folder: Path, seconds: float, cells: int = 1, visible: str = "0,1") -> Job:
    """Start a job that holds a lease for some seconds."""
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder), str(seconds), str(cells)],
        cwd=ROOT,
        env={"PATH": str(folder), "CUDA_VISIBLE_DEVICES": visible, "TMPDIR": str(folder)},
    )


def on_devices(folder: Path, count: int) -> Counter[str]:
    """Wait until so many jobs hold a lease and have told; return how many do on each device."""
    deadline = time.monotonic() + 60
    while len(found := [path for path in folder.glob("on-*") if path.read_text()]) != count:
        assert time.monotonic() < deadline, f"{count} jobs expected on devices, got {found}"
        time.sleep(0.02)
    return Counter(path.name.split("-")[1] for path in found)


def done(folder: Path) -> list[tuple[str, list[int]]]:
    """Return where each job was, and with how many each that was there then would share it."""
    lines = [line.split() for line in (folder / "done").read_text().splitlines()]
    return [(gpu, [int(cells) for cells in together.split(",")]) for gpu, together in lines]


def kill(folder: Path, job: Job) -> None:
    """Kill a job, and tidy what it could not."""
    job.send_signal(signal.SIGKILL)
    job.wait()
    next(folder.glob(f"on-*-{job.pid}-*")).unlink()


def is_taken(folder: Path, gpu: str, cells: int) -> bool:
    """Whether there is no place on a device now."""
    leases = folder / f"advtrain-leases-{os.getuid()}"
    taken = devices._take(leases, devices._identities([gpu]), cells)
    if taken is not None:
        taken[1].close()
    return taken is None


def install_driver(folder: Path, listed: str) -> None:
    """Put an `nvidia-smi` on the path that lists some devices."""
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\nprintf '%s' '{listed}'\n")
    program.chmod(0o755)


@pytest.fixture
def jobs() -> Iterator[list[Job]]:
    """Return a list of jobs, which are ended with the test."""
    found: list[Job] = []
    yield found
    for job in found:
        job.kill()
        job.wait()


def test_no_two_jobs_share_a_device(tmp_path: Path) -> None:
    jobs = [hold(tmp_path, 0.2) for _ in range(6)]
    assert [job.wait() for job in jobs] == [0] * 6
    assert {gpu for gpu, _ in done(tmp_path)} == {"0", "1"}
    assert all(together == [1] for _, together in done(tmp_path))


def test_as_many_share_a_device_as_may_and_the_least_used_comes_first(
    tmp_path: Path, jobs: list[Job]
) -> None:
    for count in range(1, 5):
        jobs.append(hold(tmp_path, 60, cells=2))
        on_devices(tmp_path, count)
    assert [gpu for gpu, _ in done(tmp_path)] == ["0", "1", "0", "1"]
    jobs.append(hold(tmp_path, 60, cells=2))
    kill(tmp_path, jobs[1])  # on the second device, where there is room for the fifth then
    assert on_devices(tmp_path, 4) == {"0": 2, "1": 2}
    assert done(tmp_path)[-1] == ("1", [2, 2])


def test_a_device_that_a_job_has_left_is_the_least_used(tmp_path: Path, jobs: list[Job]) -> None:
    for count in range(1, 6):
        jobs.append(hold(tmp_path, 60, cells=3))
        on_devices(tmp_path, count)  # on 0, 1, 0, 1, 0
    for first in (0, 2):
        kill(tmp_path, jobs[first])
    jobs.append(hold(tmp_path, 60, cells=3))
    assert on_devices(tmp_path, 4) == {"0": 2, "1": 2}


def test_a_job_that_is_to_be_alone_is_alone(tmp_path: Path, jobs: list[Job]) -> None:
    several = [hold(tmp_path, 0.3, cells, "0") for cells in (3, 1, 3, 1, 2)]
    assert [job.wait() for job in several] == [0] * 5
    assert all(len(together) <= min(together) for _, together in done(tmp_path))
    jobs.append(hold(tmp_path, 60, cells=1, visible="0"))
    on_devices(tmp_path, 1)
    assert is_taken(tmp_path, "0", cells=3)
    kill(tmp_path, jobs[0])
    jobs.append(hold(tmp_path, 60, cells=3, visible="0"))
    on_devices(tmp_path, 1)
    assert is_taken(tmp_path, "0", cells=1)
    assert not is_taken(tmp_path, "0", cells=2)


def test_a_lease_dies_with_its_job(tmp_path: Path, jobs: list[Job]) -> None:
    jobs.append(hold(tmp_path, 60, visible="0"))
    on_devices(tmp_path, 1)
    assert is_taken(tmp_path, "0", cells=1)
    kill(tmp_path, jobs[0])
    assert not is_taken(tmp_path, "0", cells=1)


def test_two_schedulers_that_name_a_device_differently_share_it(
    tmp_path: Path, jobs: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    install_driver(tmp_path, LISTED)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-bb02,GPU-aa01")
    jobs.append(hold(tmp_path, 60, visible="1"))
    on_devices(tmp_path, 1)
    assert is_taken(tmp_path, "GPU-bb02", cells=1)
    assert is_taken(tmp_path, "GPU-b", cells=1)  # the beginning of a name will do
    assert not is_taken(tmp_path, "GPU-aa01", cells=1)


def test_an_index_of_two_kinds_of_device_is_not_taken_for_the_drivers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install_driver(tmp_path, "GPU 0: Small (UUID: GPU-aa01)\nGPU 1: Large (UUID: GPU-bb02)\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,GPU-bb02")
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    assert devices._identities(["0", "GPU-bb02"]) == {"0": "0", "GPU-bb02": "GPU-bb02"}
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    assert devices._identities(["0"]) == {"0": "GPU-aa01"}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("", []),
        ("-1", []),
        ("0", ["0"]),
        ("2, GPU-ab", ["2", "GPU-ab"]),
        ("1,-1,0", ["1"]),  # as CUDA reads it
        ("MIG-c1,MIG-GPU-aa01/1/0", ["MIG-c1", "MIG-GPU-aa01/1/0"]),
    ],
)
def test_an_inherited_choice_is_respected(
    monkeypatch: pytest.MonkeyPatch, given: str, expected: list[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert devices.visible_gpus() == expected


def test_without_a_choice_all_devices_are_there_by_names_that_are_theirs_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install_driver(tmp_path, LISTED)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert devices.visible_gpus() == ["GPU-aa01", "GPU-bb02", "MIG-c1", "MIG-c2"]


def test_the_slices_of_a_device_are_devices(tmp_path: Path, jobs: list[Job]) -> None:
    install_driver(tmp_path, LISTED)
    jobs += [hold(tmp_path, 60, visible="MIG-c1,MIG-c2") for _ in range(2)]
    on_devices(tmp_path, 2)
    assert sorted(gpu for gpu, _ in done(tmp_path)) == ["MIG-c1", "MIG-c2"]


def test_without_a_choice_and_without_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", "")
    assert devices.visible_gpus() == []


def test_a_driver_that_fails_has_no_devices(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install_driver(tmp_path, LISTED)
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho no driver >&2\nexit 9\n")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert devices.visible_gpus() == []


def test_the_workflow_starts_as_many_jobs_as_there_are_places(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.delenv(devices.CELLS_PER_GPU, raising=False)
    assert sorted(devices.gpu_places("auto", 2)) == ["0", "0", "1", "1"]
    monkeypatch.setenv(devices.CELLS_PER_GPU, "3")
    assert len(devices.gpu_places("cuda", 1)) == 6
    assert devices.gpu_places("cpu", 1) == []


def test_a_cpu_job_leases_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    for stage, device in (("train", "cpu"), ("tables", "auto")):
        spec = {"stage": stage, "unkeyed": {"device": device}}
        with devices.leased_device(tmp_path, spec) as describe:
            assert describe() == "cpu"
            assert os.environ["CUDA_VISIBLE_DEVICES"] == "0"


def test_the_environment_decides_how_many_cells_share_a_device(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(devices.CELLS_PER_GPU, raising=False)
    assert devices.cells_per_gpu(3) == 3
    monkeypatch.setenv(devices.CELLS_PER_GPU, "2")
    assert devices.cells_per_gpu(3) == 2
    for wrong in ("0", "-1", "1.5", "many"):
        monkeypatch.setenv(devices.CELLS_PER_GPU, wrong)
        with pytest.raises(ValueError, match=f"{devices.CELLS_PER_GPU}: .* got '{wrong}'"):
            devices.cells_per_gpu(3)


@pytest.mark.workflow
def test_two_workflows_share_one_device(tmp_path: Path) -> None:
    install_driver(tmp_path, "GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-aa01)\n")
    first = make_workspace(tmp_path / "first")
    first.edit(only(("natural", "fgsm_rs")))
    first.edit(lambda params: params.update(device="auto", cells_per_gpu=2))
    workspaces = [first, first.copy(tmp_path / "second")]
    runs = [start_workflow(workspace, tmp_path) for workspace in workspaces]
    told = [run.communicate()[1] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], told
    times = [time for workspace in workspaces for time in device_times(workspace)]
    assert len(times) == 2 * len(device_times(first)) >= 8
    at_once = max(sum(a <= start < b for a, b in times) for start, _ in times)
    assert at_once == 2  # two workflows with two jobs each would want four


def start_workflow(workspace: Workspace, folder: Path) -> "subprocess.Popen[str]":
    """Start the attacks of a study, and what they need, with the devices of a simulated driver."""
    environment = clean_environment(
        {"PATH": f"{folder}:{BIN}:{os.environ['PATH']}", "TMPDIR": str(folder)}
    )
    for name in ("CUDA_VISIBLE_DEVICES", devices.CELLS_PER_GPU):
        environment.pop(name, None)
    return subprocess.Popen(
        ["snakemake", "--cores", "2", "--quiet", "rules", "--", "attack_all"],
        cwd=workspace.root,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def device_times(workspace: Workspace) -> list[tuple[float, float]]:
    """Return when each job that had a lease began and ended."""
    found = [json.loads(path.read_text()) for path in workspace.root.glob("results/**/timing.json")]
    assert all(2**26 < one["peak_memory_bytes"] < 2**34 for one in found)
    return [(one["started"], one["finished"]) for one in found]
