"""Files of a training run: weights (safetensors) and what a killed run resumes from.

Every file is written whole beside its place, flushed to the disk and renamed, so that whoever
reads it, after a kill at any instant, meets the old file or the new one.
"""

import contextlib
import io
import logging
import os
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

RESUME = "resume.pt"

logger = logging.getLogger(__name__)


def save_weights(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Write weights as safetensors; equal weights give equal bytes.

    Args:
        path: the file.
        weights: the state_dict of a model.

    Raises:
        OSError: naming the file, if it cannot be written.
    """
    # Tied weights share memory, which the format refuses.
    apart = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in weights.items()}
    _replace(path, safetensors.torch.save(apart))


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read weights that `save_weights` wrote.

    Args:
        path: the file.

    Returns:
        The state_dict, on the CPU.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged.
    """
    try:
        return safetensors.torch.load(path.read_bytes())
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{path}: not found; train the cell first, or `dvc pull` its weights"
        ) from None
    except SafetensorError as error:
        raise ValueError(
            f"{path}: not a whole safetensors file ({error}); delete it and train the cell "
            "again, or `dvc checkout` it"
        ) from None


def save_resume(workspace: Path, settings: Mapping[str, str], state: Mapping[str, Any]) -> None:
    """Write what a killed run continues from.

    Args:
        workspace: the folder of the run.
        settings: what the run was called with, in words; another run must not continue it.
        state: tensors, numbers, texts and lists and dicts of them.

    Raises:
        OSError: naming the file, if it cannot be written; what was there before is still there.
    """
    buffer = io.BytesIO()
    torch.save({"settings": dict(settings), "state": dict(state)}, buffer)
    _replace(workspace / RESUME, buffer.getvalue())


def load_resume(workspace: Path, settings: Mapping[str, str]) -> dict[str, Any] | None:
    """Read what `save_resume` wrote, if it is whole and of the same run.

    Args:
        workspace: the folder of the run.
        settings: what this run was called with, in words.

    Returns:
        The state on the CPU, or None if the run starts at its first epoch; the log says why.

    Raises:
        OSError: naming the file, if it is there and cannot be read.
        ValueError: if it differs in nothing but the number of processes; it stays as it is.
    """
    path = workspace / RESUME
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise OSError(
            error.errno,
            f"{path}: cannot be read ({error.strerror}); make it readable, or delete it to train "
            "from the first epoch",
        ) from error
    try:
        # torch.load does not compare the checksums that it writes: a flipped bit would be weights.
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if (damaged := archive.testzip()) is not None:
                raise ValueError(f"wrong checksum of {damaged}")
        found = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        theirs, state = found["settings"], found["state"]
        changed = sorted(
            name
            for name in theirs.keys() | settings.keys()
            if theirs.get(name) != settings.get(name)
        )
    except Exception as error:
        # Whatever a damaged file makes its readers raise, the epochs before it can be redone.
        logger.warning("%s: damaged (%s); the training starts over", path, error)
        return None
    if changed == ["device"] and (epochs := len(state["history"])):
        _refuse_another_count(path, epochs, theirs["device"], settings["device"])
    if changed:
        logger.warning(
            "%s: is of a run with other settings (%s); the training starts over",
            path,
            ", ".join(f"{n}: {theirs.get(n)}, now {settings.get(n)}" for n in changed),
        )
        return None
    return dict(state)


def _refuse_another_count(path: Path, epochs: int, theirs: str, ours: str) -> None:
    """Refuse `cpu` after `2 x cpu`: the same training, but for the rounding of its sums."""
    (before, kind), (now, own) = _counted(theirs), _counted(ours)
    if kind == own:
        raise ValueError(
            f"{path}: {_many(epochs, 'epoch')} done by {_many(before, 'process')}, and now there "
            f"would be {_many(now, 'process')}, which rounds otherwise; set "
            f"ADVTRAIN_PROCESSES={before} to continue, or delete that file to start over with {now}"
        )


def _counted(device: str) -> tuple[int, str]:
    """Return how many processes trained on which kind of device: `2 x cuda`, or `cuda` for one."""
    found = re.fullmatch(r"(\d+) x (.+)", device)
    return (int(found[1]), found[2]) if found else (1, device)


def _many(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 'es' if word.endswith('s') else 's'}"


def _replace(path: Path, content: bytes) -> None:
    beside = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise OSError(
            error.errno,
            f"{path}: cannot be written ({error.strerror}); free space or make the folder "
            "writable, then run again: a killed training continues after its last whole epoch",
        ) from error
