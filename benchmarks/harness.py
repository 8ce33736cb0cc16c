"""What the benchmarks share: networks in turn, ratios within a round, goals, and the record kept.

The methods of a section take turns, in another order each round. What is shown is CPU time of the
process (on CUDA the device's own time, between two events): medians over the rounds with their
range, and medians of the ratios within a round, which the load of the machine moves less.

Each section's results go to a file of their own, `reports/bench/SUITE-SECTION-DEVICE-DATE.json`,
as soon as it is done; `benchmarks/performance.py` makes the page of them.
"""

import argparse
import copy
import datetime
import itertools
import json
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from advtrain.noise import Noise
from advtrain.provenance import git_commit
from advtrain.threat import ThreatModel
from benchmarks.performance import show
from pipeline.job import keep_freed_memory

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / "reports/bench"
CPU = torch.device("cpu")
SEED = 0
PACKAGES = (
    *("torch", "numpy", "pyarrow", "snakemake", "dvc"),
    *("torchattacks", "foolbox", "adversarial-robustness-toolbox"),
)

Spread = tuple[float, float, float]
"""The median, the least and the largest."""

Method = Callable[[Tensor, Tensor, Noise], Any]
"""(x, y, noise) -> whatever the section makes of it."""


@dataclass(frozen=True)
class Network:
    """A network, and images for it.

    Attributes:
        name: as in the tables.
        model: in eval mode.
        x: (N, C, H, W) in [0, 1], on the device of the model.
        y: (N,) int64.
        threat: the budget.
        batch: how many images an attack or a weight step is given at once.
    """

    name: str
    model: nn.Module
    x: Tensor
    y: Tensor
    threat: ThreatModel
    batch: int

    @property
    def device(self) -> torch.device:
        """Where the images are."""
        return self.x.device

    def batches(self) -> Iterator[tuple[Tensor, Tensor, Noise]]:
        """Full batches of images, their labels and their noise, without end."""
        full = len(self.y) // self.batch
        for number in itertools.cycle(range(full)):
            rows = torch.arange(number * self.batch, (number + 1) * self.batch, device=self.device)
            yield self.x[rows], self.y[rows], Noise(SEED, rows)

    def of(self, batch: int) -> "Network":
        """The same with other batches, no larger than there are images."""
        return replace(self, batch=min(batch, len(self.y)))


def channels_last(network: Network) -> nn.Module:
    """A copy of the network whose kernels have the channels innermost."""
    return copy.deepcopy(network.model).to(memory_format=torch.channels_last)


@dataclass(frozen=True)
class Goal:
    """What a number should be.

    Attributes:
        name: the goal's code, as in `benchmarks/performance.py`, and what was measured.
        measured: one number, or a median with its range.
        bound: that the number, or the median, is held to.
        at_most: whether the bound is the largest that is wanted, else the least.
    """

    name: str
    measured: float | Spread
    bound: float
    at_most: bool = False

    @property
    def value(self) -> float:
        """The number that is judged."""
        return self.measured[0] if isinstance(self.measured, tuple) else self.measured

    @property
    def met(self) -> bool:
        """Whether it is as it should be."""
        return self.value <= self.bound if self.at_most else self.value >= self.bound

    def __str__(self) -> str:
        sign, verdict = "<=" if self.at_most else ">=", "met" if self.met else "MISSED"
        text = f"{verdict:6} {self.name}: {show(self.measured)} (goal {sign} {self.bound:g})"
        if not self.met and "bfloat16" in self.name and not bfloat16_instructions():
            text += "; this processor has no bfloat16 instructions"
        return text


@dataclass
class Results:
    """Of one section: rows of a table, the goals, and remarks."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    rounds: int
    images: int

    @property
    def quick(self) -> bool:
        """Whether it is a trial of the benchmark, whose figures say little."""
        return self.rounds <= 2


QUICK, FULL = Size(rounds=2, images=128), Size(rounds=7, images=1024)

# ------------------------------------------------------------------------------ measuring


def timed(action: Callable[[], Any], device: torch.device = CPU) -> tuple[float, Any]:
    """The seconds that an action takes, and what it returns.

    On the CPU they are the process's own, in which waiting does not count; on CUDA they lie between
    two events on the device, so that waiting for launches does.
    """
    if device.type == "cpu":
        started = time.process_time()
        found = action()
        return time.process_time() - started, found
    torch.cuda.synchronize(device)
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()
    found = action()
    last.record()
    torch.cuda.synchronize(device)
    return first.elapsed_time(last) / 1000, found


def interleaved(
    methods: Mapping[str, Method], network: Network, rounds: int, *, repeats: int = 1
) -> tuple[dict[str, list[float]], dict[str, list[Any]]]:
    """Let the methods take turns on one batch after another.

    Args:
        methods: by name.
        network: gives the batches.
        rounds: how often each has its turn.
        repeats: calls in a turn, where one is too short to be timed.

    Returns:
        The seconds of each method in each round, and what it returned. The first batch is run once
        before, unmeasured: compilers, caches and lazy imports.
    """
    x, y, noise = next(network.batches())
    for method in methods.values():
        method(x, y, noise)
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    returned: dict[str, list[Any]] = {name: [] for name in methods}
    for number, (x, y, noise) in zip(range(rounds), network.batches(), strict=False):
        for name in turns(list(methods), number):
            turn = partial(_repeated, repeats, methods[name], x, y, noise)
            spent, found = timed(turn, network.device)
            seconds[name].append(spent / repeats)
            returned[name].append(found)
    return seconds, returned


def _repeated(repeats: int, method: Method, x: Tensor, y: Tensor, noise: Noise) -> Any:
    for _ in range(repeats):
        found = method(x, y, noise)
    return found


def turns(names: list[str], number: int) -> list[str]:
    """The order of a round: another one begins."""
    first = number % len(names)
    return names[first:] + names[:first]


def ratio(over: list[float], under: list[float]) -> Spread:
    """The median, least and largest of the ratios within a round."""
    return spread([one / other for one, other in zip(over, under, strict=True)])


def spread(values: list[float]) -> Spread:
    """The median, least and largest."""
    return statistics.median(values), min(values), max(values)


def timing(seconds: list[float]) -> dict[str, Spread]:
    """The column of the seconds."""
    return {"seconds": spread(seconds)}


# ------------------------------------------------------------------------------ the machine


def cpuinfo(name: str) -> str:
    """What Linux says of the first processor; nothing elsewhere."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith(name)), "")


def bfloat16_instructions() -> bool:
    """Whether products in bfloat16 are the processor's own."""
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & set(cpuinfo("flags").split()))


def cores() -> int:
    """How many the process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def machine(device: torch.device = CPU) -> dict[str, Any]:
    """What the times depend on."""
    found = {
        "processor": cpuinfo("model name") or platform.processor() or platform.machine(),
        "kernels": torch.backends.cpu.get_cpu_capability(),
        "bfloat16 instructions": bfloat16_instructions(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "load": [round(load, 2) for load in os.getloadavg()],
        "python": platform.python_version(),
    }
    if device.type == "cuda":
        found |= {
            "gpu": torch.cuda.get_device_name(device),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    return found | installed()


def installed() -> dict[str, str]:
    """The versions of the packages that are there."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # the peers are not on every GPU machine
            continue
    return found


@contextmanager
def one_thread() -> Iterator[None]:
    """Two threads of one process would share its CPU time with what they wait for."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


# ------------------------------------------------------------------------------ the report


def table(rows: list[dict[str, Any]]) -> str:
    """Columns of the rows, as wide as they must be."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [names, *[[show(row[name]) if name in row else "" for name in names] for row in rows]]
    widths = [max(len(line[place]) for line in cells) for place in range(len(names))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    )


def rounded(value: Any) -> Any:
    """The same with four digits that count, which are more than a time has."""
    if isinstance(value, dict):
        return {name: rounded(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(one) for one in value]
    if isinstance(value, float):
        return float(f"{value:.4g}") if math.isfinite(value) else None
    return value


def parser(text: str | None, sections: Mapping[str, object]) -> argparse.ArgumentParser:
    """The arguments that every suite takes."""
    made = argparse.ArgumentParser(description=(text or "").splitlines()[0])
    made.add_argument("--quick", action="store_true", help="a trial: few rounds, nothing is kept")
    made.add_argument("--only", nargs="+", choices=sections, default=list(sections))
    made.add_argument(
        "--folder", type=Path, help=f"where the results go; {KEPT.relative_to(ROOT)} if not given"
    )
    return made


def measure(
    suite: str,
    sections: Mapping[str, Callable[..., Results]],
    given: argparse.Namespace,
    *arguments: Any,
    device: torch.device = CPU,
) -> None:
    """Run the chosen sections one after the other, print them, and keep what they found.

    Args:
        suite: whose sections they are.
        sections: by name; the first line of the docstring is the title.
        given: by the arguments of `parser`.
        arguments: of each section.
        device: that is measured.
    """
    keep_freed_memory()  # as the pipeline's jobs do
    folder = given.folder or (None if given.quick else KEPT)
    with one_thread():
        before = machine(device)
        print(json.dumps(before), flush=True)
        for name in given.only:
            title = (sections[name].__doc__ or "").splitlines()[0]
            found = sections[name](*arguments)
            print(f"\n{title}\n{table(found.rows)}", flush=True)
            for line in [*found.remarks, *map(str, found.goals)]:
                print(line, flush=True)
            if folder is not None:
                keep(
                    folder,
                    {
                        "suite": suite,
                        "section": name,
                        "title": title,
                        "device": device.type,
                        "date": datetime.date.today().isoformat(),
                        "quick": given.quick,
                        "commit": git_commit(ROOT),
                        "machine": before,
                        "load after": [round(load, 2) for load in os.getloadavg()],
                        **asdict(found),
                    },
                )


def keep(folder: Path, record: dict[str, Any]) -> Path:
    """Write the record of a section; one of the same day is replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    name = "-".join(record[part] for part in ("suite", "section", "device", "date"))
    path = folder / f"{name}.json"
    path.write_text(json.dumps(rounded(record), indent=1) + "\n", encoding="utf-8")
    return path


def cuda_device() -> torch.device:
    """The GPU, or the end of the program where there is none."""
    if not torch.cuda.is_available():
        raise SystemExit(
            "torch finds no CUDA device, which these benchmarks are for; check the driver with "
            "nvidia-smi, or run make bench, which needs none"
        )
    return torch.device("cuda")
