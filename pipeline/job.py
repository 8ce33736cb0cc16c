"""What a step gets: resolved parameters, the files to read and to write, and a way to report."""

import ctypes
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from advtrain.graph.records import outputs_digest, read_manifest, write_json


class JobError(Exception):
    """A job cannot run or has failed, for a reason that the message tells in full."""


@dataclass
class Progress:
    """How far a job is: a small file for whoever watches, and the epochs' times.

    Attributes:
        path: the progress file.
        history: the running log of epochs, one JSON row a line (training only).
        facts: what the progress file says.
        since: when the job began or its last epoch ended, Unix seconds.
        measured: of the epoch that ends next.
    """

    path: Path
    history: Path
    facts: dict[str, Any]
    since: float = field(default_factory=time.time)
    measured: Mapping[str, float] = field(default_factory=dict)

    def update(self, **facts: Any) -> None:
        """Say what has changed: `epoch=3, epochs=30`."""
        self.facts |= facts | {"updated": time.time()}
        write_json(self.path, self.facts)

    def measure(self, measured: Mapping[str, float]) -> None:
        """Note what was measured of the epoch that `epoch` will log: seconds, rates, memory."""
        self.measured = measured

    def epoch(self, row: Mapping[str, float | int], epochs: int) -> None:
        """Log a finished epoch: its metrics, when it ended, and how long it took."""
        now = time.time()
        measured = {"measured": self.measured} if self.measured else {}
        line = json.dumps({**row, "time": now, "seconds": now - self.since, **measured})
        self.since, self.measured = now, {}
        with self.history.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        self.update(epoch=int(row["epoch"]), epochs=epochs)

    def epochs(self) -> list[dict[str, Any]]:
        """Return the logged epochs, the last word on each (a killed epoch may be there twice)."""
        if not self.history.exists():
            return []
        rows: dict[int, dict[str, Any]] = {}
        for line in self.history.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except ValueError:  # the line that a kill cut short
                continue
            rows[int(row["epoch"])] = row
        return [rows[epoch] for epoch in sorted(rows)]


@dataclass(frozen=True)
class Job:
    """One run of one step.

    Attributes:
        root: the repository's top folder.
        spec: the snapshot it runs from (`advtrain.graph.nodes.Node.spec`).
        workspace: a folder for unfinished work, kept over a kill.
        progress: where to report.
    """

    root: Path
    spec: Mapping[str, Any]
    workspace: Path
    progress: Progress

    @property
    def params(self) -> Mapping[str, Any]:
        """The resolved parameters that the key covers."""
        found: Mapping[str, Any] = self.spec["params"]
        return found

    @property
    def unkeyed(self) -> Mapping[str, Any]:
        """What no number depends on: the device asked for, the batch size of an attack."""
        found: Mapping[str, Any] = self.spec["unkeyed"]
        return found

    @property
    def study(self) -> str:
        """The study that the job belongs to."""
        return str(self.spec["name"]).split("/")[0]

    def output(self, file: str) -> Path:
        """Return where to write an output, by its file name; it moves to its place at the end."""
        (path,) = (one for one in self.spec["outputs"] if Path(one).name == file)
        target = self.workspace / "outputs" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        return target

    def output_folder(self) -> Path:
        """Return the folder that stands for `spec["folder"]` while the job runs."""
        target = self.workspace / "outputs" / self.spec["folder"]
        target.mkdir(parents=True, exist_ok=True)
        return target

    def inputs(self, stage: str) -> list[dict[str, Any]]:
        """Return the inputs of a stage, as the spec lists them."""
        return [one for one in self.spec["inputs"] if one["id"].startswith(f"{stage}:")]

    def input(self, stage: str, file: str) -> Path:
        """Return the file of that name that the one input of that stage holds."""
        (one,) = self.inputs(stage)
        return self._file(one, file)

    def role(self, role: str, file: str) -> Path:
        """Return the file of that name that the input of a role (`teacher`, `start`) holds."""
        (one,) = (one for one in self.spec["inputs"] if one["id"] == self.spec["roles"][role])
        return self._file(one, file)

    def _cell(self) -> dict[str, Any]:
        """Return the input that is the evaluated cell, whatever other cells are read."""
        ids = (f"train:{self.study}/{self.params['cell']}",)
        (one,) = (one for one in self.spec["inputs"] if one["id"] in ids)
        found: dict[str, Any] = one
        return found

    def cell_file(self, file: str) -> Path:
        """Return the file of that name that the evaluated cell holds."""
        return self._file(self._cell(), file)

    def cell_manifest(self) -> dict[str, Any]:
        """Return the manifest of the evaluated cell."""
        return self._manifest(self.root / str(self._cell()["folder"]))

    def _file(self, one: Mapping[str, Any], file: str) -> Path:
        (path,) = (path for path in one["outputs"] if Path(path).name == file)
        return self.root / path

    def input_folder(self, stage: str) -> Path:
        """Return the folder of the one input of that stage."""
        (one,) = self.inputs(stage)
        return self.root / str(one["folder"])

    def input_manifest(self, stage: str) -> dict[str, Any]:
        """Return the manifest of the one input of that stage."""
        return self._manifest(self.input_folder(stage))

    def _manifest(self, folder: Path) -> dict[str, Any]:
        manifest = read_manifest(folder / "manifest.json")
        if manifest is None:
            raise JobError(f"{folder}/manifest.json cannot be read")
        return manifest

    def input_digest(self, stage: str) -> str:
        """Return the hash of all the outputs of the one input of that stage."""
        return outputs_digest(self.input_manifest(stage)["outputs"])


def quiet_environment() -> None:
    """One thread a process, since several cells in parallel beat one cell on several cores.

    And memory that is kept: see `keep_freed_memory`.
    """
    keep_freed_memory()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    # Needed by torch's deterministic algorithms on CUDA, and read when CUDA starts.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def keep_freed_memory() -> None:
    """Let glibc keep what is freed, for the next activations of the same size.

    It gives large blocks back to the system, which then has to hand out zeroed pages for each
    layer of each step: measured, a third of the time of a small network's step.
    """
    trim_threshold, mmap_threshold, gigabyte = -1, -3, 1 << 30  # numbers of <malloc.h>
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not glibc
        return
    mallopt(trim_threshold, gigabyte)
    mallopt(mmap_threshold, gigabyte)
