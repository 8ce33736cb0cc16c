"""Memory: what a job says that had too little, and how much it held."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline import devices, memory
from pipeline.job import JobError
from pipeline.memory import GIB
from pipeline.run import main
from tests.graph.conftest import MakeGraph, make_graph

__all__ = ["make_graph"]

ROOT = Path(__file__).resolve().parents[2]
TOLD = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 80.00 GiB of "
    "which 1.00 GiB is free."
)


def spec(stage: str = "attack", cells: int = 1, **recipe: Any) -> dict[str, Any]:
    """Return what is read of a job's spec: of an evaluation, or of a training with a recipe."""
    found: dict[str, Any] = {
        "stage": stage,
        "name": "small/trades-linf-0.1-s0",
        "params": {"recipe": {"name": "short", "parameters": {"batch_size": 512, **recipe}}},
        "unkeyed": {"device": "auto", "cells_per_gpu": cells},
    }
    if stage != "train":
        found["unkeyed"]["batch_size"] = 250
    return found


def explained(error: Exception, job: dict[str, Any]) -> str:
    """Return the message of a job whose step raises an error."""
    with pytest.raises(JobError) as caught, memory.shortage_explained(job):
        raise error
    assert caught.value.__cause__ is error  # the traceback leads to where it happened
    return str(caught.value)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Simulate a GPU of 80 GiB: this job holds 60 and 4 in its cache, others 15; 1 is free."""
    monkeypatch.delenv(devices.CELLS_PER_GPU, raising=False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H100")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (GIB, 80 * GIB))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: 60 * GIB)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 64 * GIB)
    return monkeypatch


@pytest.mark.usefixtures("gpu")
def test_an_attack_names_the_device_its_memory_and_the_batch_size_to_try() -> None:
    said = explained(torch.OutOfMemoryError(TOLD), spec())
    assert said.startswith("out of memory on NVIDIA H100: the job held 60.00 GiB and asked for 2")
    assert "could have 65.00 GiB of 80.00 GiB" in said
    assert "the batch size in force is 250 (studies.small.attack_batch_size)" in said
    assert "set studies.small.attack_batch_size to 128" in said
    assert "cells_per_gpu" not in said


@pytest.mark.usefixtures("gpu")
def test_a_training_is_pointed_to_what_keeps_its_numbers() -> None:
    said = explained(torch.OutOfMemoryError(TOLD), spec("train"))
    assert "the batch size in force is 512 (recipes.short.batch_size)" in said
    assert "set recipes.short.micro_batch to 256, which keeps the numbers" in said
    assert "where that is refused (BatchNorm, some methods) recipes.short.batch_size" in said


@pytest.mark.usefixtures("gpu")
def test_a_micro_batch_in_force_is_what_gets_smaller() -> None:
    said = explained(torch.OutOfMemoryError(TOLD), spec("train", micro_batch=64))
    assert "the batch size in force is 64 (recipes.short.micro_batch)" in said
    assert "set recipes.short.micro_batch to 32" in said


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("recipe", [{"batch_size": 1}, {"halve_on_out_of_memory": True}])
def test_a_batch_of_one_cannot_be_smaller(recipe: dict[str, Any]) -> None:
    said = explained(torch.OutOfMemoryError(TOLD), spec("train", **recipe))
    assert "the batch size in force is 1 (" in said
    assert "no batch is smaller" in said
    assert "micro_batch" not in said


@pytest.mark.usefixtures("gpu")
def test_a_job_that_shares_its_device_is_told_its_share() -> None:
    said = explained(torch.OutOfMemoryError(TOLD), spec(cells=4))
    # A quarter of the 78 GiB that four contexts of half a GiB leave; 62 were wanted.
    assert "could have 19.50 GiB of 80.00 GiB, which 4 cells share" in said
    assert "set studies.small.attack_batch_size to 64" in said  # 250 * 19.5 / 62 = 78
    assert "let fewer than 4 cells share a GPU (cells_per_gpu)" in said


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("HIP out of memory"),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported later"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
    ids=lambda error: str(error)[:24],
)
def test_other_words_for_it_are_known(error: Exception) -> None:
    said = explained(error, spec())
    assert "the job held 60.00 GiB, and could have" in said
    assert "to 128" in said


@pytest.mark.usefixtures("gpu")
def test_the_want_of_memory_behind_another_error_is_found() -> None:
    error = RuntimeError("the backend raised")
    error.__cause__ = torch.OutOfMemoryError(TOLD)
    assert "asked for 2.00 GiB" in explained(error, spec())


def test_a_device_that_others_fill_is_said_to_be_full(gpu: pytest.MonkeyPatch) -> None:
    def full() -> tuple[int, int]:
        raise RuntimeError("CUDA error: out of memory")

    gpu.setattr(torch.cuda, "mem_get_info", full)
    said = explained(RuntimeError("CUDA error: out of memory"), spec(cells=2))
    assert "before the job could start on it" in said
    assert "let fewer than 2 cells share a GPU" in said


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:119] err == 0. DefaultCPUAllocator: can't allocate "
            "memory: you tried to allocate 4398046511104 bytes. Error code 12"
        ),
        OSError(12, "Cannot allocate memory"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_the_memory_of_the_machine_can_be_too_small(error: Exception) -> None:
    said = explained(error, spec())
    assert said.startswith("out of memory on the CPU: the job held ")
    assert ("4096.00 GiB more" in said) == isinstance(error, RuntimeError)
    assert "the batch size in force is 250" in said
    assert "run fewer jobs at once (snakemake --cores 1)" in said


def test_a_job_without_a_batch_size_says_what_it_can() -> None:
    said = explained(MemoryError(), {**spec("collect"), "unkeyed": {}})
    assert "batch" not in said
    given = {**spec("train"), "params": {"recipe": None}}
    assert "batch" not in explained(MemoryError(), given)


@pytest.mark.parametrize("error", [ValueError("x"), RuntimeError("x"), OSError(2, "absent")])
def test_another_error_stays_what_it_is(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, memory.shortage_explained(spec()):
        raise error
    assert caught.value is error


@pytest.mark.parametrize(
    ("batch", "usable", "wanted", "expected"),
    [
        (250, 90, 100, 128),
        (512, 99, 100, 256),
        (512, 50, 100, 256),
        (512, 49, 100, 128),
        (512, 100, 90, 256),  # fragments: there was enough, but not in one piece
        (100, 99, 100, 64),
        (512, 1, 10**6, 1),
        (2, 99, 100, 1),
        (1, 99, 100, 1),
        (250, 90, 0, 128),
    ],
)
def test_the_batch_size_to_try(batch: int, usable: int, wanted: int, expected: int) -> None:
    assert memory.batch_to_try(batch, usable, wanted) == expected


def test_shares_leave_room_for_what_torch_does_not_count() -> None:
    for total in (8 * GIB, 80 * GIB, 140 * GIB):
        for cells in (2, 4, 8):
            used = cells * (memory.share(total, cells) * total + memory.CONTEXT)
            assert used == pytest.approx(total)
    assert memory.share(80 * GIB, 1) == 1
    assert memory.share(2 * GIB, 8) == 1 / 16  # never nothing


def test_the_machine_refuses_and_the_job_says_so() -> None:
    limit = 8 * GIB
    program = (
        "import resource, torch\n"
        "from pipeline.memory import shortage_explained\n"
        f"resource.setrlimit(resource.RLIMIT_AS, ({limit}, {limit}))\n"
        f"with shortage_explained({spec()!r}):\n"
        f"    torch.empty({16 * GIB}, dtype=torch.uint8)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={"PATH": "", "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "JobError: out of memory on the CPU" in done.stderr
    assert "asked for 16.00 GiB more" in done.stderr
    assert "of 8.00 GiB" in done.stderr


def test_a_step_that_runs_out_of_memory_fails_with_the_advice(
    make_graph: MakeGraph,
    gpu: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def step(_: object) -> None:
        raise torch.OutOfMemoryError(TOLD)

    node = make_graph()["train:tiny/natural-s0"]
    path = node.root / node.spec_path
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({**node.spec(), "inputs": []}))
    gpu.chdir(node.root)
    gpu.setattr("pipeline.steps.train.run", step)
    gpu.setenv("ADVTRAIN_STORE", "off")
    assert main([str(path)]) == 1
    said = capsys.readouterr().err
    assert "train tiny/natural-s0: out of memory on NVIDIA H100: the job held 60.00 GiB" in said
    assert "set recipes.short.micro_batch to 8" in said
    cause = json.loads((node.root / node.progress).read_text())["cause"]
    assert "set recipes.short.micro_batch to 8" in cause
    trace = (node.root / "logs/train/tiny/natural-s0.traceback.log").read_text()
    assert TOLD in trace  # the allocator's own words


def test_the_peak_is_that_of_the_process_itself() -> None:
    before = memory.peak_bytes()
    block = bytearray(b"x") * (before + 64 * 2**20)
    held = memory.peak_bytes()
    del block
    assert held > before + 32 * 2**20
    assert memory.peak_bytes() == pytest.approx(held, rel=0.01)  # Linux counts in batches
    told = subprocess.run(
        [sys.executable, "-c", "from pipeline.memory import peak_bytes; print(peak_bytes())"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert 0 < int(told.stdout) < held  # not of the large process that started it


@pytest.mark.gpu
def test_a_real_gpu_refuses_and_the_job_says_so() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    said = r"out of memory on .*batch size in force is 250"
    with pytest.raises(JobError, match=said), memory.shortage_explained(spec()):
        torch.empty(2**50, dtype=torch.uint8, device="cuda")


@pytest.mark.gpu
def test_a_job_is_held_to_its_share_of_a_real_gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    total = torch.cuda.get_device_properties(0).total_memory
    program = (
        "import torch\n"
        "from pipeline.memory import limit_to_share, peak_bytes, shortage_explained\n"
        f"with shortage_explained({spec(cells=4)!r}):\n"
        f"    limit_to_share({spec(cells=4)!r})\n"
        f"    held = torch.empty({total // 8}, dtype=torch.uint8, device='cuda')\n"
        f"    assert peak_bytes() >= {total // 8}\n"
        "    del held\n"
        f"    torch.empty({total // 3}, dtype=torch.uint8, device='cuda')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "JobError: out of memory on" in done.stderr
    assert "which 4 cells share" in done.stderr
