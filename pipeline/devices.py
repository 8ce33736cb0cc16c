"""Devices: which GPU a job may use, leased so that no more jobs land on one than may share it.

Snakemake only counts `gpu`; it gives no device, and a second Snakemake (a `dvc exp` worker) counts
for itself. A lease is a lock on a file, which dies with the process that holds it.
"""

import contextlib
import fcntl
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import count, takewhile
from pathlib import Path
from typing import IO, Any, NamedTuple

from advtrain.graph.nodes import CELL_STAGES
from advtrain.params.environment import counted

CELLS_PER_GPU = "ADVTRAIN_CELLS_PER_GPU"
SECONDS_BETWEEN_LOOKS = 0.2


class Installed(NamedTuple):
    """A GPU as `nvidia-smi -L` lists it.

    Attributes:
        number: its place in the list, by which `CUDA_VISIBLE_DEVICES` may name it.
        model: the name of its kind.
        parts: the UUIDs of its MIG slices, each a device of its own; its own UUID if it has none.
        uuid: its own UUID.
    """

    number: str
    model: str
    parts: tuple[str, ...]
    uuid: str


def visible_gpus() -> list[str]:
    """List the GPUs that this process may use, as `CUDA_VISIBLE_DEVICES` names them.

    What that variable lists up to the first that is none (as CUDA reads it): numbers, UUIDs or
    their beginnings, MIG slices. Without it the UUIDs of all that are there, slices apart.
    """
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        names = (one.strip() for one in given.split(","))
        return list(takewhile(lambda name: name not in ("", "-1"), names))
    return [part for gpu in _installed() for part in gpu.parts]


def gpu_places(wanted: str, given: int) -> list[str]:
    """List a GPU for each job that may run on one at the same time.

    Args:
        wanted: the device that `params.yaml` asks for; on `cpu` there is no place.
        given: how many cells `params.yaml` lets share a GPU.
    """
    gpus = visible_gpus() if wanted != "cpu" else []
    return gpus * cells_per_gpu(given)


def cells_per_gpu(given: int) -> int:
    """Return how many cells may share a GPU: what the environment says, else `params.yaml`.

    Raises:
        ValueError: if `ADVTRAIN_CELLS_PER_GPU` is no count.
    """
    return counted(CELLS_PER_GPU, given)


@contextlib.contextmanager
def leased_device(root: Path, spec: dict[str, Any]) -> Iterator[Callable[[], str]]:
    """Hold a place on one GPU while a job runs, where there is one and the job can use it.

    Yields:
        A function that describes the device that was used, for the record.
    """
    unkeyed = spec["unkeyed"]
    wanted = unkeyed.get("device", "cpu")
    gpus = visible_gpus() if spec["stage"] in CELL_STAGES and wanted != "cpu" else []
    if not gpus:
        yield lambda: "cpu"
        return
    with _lease(_identities(gpus), cells_per_gpu(unkeyed.get("cells_per_gpu", 1))) as gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
        yield _describe


def _installed() -> list[Installed]:
    """Ask the driver which GPUs there are; none without a driver."""
    try:
        told = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return []
    found: list[Installed] = []
    for line in told.stdout.splitlines():
        if gpu := re.match(r"GPU (\d+): (.*?)(?: \(UUID: (.+)\))?$", line):
            number, model, uuid = gpu[1], gpu[2], gpu[3] or gpu[1]
            found.append(Installed(number, model, (uuid,), uuid))
        elif found and (part := re.search(r"\(UUID: (MIG-.+)\)", line)):
            before = tuple(one for one in found[-1].parts if one != found[-1].uuid)
            found[-1] = found[-1]._replace(parts=(*before, part[1]))
    return found


def _identities(gpus: list[str]) -> dict[str, str]:
    """Return what the leases of each device are named by: its UUID, where that can be told.

    Two schedulers may call one device `0` and `GPU-5d5b...`, and in two containers or Slurm jobs
    `0` may be two devices.
    """
    if "CUDA_VISIBLE_DEVICES" not in os.environ:
        return {name: name for name in gpus}  # as the driver has just listed them
    installed = _installed()
    # A number is one of the driver's list only if CUDA orders the devices in the same way.
    by_bus = os.environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"
    in_order = by_bus or len({gpu.model for gpu in installed}) == 1
    found = {}
    for name in gpus:
        same = [
            part
            for gpu in installed
            for part in gpu.parts
            if part.startswith(name) or gpu.uuid.startswith(name)
        ]
        if name.isdecimal():
            same = [gpu.parts[0] for gpu in installed if in_order and gpu.number == name]
        found[name] = same[0] if same else name
    return found


@contextlib.contextmanager
def _lease(gpus: Mapping[str, str], cells: int) -> Iterator[str]:
    """Hold a place on the device with the fewest leases; wait for one if there is none.

    Args:
        gpus: the name of each device -> what its leases are named by.
        cells: how many cells may share a device, in the eyes of this one.
    """
    folder = Path(tempfile.gettempdir()) / f"advtrain-leases-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    while True:
        # One process at a time looks and takes, so that what it counted is still so.
        with (folder / "choosing.lock").open("w") as choosing:
            fcntl.flock(choosing, fcntl.LOCK_EX)
            taken = _take(folder, gpus, cells)
        if taken is not None:
            gpu, lease = taken
            with lease:
                yield gpu
            return
        time.sleep(SECONDS_BETWEEN_LOOKS)


def _take(folder: Path, gpus: Mapping[str, str], cells: int) -> tuple[str, IO[str]] | None:
    """Lock a file for the least used device that has a place left; None if none has."""
    leases = {gpu: _leases(folder, identity) for gpu, identity in gpus.items()}
    # Each lease says how many cells its holder shares with: one that is to be alone stays so.
    free = [gpu for gpu, held in leases.items() if len(held) < min([cells, *held.values()])]
    if not free:
        return None
    gpu = min(free, key=lambda gpu: len(leases[gpu]))
    slot = next(slot for slot in map(str, count()) if slot not in leases[gpu])
    lease = _file(folder, gpus[gpu], slot).open("w")
    fcntl.flock(lease, fcntl.LOCK_EX)
    lease.write(str(cells))
    lease.flush()
    return gpu, lease


def _leases(folder: Path, identity: str) -> dict[str, int]:
    """Return the leases of a device that are held: slot -> how many cells may share with it."""
    found = {}
    for path in folder.glob(_file(folder, identity, "*").name):
        with path.open("r+") as lease:
            try:
                fcntl.flock(lease, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                found[path.suffixes[0].removeprefix(".")] = int(lease.read())
    return found


def _file(folder: Path, identity: str, slot: str) -> Path:
    return folder / f"{re.sub('[^A-Za-z0-9-]', '_', identity)}.{slot}.lock"


def _describe() -> str:
    import torch

    return str(torch.cuda.get_device_name()) if torch.cuda.is_available() else "cpu"
