"""A training run that is killed (SIGKILL) at a chosen instant; started by `test_resume`.

    python -m tests.training.killed <folder> <seed>

One process imports torch once and forks each run, so that a kill costs milliseconds.
"""

import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from advtrain.methods.free import Free
from advtrain.methods.method import Method
from advtrain.methods.pgd_at import PgdAt
from advtrain.threat import ThreatModel
from advtrain.training.loop import Trained, train
from tests.training.tiny import network, tiny_data

METHODS: dict[str, Callable[[], Method]] = {
    "free": lambda: Free(replays=2),
    "pgd_at": lambda: PgdAt(steps=2),
}


def run(workspace: Path, name: str, on_epoch: Callable[[dict[str, float]], None]) -> Trained:
    """One run on a network with BatchNorm and dropout, with augmentation."""
    torch.set_num_threads(1)
    return train(
        *(network(), METHODS[name](), ThreatModel("linf", 0.1), tiny_data(), 0, workspace),
        *(on_epoch, torch.device("cpu")),
        epochs=10 if name == "free" else 5,
        batch_size=8,
        learning_rate=0.05,
        schedule="cyclic",
        crop_padding=1,
        flip=True,
        validation_steps=2,
    )  # fmt: skip


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def dying(call: Callable, number: int, *, before: Callable | None = None) -> Callable:
    """Wrap a function so that the process dies at its call of that number, after `before`."""
    calls = 0

    def wrapped(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == number:
            if before is not None:
                before(*args, **kwargs)
            die()
        return call(*args, **kwargs)

    return wrapped


def doom(moment: str, number: int) -> Callable[[dict[str, float]], None]:
    """Arrange the death of this process; returns what to call after an epoch."""
    if moment == "half of the file is written":
        # The odd calls are for the file, the even ones for its folder.
        flush = os.fsync
        os.fsync = dying(flush, number, before=lambda handle: os.ftruncate(handle, 1000))
    elif moment == "before the rename":
        Path.replace = dying(Path.replace, number)
    elif moment == "after the rename":
        Path.replace = dying(Path.replace, number, before=Path.replace)
    elif moment == "in the middle of an epoch":
        for method in (Free, PgdAt):
            method.perturb = dying(method.perturb, number)
    elif moment == "in on_epoch":
        return dying(lambda row: None, number)
    return lambda row: None


MOMENTS = {
    "half of the file is written": [1, 3, 5],
    "before the rename": [1, 2, 4],
    "after the rename": [1, 3],
    "in the middle of an epoch": [2, 5, 8],
    "in on_epoch": [1, 4],
}


def forked(action: Callable[[], None], seconds: float | None = None) -> bool:
    """Run an action in a child process; whether it came to its end before it was killed."""
    child = os.fork()
    if child == 0:
        try:
            action()
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    assert status in (0, signal.SIGKILL), f"a run failed: {status}"
    return status == 0


def main(folder: Path, seed: int) -> None:
    rng = random.Random(seed)
    for name in METHODS:
        # Before the forks: torch imports and compiles at the first use.
        run(folder / name / "first", name, lambda row: None)
        workspace = folder / name / "whole"

        def end(workspace: Path = workspace, name: str = name) -> None:
            trained = run(workspace, name, lambda row: None)
            torch.save(trained._asdict(), workspace / "trained.pt")

        begun = time.monotonic()
        assert forked(end)
        duration = time.monotonic() - begun

        for moment, numbers in MOMENTS.items():
            workspace = folder / name / moment
            for number in numbers:
                # The same run is killed again and again.
                finished = forked(
                    lambda m=moment, n=number, w=workspace, k=name: run(w, k, doom(m, n))
                )
                assert not finished or number > 1, f"{moment} {number} was never reached"
            assert forked(lambda w=workspace, n=name: end(w, n))

        workspace = folder / name / "at random"
        for _ in range(6):
            pause = rng.uniform(0.1, 0.9) * duration
            forked(lambda w=workspace, n=name: end(w, n), pause)
        assert forked(lambda w=workspace, n=name: end(w, n))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
