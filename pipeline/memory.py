"""Memory: a job's share of it, the most that it held, and what to do where there is too little."""

import contextlib
import errno
import os
import re
import resource
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from advtrain.params.environment import kilobytes, most_held
from pipeline.devices import cells_per_gpu
from pipeline.job import JobError

GIB = 2**30
CONTEXT = GIB // 2
"""What a process is taken to need on a GPU besides its tensors: kernels and their workspace, which
torch's allocator does not count."""
SAID_OF_GPU = ("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAIL")
SAID_OF_HOST = ("DefaultCPUAllocator", "Cannot allocate memory", "std::bad_alloc")
"""How torch's errors that have no type of their own say it."""
SIZE = re.compile(r"tried to allocate ([\d.]+) ?(bytes|[KMGT]iB)", re.IGNORECASE)
UNITS = {"bytes": 1, "kib": 2**10, "mib": 2**20, "gib": GIB, "tib": 2**40}


class Memory(NamedTuple):
    """The memory of a device as one process sees it, in bytes.

    Attributes:
        device: its name.
        used: what this process holds.
        total: what there is.
        usable: what this process could hold: of its share, and of what others leave.
    """

    device: str
    used: int
    total: int
    usable: int


class Batch(NamedTuple):
    """The batch size in force, and where `params.yaml` says it.

    Attributes:
        size: examples that are held at once.
        place: the parameter.
        mend: what to set, with `{}` for its value, and what that does.
    """

    size: int
    place: str
    mend: str


def limit_to_share(spec: Mapping[str, Any]) -> None:
    """Keep a job that shares its GPU to its share of the memory.

    What it can have then does not depend on its neighbours, and too little shows in the job that
    needs too much.
    """
    cells = _cells(spec)
    if cells > 1 and spec["unkeyed"].get("device", "cpu") != "cpu":
        import torch

        if torch.cuda.is_available():
            total = torch.cuda.get_device_properties(0).total_memory
            torch.cuda.set_per_process_memory_fraction(share(total, cells))


def share(total: int, cells: int) -> float:
    """Return the share of a GPU's memory that each of some cells may fill with tensors.

    Args:
        total: its memory in bytes.
        cells: that share it, 1 or more.
    """
    return max(1 - cells * CONTEXT / total, 0.5) / cells if cells > 1 else 1.0


def peak_bytes() -> int:
    """Return the most memory that was held: by tensors on the GPU; without one, by the process."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return int(torch.cuda.max_memory_allocated())
    return most_held()


@contextlib.contextmanager
def shortage_explained(spec: Mapping[str, Any]) -> Iterator[None]:
    """Say of an error for want of memory what there was, and the batch size to try.

    Raises:
        JobError: in the place of any error that means it.
    """
    try:
        yield
    except Exception as error:
        found = shortage_in(error)
        if found is None:
            raise
        # The frames of the error still hold what was held when it was raised.
        raise JobError(explanation(found, spec)) from error


def shortage_in(error: BaseException | None) -> BaseException | None:
    """Return the want of memory that an error is, or that caused it; None if there is none."""
    if error is None or _is_of_gpu(error) or _is_of_host(error):
        return error
    return shortage_in(error.__cause__)


def explanation(shortage: BaseException, spec: Mapping[str, Any]) -> str:
    """Say what memory a job had and wanted, and what to change.

    Args:
        shortage: what `shortage_in` found.
        spec: the job's.
    """
    on_gpu = _is_of_gpu(shortage)
    cells = _cells(spec) if on_gpu else 1
    others = f"let fewer than {cells} cells share a GPU (cells_per_gpu)"
    memory = _cuda_memory(cells) if on_gpu else _host_memory()
    if memory is None:
        fewer = f", or {others}" if cells > 1 else ""
        return (
            "out of memory on the GPU before the job could start on it: other processes fill it "
            f"(nvidia-smi names them); wait for them{fewer}"
        )
    asked = _asked(shortage)
    wanted = f" and asked for {_gib(asked)} more" if asked else ""
    shared = f", which {cells} cells share" if cells > 1 else ""
    parts = [
        f"out of memory on {memory.device}: the job held {_gib(memory.used)}{wanted}, and could "
        f"have {_gib(memory.usable)} of {_gib(memory.total)}{shared}"
    ]
    batch = batch_in_force(spec)
    if batch is not None:
        size = batch_to_try(batch.size, memory.usable, memory.used + asked)
        smaller = batch.mend.format(size)
        parts += [
            f"the batch size in force is {batch.size} ({batch.place})",
            smaller if size < batch.size else "no batch is smaller, so take a smaller model",
        ]
    if cells > 1:
        parts.append(f"or {others}")
    elif not on_gpu:
        parts.append("or run fewer jobs at once (snakemake --cores 1)")
    return "; ".join(parts)


def batch_in_force(spec: Mapping[str, Any]) -> Batch | None:
    """Return the batch size that a job runs with, or None if it has none."""
    if spec["stage"] == "train" and spec["params"]["recipe"]:
        recipe = spec["params"]["recipe"]
        place, values = f"recipes.{recipe['name']}", recipe["parameters"]
        mend = (
            f"set {place}.micro_batch to {{}}, which keeps the numbers, or where that is refused "
            f"(BatchNorm, some methods) {place}.batch_size, which makes another training"
        )
        whole = values["batch_size"]
        if values.get("halve_on_out_of_memory"):
            return Batch(1, f"{place}.halve_on_out_of_memory came down to it", mend)
        if 0 < values.get("micro_batch", 0) < whole:
            return Batch(values["micro_batch"], f"{place}.micro_batch", mend)
        return Batch(whole, f"{place}.batch_size", mend)
    if "batch_size" in spec["unkeyed"]:
        place = f"studies.{spec['name'].split('/')[0]}.attack_batch_size"
        mend = (
            f"set {place} to {{}} (`advtrain evaluate`: --batch-size), on which no result depends "
            "beyond rounding"
        )
        return Batch(spec["unkeyed"]["batch_size"], place, mend)
    return None


def batch_to_try(batch: int, usable: int, wanted: int) -> int:
    """Return the largest power of two of examples, below the batch, for which there is memory.

    Args:
        batch: that was too large.
        usable: bytes that the job could have.
        wanted: bytes that it held and asked for when it failed, all for the batch; it may have
            wanted more later.

    Returns:
        1 or more.
    """
    fits = min(int(batch * usable / max(wanted, 1)), batch - 1)
    return 1 << (max(fits, 1).bit_length() - 1)


def _cells(spec: Mapping[str, Any]) -> int:
    return cells_per_gpu(spec["unkeyed"].get("cells_per_gpu", 1))


def _is_of_gpu(error: BaseException) -> bool:
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(one in str(error) for one in SAID_OF_GPU)


def _is_of_host(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    said = isinstance(error, RuntimeError) and any(one in str(error) for one in SAID_OF_HOST)
    return isinstance(error, MemoryError) or said


def _asked(error: BaseException) -> int:
    """Return the bytes that could not be had; 0 if the error does not say."""
    found = SIZE.search(str(error))
    return int(float(found[1]) * UNITS[found[2].lower()]) if found else 0


def _cuda_memory(cells: int) -> Memory | None:
    """Look at the GPU's memory; None where there was not enough to start on it."""
    import torch

    try:
        free, total = torch.cuda.mem_get_info()
    except RuntimeError:
        return None
    usable = min(int(total * share(total, cells)), torch.cuda.memory_reserved() + free)
    return Memory(torch.cuda.get_device_name(), torch.cuda.memory_allocated(), total, usable)


def _host_memory() -> Memory:
    """Look at the machine's memory, within what the process's limits allow."""
    installed = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    limits = [limit] if limit != resource.RLIM_INFINITY else []
    total = min([installed, *limits, *_group_limits()])
    used = kilobytes(Path("/proc/self/status"), "VmRSS") or most_held()
    free = kilobytes(Path("/proc/meminfo"), "MemAvailable")
    return Memory("the CPU", used, total, min(total, used + free) if free else total)


def _group_limits() -> list[int]:
    """Return the limit of the control group (a container, a Slurm job), if there is one."""
    with contextlib.suppress(OSError, ValueError):
        group = Path("/proc/self/cgroup").read_text().rpartition("0::/")[2].strip()
        return [int(Path("/sys/fs/cgroup", group, "memory.max").read_text())]  # or "max"
    return []


def _gib(count: float) -> str:
    return f"{count / GIB:.2f} GiB"
