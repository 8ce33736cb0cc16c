"""Devices: which GPU a job may use, leased so that two jobs never land on one by accident.

Snakemake only counts `gpu`; it gives no device, and a second Snakemake (a `dvc exp` worker) counts
for itself. A lease is a lock on a file, which dies with the process that holds it.
"""

import contextlib
import fcntl
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from advtrain.graph.nodes import CELL_STAGES


def visible_gpus() -> list[str]:
    """List the GPUs that this process may use: `CUDA_VISIBLE_DEVICES`, else all that are there."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [one.strip() for one in given.split(",") if one.strip() not in ("", "-1")]
    try:
        found = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return []
    return [str(i) for i, line in enumerate(found.stdout.splitlines()) if line.startswith("GPU")]


@contextlib.contextmanager
def leased_device(root: Path, spec: dict[str, Any]) -> Iterator[Callable[[], str]]:
    """Hold one GPU while a job runs, where there is one and the job can use it.

    Yields:
        A function that describes the device that was used, for the record.
    """
    wanted = spec["unkeyed"].get("device", "cpu")
    gpus = visible_gpus() if spec["stage"] in CELL_STAGES and wanted != "cpu" else []
    if not gpus:
        yield lambda: "cpu"
        return
    with _lease(gpus) as gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
        yield _describe


@contextlib.contextmanager
def _lease(gpus: list[str]) -> Iterator[str]:
    folder = Path(tempfile.gettempdir()) / f"advtrain-leases-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    while True:
        for gpu in gpus:
            with (folder / f"{gpu.replace('/', '_')}.lock").open("w") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    continue
                yield gpu
                return
        time.sleep(0.2)


def _describe() -> str:
    import torch

    return str(torch.cuda.get_device_name()) if torch.cuda.is_available() else "cpu"
