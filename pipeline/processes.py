"""One cell trained by several processes of this machine, each on a device of its own.

`ADVTRAIN_PROCESSES=4` lets each training be done by so many, for cells that are too large for one.
The job starts them, waits and publishes what the first of them wrote; they end when it does.
`python -m pipeline.processes SPEC.json` is one of them, which the environment tells its number as
torchrun would.
"""

import contextlib
import fcntl
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from advtrain.graph.processes import PROCESSES, processes
from advtrain.graph.records import write_json
from pipeline.devices import leased_device, visible_gpus
from pipeline.job import Job, JobError, Progress, quiet_environment
from pipeline.memory import limit_to_share, peak_bytes, shortage_explained

SECONDS_BETWEEN_LOOKS = 0.1

FAILURE = "failure.txt"
"""What the first process that failed says; the others fail because it is gone."""


class Used(NamedTuple):
    """What a job was done on.

    Attributes:
        device: in words, with the number of processes if there were several: `2 x cpu`.
        peak_memory: the most bytes that one of the processes held.
        started: when, in Unix seconds; not the wait for a device.
    """

    device: str
    peak_memory: int
    started: float


def processes_of(spec: Mapping[str, Any]) -> int:
    """Return how many processes a job is done by: several for a training, else one."""
    return processes() if spec.get("step", spec["stage"]) == "train" else 1


def train_together(job: Job, count: int) -> Used:
    """Start the processes that train a cell, and wait until they have.

    Args:
        job: of a training; its files are written by the first process.
        count: of the processes, 2 or more.

    Raises:
        JobError: if one of them failed, saying why; the others are ended.
    """
    given = job.workspace / "spec.json"
    write_json(given, dict(job.spec))
    for left in (job.workspace / FAILURE, *job.workspace.glob("used-*.json")):
        left.unlink(missing_ok=True)
    with (
        devices_for(job.root, job.spec, count) as devices,
        tempfile.TemporaryDirectory() as folder,
        contextlib.ExitStack() as ending,
    ):
        begun, started = time.time(), []
        for rank in range(count):
            own = {"RANK": str(rank), "WORLD_SIZE": str(count), "ADVTRAIN_MEETING": f"{folder}/m"}
            if devices:
                own["CUDA_VISIBLE_DEVICES"] = devices[rank]
            process = subprocess.Popen(
                [sys.executable, "-m", "pipeline.processes", str(given)],
                cwd=job.root,
                env={**os.environ, **own},
                stdin=subprocess.PIPE,  # closes when this process ends, however it does
                start_new_session=True,  # an interrupt is for this process, which ends them
            )
            ending.callback(process.wait)
            ending.callback(process.kill)
            started.append(process)
        _wait(started, job.workspace / FAILURE)
    used = [json.loads((job.workspace / f"used-{rank}.json").read_text()) for rank in range(count)]
    return Used(f"{count} x {used[0]['device']}", max(one["peak_memory"] for one in used), begun)


@contextlib.contextmanager
def devices_for(root: Path, spec: Mapping[str, Any], count: int) -> Iterator[list[str]]:
    """Hold a place on several GPUs while a job runs, each another one.

    Yields:
        Their names for `CUDA_VISIBLE_DEVICES`; none where the job is to be done without.

    Raises:
        JobError: if there are not so many.
    """
    gpus = visible_gpus() if spec["unkeyed"].get("device", "cpu") != "cpu" else []
    if gpus and len(gpus) < count:
        raise JobError(
            f"{PROCESSES} is {count}, but there are {len(gpus)} GPUs, of which each process needs "
            "one; set it to that, or device to cpu"
        )
    taken: list[str] = []
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    gathering = Path(tempfile.gettempdir()) / f"advtrain-gathering-{os.getuid()}.lock"
    with contextlib.ExitStack() as held:
        if gpus:
            # Two jobs that each hold some and wait for others would wait for ever.
            with gathering.open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                while len(taken) < count:
                    left = [gpu for gpu in gpus if gpu not in taken]
                    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(left)
                    held.enter_context(leased_device(root, dict(spec)))
                    taken.append(os.environ.pop("CUDA_VISIBLE_DEVICES"))
            if before is not None:
                os.environ["CUDA_VISIBLE_DEVICES"] = before
        yield taken


def _wait(processes: list[subprocess.Popen[bytes]], failure: Path) -> None:
    while None in (codes := [process.poll() for process in processes]) and not any(codes):
        time.sleep(SECONDS_BETWEEN_LOOKS)
    killed = [rank for rank, code in enumerate(codes) if code is not None and code < 0]
    if killed:
        raise JobError(
            f"process {killed[0]} of {len(codes)} was killed by signal {-(codes[killed[0]] or 0)}: "
            f"out of memory? Run it again with {PROCESSES}={len(codes)}: it continues after the "
            "last whole epoch"
        )
    if any(codes):
        told = failure.read_text(encoding="utf-8") if failure.exists() else "see the log"
        raise JobError(told)


def main(argv: list[str]) -> int:
    """Be one of the processes; return the exit code."""
    quiet_environment()
    threading.Thread(target=_die_with_the_job, daemon=True).start()
    root, workspace = Path.cwd(), Path(argv[0]).resolve().parent
    spec = json.loads(Path(argv[0]).read_text(encoding="utf-8"))
    path = root / ".pipeline/progress" / spec["stage"] / f"{spec['name']}.json"
    facts = json.loads(path.read_text(encoding="utf-8"))
    job = Job(root, spec, workspace, Progress(path, workspace / "history.jsonl", facts))
    try:
        with _told(job):
            limit_to_share(spec)
            device = _train(job)
    except Exception:  # the boundary: whatever it is, the job says it
        traceback.print_exc()
        return 1
    used = {"device": device, "peak_memory": peak_bytes()}
    write_json(workspace / f"used-{os.environ['RANK']}.json", used)
    return 0


def _train(job: Job) -> str:
    """Train with the others; return what device this process did it on."""
    import torch

    from advtrain.training.distributed import joined
    from pipeline.steps import train
    from pipeline.torch_device import choose_device

    device = choose_device(job.unkeyed["device"])
    # Told before this process leaves the others, which fail because it is gone.
    with joined(device) as processes, _told(job):
        train.run(job, processes)
    return torch.cuda.get_device_name() if device.type == "cuda" else "cpu"


@contextlib.contextmanager
def _told(job: Job) -> Iterator[None]:
    """Write down what goes wrong, unless it is said already: the first cause is the cause."""
    try:
        with shortage_explained(job.spec):
            yield
    except Exception as error:
        with contextlib.suppress(FileExistsError), (job.workspace / FAILURE).open("x") as file:
            file.write(str(error) or type(error).__name__)
        raise


def _die_with_the_job() -> None:
    """End this process, at once, when the one that started it is gone."""
    while os.read(0, 1):
        pass
    os._exit(143)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
