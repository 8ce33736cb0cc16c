"""What one of several processes does; torchrun starts it, `test_distributed` compares.

torchrun --nproc-per-node 2 -m tests.training.several <folder> [--die-at EPOCH] [--cuda]
"""

import argparse
import contextlib
import copy
import importlib
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from advtrain.params import signatures
from advtrain.threat import ThreatModel
from advtrain.training.distributed import ALONE, Processes, joined
from advtrain.training.loop import Trained, TrainingData, train
from tests.training.tiny import network, split_of

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Scenario:
    """A training; minibatches of 7 rows, of which one process takes 4, and one of 6 rows."""

    method: str
    norm: bool = True
    parameters: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)
    extra: bool = False
    plain_layers: bool = False


SCENARIOS = {
    "natural": Scenario("natural"),
    "natural without norm": Scenario("natural", norm=False),
    "pgd_at": Scenario("pgd_at"),
    "pgd_at without norm": Scenario("pgd_at", norm=False),
    "trades": Scenario("trades"),
    "trades without norm": Scenario("trades", norm=False),
    "free": Scenario("free", parameters={"replays": 2}),
    "free without norm": Scenario("free", norm=False, parameters={"replays": 2}),
    "awp": Scenario("pgd_at", recipe={"update": "awp", "awp_gamma": 0.05}),
    "awp without norm": Scenario("trades", norm=False, recipe={"update": "awp"}),
    "mart": Scenario("mart"),
    "fgsm_rs, which may stop": Scenario("fgsm_rs", parameters={"early_stop": True}),
    "fat": Scenario("fat"),
    "gradalign, whose loss has gradients": Scenario("gradalign", recipe={"label_smoothing": 0.1}),
    "consistency, of two views": Scenario("consistency", recipe={"flip": True, "crop_padding": 1}),
    "iaat, with radii": Scenario("iaat", parameters={"warmup": 0.3}, extra=True),
    "ibp": Scenario("ibp", plain_layers=True, parameters={"warmup": 0.1, "ramp": 0.5}),
    "extra data": Scenario("pgd_at", extra=True),
    "ema": Scenario("natural", recipe={"averaging": "ema", "ema_decay": 0.9}),
    "swa": Scenario("natural", recipe={"averaging": "swa", "swa_start": 0.3}),
    # Without BatchNorm, below which a bias has a gradient of rounding alone, which Adam scales up.
    "adam": Scenario("nfgsm", norm=False, recipe={"optimizer": "adam", "learning_rate": 0.01}),
    "in parts": Scenario("pgd_at", norm=False, recipe={"micro_batch": 2}),
}


def data_of(scenario: Scenario) -> TrainingData:
    extra = split_of(5, seed=5) if scenario.extra else None
    return TrainingData(split_of(20, seed=1), split_of(13, seed=2), extra)


def trained(
    name: str,
    workspace: Path,
    processes: Processes = ALONE,
    on_epoch: Callable[[dict[str, float]], None] = lambda row: None,
    device: torch.device = CPU,
) -> Trained:
    """Train as the scenario says."""
    scenario = SCENARIOS[name]
    module = importlib.import_module(f"advtrain.methods.{scenario.method}")
    few = {"steps": 3} if "steps" in signatures.signature("methods", scenario.method) else {}
    method = getattr(module, signatures.camel_case(scenario.method))(**few, **scenario.parameters)
    model = network(norm=scenario.norm, dropout=0.0)
    if scenario.plain_layers:  # the only ones that bounds are known for
        model = nn.Sequential(*(one for one in model if not isinstance(one, nn.Dropout)))
    given: dict[str, Any] = {
        "epochs": 4 * method.replays,
        "batch_size": 7,
        "learning_rate": 0.05,
        "extra_fraction": 0.3 if scenario.extra else 0.0,
        "validation_steps": 2,
    }
    return train(
        *(model, method, ThreatModel("linf", 0.1), data_of(scenario), 0, workspace),
        *(on_epoch, device),
        processes=processes,
        **{**given, **scenario.recipe},
    )


def norms_of(processes: Processes) -> dict[str, Tensor]:
    """What BatchNorm computes of a minibatch of 7 rows, forwards, backwards and twice backwards."""
    found: dict[str, Tensor] = {}
    generator = torch.Generator().manual_seed(0)
    for name, norm, shape in (
        ("images", nn.BatchNorm2d(3), (7, 3, 4, 4)),
        ("vectors", nn.BatchNorm1d(3, momentum=None), (7, 3)),
        ("no weights", nn.BatchNorm2d(3, affine=False), (7, 3, 2, 2)),
        ("no averages", nn.BatchNorm2d(3, track_running_stats=False), (7, 3, 2, 2)),
    ):
        norm = copy.deepcopy(norm).double()
        # Far from 0, where a difference of sums of squares would lose digits.
        x = processes.share(100 + torch.randn(shape, generator=generator, dtype=torch.float64))
        up = processes.share(torch.randn(shape, generator=generator, dtype=torch.float64))
        x.requires_grad_()
        with processes.normalising(norm):
            for mode in ("train", "eval"):
                norm.train(mode == "train")
                y = norm(x)
                (gradient,) = torch.autograd.grad((y**3 * up).sum(), x, create_graph=True)
                (second,) = torch.autograd.grad((gradient**2).sum(), x)
                for kind, value in (("y", y), ("gradient", gradient), ("second", second)):
                    found[f"{name}, {mode}: {kind}"] = processes.whole(value, 7)
        for kind, buffer in norm.named_buffers():
            found[f"{name}: {kind}"] = buffer.clone()
    return found


def facts_of(processes: Processes) -> dict[str, Any]:
    """What the processes say to each other."""
    rows = torch.arange(7) * 10
    tensors = [torch.full((3,), processes.rank + 1.0), torch.tensor(processes.rank + 1)]
    processes.add_up(tensors)
    spread = torch.full((2,), float(processes.rank))
    processes.spread([spread])
    return {
        "share": processes.share(rows),
        "whole": processes.whole(processes.share(rows), 7),
        "sums": tensors,
        "sum": processes.added(processes.rank + 0.5),
        "agreed": processes.agreed(f"process {processes.rank}"),
        "spread": spread,
        "draws": refusal(processes, network(dropout=0.5)),
        "does not draw": refusal(processes, network(dropout=0.0)),
    }


def refusal(processes: Processes, model: nn.Module) -> str:
    natural = importlib.import_module("advtrain.methods.natural").Natural()
    try:
        processes.refuse(natural, model, torch.zeros(1, 1, 4, 4), 2)
    except ValueError as error:
        return str(error)
    return ""


@contextlib.contextmanager
def dying(processes: Processes, epoch: int) -> Iterator[Callable[[dict[str, float]], None]]:
    """Let process 1 be killed in the middle of an epoch; torchrun then ends the others."""
    from advtrain.methods.pgd_at import PgdAt

    perturb, calls = PgdAt.perturb, 0

    def counted(*given: Any) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 3 * (epoch - 1) + 2 and processes.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return perturb(*given)

    PgdAt.perturb = counted  # type: ignore[method-assign]
    try:
        yield lambda row: None
    finally:
        PgdAt.perturb = perturb  # type: ignore[method-assign]


def main(folder: Path, die_at: int | None, cuda: bool) -> None:
    torch.set_num_threads(1)
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if cuda else CPU
    with joined(device) as processes:
        if die_at is not None:
            with dying(processes, die_at) as on_epoch:
                trained("pgd_at", folder / "killed", processes, on_epoch)
            return
        found: dict[str, Any] = {}
        rows: list[dict[str, float]] = []
        if not cuda:
            found |= {"norms": norms_of(processes), "facts": facts_of(processes)}
            again = trained("pgd_at", folder / "killed", processes, rows.append)
            found |= {"resumed": again._asdict(), "resumed rows": rows}
        for name in SCENARIOS:
            rows = []
            ended = trained(name, folder / name, processes, rows.append, device)
            found |= {name: ended._asdict(), f"{name}: rows": rows}
        torch.save(found, folder / f"{processes.rank}.pt")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--die-at", type=int)
    parser.add_argument("--cuda", action="store_true")
    given = parser.parse_args()
    main(given.folder, given.die_at, given.cuda)
