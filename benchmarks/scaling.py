"""Whether cells that run beside each other are in each other's way.

    python benchmarks/scaling.py [--quick] [--device cuda] [--folder FOLDER]

Each process trains a cell of its own, one thread each, all for the same time, and says how many
images it has trained on. On the CPU there are 1, 2, ... as many as there are cores (P8); on CUDA 1,
2 and 3 on one GPU (G4). Rounds of all of these take turns.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT)]

import torch  # noqa: E402

from advtrain.data.store import Split  # noqa: E402
from advtrain.methods.pgd_at import PgdAt  # noqa: E402
from advtrain.models.preact_resnet import preact_resnet  # noqa: E402
from advtrain.models.small_cnn import small_cnn  # noqa: E402
from advtrain.threat import ThreatModel  # noqa: E402
from advtrain.training.loop import TrainingData, train  # noqa: E402
from benchmarks import harness  # noqa: E402
from benchmarks.harness import CPU, SEED, Goal, Results, ratio, spread, turns  # noqa: E402
from pipeline.job import keep_freed_memory  # noqa: E402

BATCH = 128


class OutOfTimeError(Exception):
    """The time of a cell is over."""


def cells_section(device: torch.device, quick: bool) -> Results:
    """Images per second of several cells beside each other, one thread each (P8, G4)."""
    cpu = device.type == "cpu"
    counts = [2**power for power in range(harness.cores().bit_length())] if cpu else [1, 2, 3]
    counts = sorted({*counts, harness.cores()}) if cpu else counts
    rounds, seconds = (2, 3.0) if quick else (5, 10.0)
    rates: dict[int, list[float]] = {count: [] for count in counts}
    for number in range(rounds):
        for name in turns([str(count) for count in counts], number):
            rates[int(name)].append(together(int(name), seconds, device))
    results = Results()
    for count in counts:
        gain = ratio(rates[count], rates[1])
        row = {"cells": count, "images per second": spread(rates[count]), "of one cell's": gain}
        results.rows.append(row)
        if count == 1:
            continue
        if cpu:
            label = f"P8 {count} cells on {count} cores: rate / {count} of one"
            results.goals.append(Goal(label, spread([one / count for one in gain]), 0.9))
        elif count == 3:
            results.goals.append(Goal("G4 3 cells on one GPU: rate / rate of one", gain, 1.5))
    return results


def together(count: int, seconds: float, device: torch.device) -> float:
    """The images per second of so many processes, which begin when all are ready."""
    command = [sys.executable, "-W", "ignore", str(Path(__file__)), "--cell", str(seconds)]
    with tempfile.TemporaryDirectory() as folder:
        cells = [
            subprocess.Popen(
                [*command, "--folder", f"{folder}/{number}", "--device", device.type],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for number in range(count)
        ]
        for cell in cells:
            told(cell)
        for cell in cells:
            assert cell.stdin is not None
            cell.stdin.write("go\n")
            cell.stdin.flush()
        rates = [float(told(cell)) for cell in cells]
        for cell in cells:
            cell.wait()
    return sum(rates)


def told(cell: "subprocess.Popen[str]") -> str:
    """The next line of a process."""
    assert cell.stdout is not None
    line = cell.stdout.readline()
    if not line:
        raise RuntimeError(f"a cell ended with the exit code {cell.wait()}; its error stands above")
    return line


def cell(seconds: float, folder: Path, device: torch.device) -> None:
    """Train, say that all is warm, wait for the word, train on, and print the rate."""
    keep_freed_memory()
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    if device.type == "cpu":
        model, shape, minibatches = small_cnn(channels=1, size=28, classes=10), (1, 28, 28), 2
    else:
        model, shape, minibatches = preact_resnet(channels=3, size=32, classes=10), (3, 32, 32), 100
    count = BATCH * minibatches
    images = torch.randint(0, 256, (count, *shape), dtype=torch.uint8)
    made = Split(images, torch.randint(0, 10, (count,)), torch.arange(count))
    started: list[float] = []
    seen: list[float] = []

    def on_epoch(row: dict[str, float]) -> None:
        seen.append(row["examples_seen"])
        now = time.perf_counter()
        if not started:
            print("ready", flush=True)
            sys.stdin.readline()
            started.append(time.perf_counter())
        elif now - started[0] >= seconds:
            print((seen[-1] - seen[0]) / (now - started[0]), flush=True)
            raise OutOfTimeError

    folder.mkdir(parents=True)
    try:
        train(
            model,
            PgdAt(steps=7),
            ThreatModel("linf", 8 / 255),
            TrainingData(made, made.take(slice(0))),
            SEED,
            folder,
            on_epoch,
            device,
            epochs=10**6,
            batch_size=BATCH,
            precision="float32" if device.type == "cpu" else "bfloat16",
        )
    except OutOfTimeError:
        return


SECTIONS: dict[str, Callable[..., Results]] = {"cells": cells_section}


def main(argv: list[str] | None = None) -> None:
    """Measure, print, and keep the results; or be one of the cells."""
    arguments = harness.parser(__doc__, SECTIONS)
    arguments.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    arguments.add_argument("--cell", type=float, help=argparse.SUPPRESS)
    given = arguments.parse_args(argv)
    device = CPU if given.device == "cpu" else harness.cuda_device()
    if given.cell is not None:
        cell(given.cell, given.folder, device)
    else:
        harness.measure("scaling", SECTIONS, given, device, given.quick, device=device)


if __name__ == "__main__":
    main()
