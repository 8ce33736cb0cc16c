"""What one GPU does: attack steps as graphs, whole trainings, and whether it ever waits.

    python benchmarks/gpu.py [--quick] [--only graphs ...] [--data FOLDER] [--folder FOLDER]

`graphs` (G1) and `idle` (G4) need no data. `trainings` (G2) takes the prepared CIFAR-10 of
`--data` (`data/prepared/cifar10.KEY`) and then measures PGD-20 on its test images too; without it,
random images of the same number and size, which take the same time. The other parts of G4 are
`benchmarks/training.py --device cuda` (data) and `benchmarks/scaling.py --device cuda` (sharing).
"""

import copy
import itertools
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT)]

import torch  # noqa: E402
from torch import Tensor  # noqa: E402

from advtrain.attacks.ascent import ascend  # noqa: E402
from advtrain.attacks.frozen import crafting  # noqa: E402
from advtrain.attacks.objectives import cross_entropy  # noqa: E402
from advtrain.attacks.pgd import pgd  # noqa: E402
from advtrain.data.store import Split, load_split  # noqa: E402
from advtrain.evaluation.evaluate import evaluate  # noqa: E402
from advtrain.methods.fgsm_rs import FgsmRs  # noqa: E402
from advtrain.methods.free import Free  # noqa: E402
from advtrain.methods.method import Method as Trained  # noqa: E402
from advtrain.methods.pgd_at import PgdAt  # noqa: E402
from advtrain.models.preact_resnet import preact_resnet  # noqa: E402
from advtrain.noise import Noise  # noqa: E402
from advtrain.threat import ThreatModel  # noqa: E402
from advtrain.training.compiling import CompileMode, compiled  # noqa: E402
from advtrain.training.loop import TrainingData, train  # noqa: E402
from advtrain.training.precision import Precision, computing  # noqa: E402
from benchmarks import harness  # noqa: E402
from benchmarks.harness import (  # noqa: E402
    FULL,
    QUICK,
    SEED,
    Goal,
    Method,
    Network,
    Results,
    Size,
    interleaved,
    ratio,
    spread,
    timing,
)
from benchmarks.training import operations  # noqa: E402

THREAT = ThreatModel("linf", 8 / 255)
STEPS = 10
"""Of the attack whose steps are timed."""


def resnet(device: torch.device, batch: int) -> Network:
    """The usual network of CIFAR-10 in use, and random images."""
    torch.manual_seed(SEED)
    model = preact_resnet(channels=3, size=32, classes=10).to(device)
    x = torch.rand(batch, 3, 32, 32).to(device)
    with torch.no_grad():
        for _ in range(10):
            model.train()(x)
        y = model.eval()(x).argmax(1)
    return Network(f"PreActResNet18, batch {batch}", model, x, y, THREAT, batch)


# ------------------------------------------------------------------------------ G1: graphs

VARIANTS: dict[str, tuple[Precision, bool, CompileMode]] = {
    "float32": ("float32", False, "none"),
    "tf32, channels_last": ("tf32", True, "none"),
    "bfloat16": ("bfloat16", False, "none"),
    "bfloat16, channels_last": ("bfloat16", True, "none"),
    "bfloat16, channels_last, compiled": ("bfloat16", True, "default"),
    "bfloat16, channels_last, graphs": ("bfloat16", True, "reduce-overhead"),
}


def graphs_section(device: torch.device, size: Size, data: Path | None) -> Results:
    """A step of an attack, eager, compiled and as CUDA graphs, and its TFLOP/s (G1)."""
    results = Results()
    fastest: dict[int, Any] = {}
    for batch in (128, 512, 1024):
        network = resnet(device, batch)
        with ExitStack() as open_until_measured:
            methods = {
                name: steps(network, *variant, open_until_measured)
                for name, variant in VARIANTS.items()
            }
            seconds, _ = interleaved(methods, network, size.rounds, repeats=2 if size.quick else 10)
        x, y, noise = next(network.batches())
        # Counted on the eager network: a compiled one hides its operators.
        work = operations(partial(steps(network, *VARIANTS["float32"], ExitStack()), x, y, noise))
        rates = {
            name: spread([work / one / 1e12 for one in found]) for name, found in seconds.items()
        }
        for name in methods:
            one = [found / STEPS for found in seconds[name]]
            results.rows.append(
                {
                    "network": network.name,
                    "attack step": name,
                    **timing(one),
                    "TFLOP/s": rates[name],
                    "float32 / it": ratio(seconds["float32"], seconds[name]),
                }
            )
        fastest[batch] = max(rates.values())
        if batch == 128:
            gain = ratio(
                seconds["bfloat16, channels_last"], seconds["bfloat16, channels_last, graphs"]
            )
            results.goals.append(Goal("G1 batch 128, bfloat16: eager / graphs", gain, 2))
    largest = max(found for batch, found in fastest.items() if batch >= 512)
    results.goals.append(Goal("G1 batch 512 or more: TFLOP/s", largest, 200))
    return results


def steps(
    network: Network, precision: Precision, last: bool, mode: CompileMode, still_open: ExitStack
) -> Method:
    """So many steps of ascent on a copy of the network that stays compiled until the end."""
    layout = torch.channels_last if last else torch.contiguous_format
    model = copy.deepcopy(network.model).to(memory_format=layout)
    still_open.enter_context(compiled(model, mode))

    def attack(x: Tensor, y: Tensor, noise: Noise) -> Tensor:
        x = x.contiguous(memory_format=layout)
        with computing(precision, model, network.device), crafting(model):
            return ascend(
                *(model, x, x, partial(cross_entropy, y=y), THREAT),
                steps=STEPS,
                step_size=THREAT.epsilon / 4,
            )

    return attack


# ------------------------------------------------------------------------------ G2: trainings

RECIPE: dict[str, Any] = {
    "batch_size": 128,
    "learning_rate": 0.2,
    "schedule": "cyclic",
    "crop_padding": 4,
    "flip": True,
    "precision": "bfloat16",
    "channels_last": True,
    "compile_mode": "reduce-overhead",
    "determinism": "fast",
}
TRAININGS: list[tuple[str, Trained, int, float]] = [
    ("PGD-7, 30 epochs", PgdAt(steps=7), 30, 180),
    ("Fast-AT, 15 epochs", FgsmRs(), 15, 30),
    ("Free m = 8, 10 passes over the data", Free(replays=8), 80, 90),
]
WANTED = 0.46
"""Accuracy under PGD-20 that Free and Fast-AT were published with."""


def trainings_section(device: torch.device, size: Size, data: Path | None) -> Results:
    """Whole trainings of PreActResNet-18 on CIFAR-10's images, from nothing to the weights (G2)."""
    results = Results()
    found, test = images(size, data)
    reached: list[float] = []
    for name, method, epochs, bound in TRAININGS:
        torch.manual_seed(SEED)
        model = preact_resnet(channels=3, size=32, classes=10)
        ends = [time.perf_counter()]
        with tempfile.TemporaryDirectory() as folder:
            train(
                model,
                method,
                THREAT,
                TrainingData(found, found.take(slice(0))),
                SEED,
                Path(folder),
                partial(note, ends),
                device,
                **RECIPE | {"epochs": 2 * method.replays if size.quick else epochs},
            )
        seconds = ends[-1] - ends[0]
        later = [after - before for before, after in itertools.pairwise(ends[1:])]
        row: dict[str, Any] = {"training": name, "seconds": seconds}
        row |= {"epochs done": len(ends) - 1, "seconds of an epoch": spread(later)}
        if test is not None:
            row["PGD-20 accuracy"] = robust(model, test, device)
            reached += [seconds] if row["PGD-20 accuracy"] >= WANTED else []
        results.rows.append(row)
        if not size.quick:
            results.goals.append(Goal(f"G2 {name}: seconds", seconds, bound, at_most=True))
    if test is None:
        results.remarks.append("The images are random, so that accuracies were not measured.")
    elif reached and not size.quick:
        label = f"G2 seconds to {WANTED:.0%} under PGD-20"
        results.goals.append(Goal(label, min(reached), 60, at_most=True))
    else:
        results.remarks.append(f"None of these reached {WANTED:.0%} under PGD-20.")
    return results


def note(ends: list[float], row: dict[str, float]) -> None:
    """Note when an epoch ended; its row was read from the device, which waited for it."""
    ends.append(time.perf_counter())


def images(size: Size, data: Path | None) -> tuple[Split, Split | None]:
    """The training and the test images of a prepared folder; random ones and none without it."""
    if data is not None:
        return load_split(data, "train"), load_split(data, "test")
    count = 2560 if size.quick else 50_000
    drawn = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8)
    return Split(drawn, torch.randint(0, 10, (count,)), torch.arange(count)), None


def robust(model: torch.nn.Module, test: Split, device: torch.device) -> float:
    """The accuracy under PGD-20, in float32."""
    rows = evaluate(model.eval(), partial(pgd, steps=20), THREAT, test, SEED, device, 1000)
    return float((rows["adversarial_prediction"] == rows["label"]).mean())


# ------------------------------------------------------------------------------ G4: idle


def idle_section(device: torch.device, size: Size, data: Path | None) -> Results:
    """The share of an epoch of PGD-7 in which the device computes nothing (G4)."""
    results = Results()
    for mode in ("none", "default", "reduce-overhead"):
        for batch in (128, 512):
            share = idle(device, 5 if size.quick else 40, RECIPE | {"compile_mode": mode}, batch)
            row = {"compile_mode": mode, "batch": batch, "idle share": share}
            results.rows.append(row)
            if mode == "reduce-overhead":
                label = f"G4 batch {batch}, graphs: idle share of an epoch"
                results.goals.append(Goal(label, share, 0.05, at_most=True))
    return results


def idle(device: torch.device, minibatches: int, recipe: dict[str, Any], batch: int) -> float:
    """From the end of the second epoch to that of the third, as the profiler saw it."""
    profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA])
    count = minibatches * batch
    drawn = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8)
    made = Split(drawn, torch.randint(0, 10, (count,)), torch.arange(count))

    def on_epoch(row: dict[str, float]) -> None:
        if row["epoch"] == 2:
            profiler.start()
        if row["epoch"] == 3:
            profiler.stop()

    with tempfile.TemporaryDirectory() as folder:
        train(
            preact_resnet(channels=3, size=32, classes=10),
            PgdAt(steps=7),
            THREAT,
            TrainingData(made, made.take(slice(0))),
            SEED,
            Path(folder),
            on_epoch,
            device,
            **recipe | {"epochs": 3, "batch_size": batch},
        )
    kernels = (
        (event.time_range.start, event.time_range.end)
        for event in profiler.events() or ()
        if event.device_type == torch.autograd.DeviceType.CUDA
    )
    return idle_share(kernels)


def idle_share(busy: Iterable[tuple[float, float]]) -> float:
    """The share of the time from the first start to the last end that no interval covers."""
    intervals = sorted(busy)
    begun = until = intervals[0][0]
    idle = 0.0
    for start, end in intervals:
        idle += max(start - until, 0)
        until = max(until, end)
    return idle / (until - begun)


SECTIONS: dict[str, Callable[[torch.device, Size, Path | None], Results]] = {
    "graphs": graphs_section,
    "trainings": trainings_section,
    "idle": idle_section,
}


def main(argv: list[str] | None = None) -> None:
    """Measure, print, and keep the results."""
    arguments = harness.parser(__doc__, SECTIONS)
    arguments.add_argument("--data", type=Path, help="a prepared CIFAR-10")
    given = arguments.parse_args(argv)
    if given.data is not None and not given.data.is_dir():
        arguments.error(
            f"--data: expected the folder of a prepared data set, such as "
            f"data/prepared/cifar10, got {given.data}, which is none"
        )
    device = harness.cuda_device()
    size = QUICK if given.quick else FULL
    harness.measure("gpu", SECTIONS, given, device, size, given.data, device=device)


if __name__ == "__main__":
    main()
