"""The files that say what the runs are: where they lie, and whether they changed.

Per cell: `results/train/<study>/<cell>/`, `results/attack/<study>/<cell>/<evaluation>/` and the
like below `results/certify`, the same folders in the store of finished cells (which keeps the
manifest at the top of its entry), and for jobs that are not finished
`.pipeline/progress/<stage>/<study>/<cell>[/<evaluation>].json` and
`.pipeline/wip/train/<study>/<cell>.<key>/history.jsonl`. Per study: the manifests of
`results/collect/<study>/`, `reports/tables/<study>/` and `reports/figures/<study>/`, and the
report's, which is of all studies of a run.
"""

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from advtrain.graph.store import Store
from advtrain.tracking.location import home

# Folders between `results/<stage>` and a result.
DEPTH = {"train": 2, "attack": 3, "certify": 3}

STUDY_FOLDERS = (
    "results/collect/{study}",
    "reports/tables/{study}",
    "reports/figures/{study}",
    "reports",
)


class Finished(NamedTuple):
    """Where a finished result lies: its manifest, and the folder of its other files."""

    manifest: Path
    folder: Path


@dataclass
class Cell:
    """The files of one cell of a study.

    Attributes:
        name: `<study>/<cell>`.
        trained: finished trainings, what `results/` shows first.
        evaluated: finished attacks and certificates, each in the same order.
        progress: files that say how far a job is.
        live: files with the rows of a training that goes on.
        stamps: what the signature is made of.
    """

    name: str
    trained: list[Finished] = field(default_factory=list)
    evaluated: list[Finished] = field(default_factory=list)
    progress: list[Path] = field(default_factory=list)
    live: list[Path] = field(default_factory=list)
    stamps: list[str] = field(default_factory=list)

    @property
    def study(self) -> str:
        """The study's name."""
        return self.name.split("/")[0]

    @property
    def cell(self) -> str:
        """The cell's name in the study."""
        return self.name.split("/")[1]

    @property
    def signature(self) -> str:
        """A hash that changes when a file does: its time and size.

        For a finished result its manifest stands for all, since it is written last; what the
        study's tables say of the cell is part of it.
        """
        return _signature(sorted(self.stamps))

    @property
    def runs(self) -> int:
        """How many runs it has at least."""
        return max(1, len(self.trained) + len(self.evaluated))


@dataclass(frozen=True)
class Study:
    """The tables and figures of a study.

    Attributes:
        name: the study's.
        signature: a hash that changes when one of the manifests does: its time and size.
    """

    name: str
    signature: str


def studies(root: Path) -> list[Study]:
    """List the studies that have tables, without reading a file.

    Args:
        root: the repository's top folder.
    """
    found = []
    for name in _names(f"{root}/reports/tables"):
        stamps = []
        for folder in STUDY_FOLDERS:
            path = root / folder.format(study=name) / "manifest.json"
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                stat = path.stat()
                stamps.append(f"{folder} {stat.st_mtime_ns} {stat.st_size}")
        found.append(Study(name, _signature(stamps)))
    return found


def cells(root: Path) -> list[Cell]:
    """List the cells that have left any trace on disk, without reading a file.

    Args:
        root: the repository's top folder.
    """
    found: dict[str, Cell] = {}

    def of(parts: tuple[str, ...], path: str) -> Cell | None:
        try:
            stat = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        name = f"{parts[0]}/{parts[1]}"
        cell = found.setdefault(name, Cell(name))
        cell.stamps.append(f"{path.removeprefix(str(root))} {stat.st_mtime_ns} {stat.st_size}")
        return cell

    store = Store.of(root).folder
    # In DVC's temporary copy the store is the repository's, which delivers it itself.
    shared = home(root) != root.resolve()
    for stage, depth in DEPTH.items():
        bases = [(f"{root}/results/{stage}", "")]
        for key in () if shared else _names(f"{store}/{stage}"):
            entry = f"{store}/{stage}/{key}"
            bases.append((f"{entry}/files/results/{stage}", f"{entry}/manifest.json"))
        for base, kept in bases:
            for parts in _folders(base, depth):
                folder = "/".join((base, *parts))
                manifest = kept or f"{folder}/manifest.json"
                if cell := of(parts, manifest):
                    results = cell.trained if stage == "train" else cell.evaluated
                    results.append(Finished(Path(manifest), Path(folder)))
        base = f"{root}/.pipeline/progress/{stage}"
        for parts in _folders(base, depth):
            path = "/".join((base, *parts))
            parts = (*parts[:-1], parts[-1].removesuffix(".json"))
            if path.endswith(".json") and (cell := of(parts, path)):
                cell.progress.append(Path(path))
    base = f"{root}/.pipeline/wip/train"
    for study, folder in _folders(base, 2):
        path = f"{base}/{study}/{folder}/history.jsonl"
        if cell := of((study, folder.rpartition(".")[0]), path):
            cell.live.append(Path(path))
    return [found[name] for name in sorted(found)]


def _signature(stamps: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(stamps).encode()).hexdigest()[:16]


def _folders(base: str, depth: int) -> Iterator[tuple[str, ...]]:
    """Yield the names on each way `depth` folders down."""
    if depth == 0:
        yield ()
        return
    for name in _names(base):
        for rest in _folders(f"{base}/{name}", depth - 1):
            yield (name, *rest)


def _names(folder: str) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return []
