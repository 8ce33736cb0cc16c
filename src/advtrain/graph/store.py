"""The store of finished cells by key: a parameter changed back costs a copy, not a training.

`.pipeline/store/<stage>/<key>/` holds a manifest and, below `files/`, the outputs with their
paths. Files are shared copy-on-write where the file system can (reflink), else copied; an entry
appears by one rename, and is checked against its hashes when it is taken out.
"""

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from advtrain.graph.nodes import CELL_STAGES
from advtrain.graph.records import Manifest, read_manifest, write_json
from advtrain.provenance import hash_file

FICLONE = 0x40049409  # linux/fs.h: share the extents of one file with another


class Store:
    """The finished cells of a workspace, and of the experiments that DVC runs beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def of(cls, root: Path) -> "Store":
        """Return the store of a repository.

        `ADVTRAIN_STORE` names another folder. DVC runs an experiment in a temporary copy and
        names the parent in `DVC_ROOT`, whose store it then shares.
        """
        given = os.environ.get("ADVTRAIN_STORE")
        parent = Path(os.environ.get("DVC_ROOT", root))
        return cls(Path(given) if given else parent / ".pipeline" / "store")

    def entry(self, stage: str, key: str) -> Path:
        """Return where a key's entry lies, whether or not it is there."""
        return self.folder / stage / key

    def holds(self, stage: str, key: str) -> bool:
        """Whether a finished cell of this key is kept."""
        return (self.entry(stage, key) / "manifest.json").is_file()

    def put(self, root: Path, manifest: Manifest) -> None:
        """Keep a finished cell; nothing happens if its key is kept already with the same bytes."""
        stage, key = manifest["stage"], manifest["key"]
        if stage not in CELL_STAGES:
            return
        entry = self.entry(stage, key)
        kept = read_manifest(entry / "manifest.json")
        if kept and sorted_hashes(kept) == sorted_hashes(manifest):
            return
        partial = entry.with_name(f".{key}.{os.getpid()}.partial")
        try:
            for path in (*manifest["outputs"], *manifest["volatile"]):
                copy_file(root / path, partial / "files" / path)
            write_json(partial / "manifest.json", manifest)
            shutil.rmtree(entry, ignore_errors=True)
            with contextlib.suppress(OSError):  # another process kept the same key first
                os.rename(partial, entry)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def take(self, spec: Mapping[str, Any], target: Path) -> Manifest | None:
        """Copy a kept cell's outputs under `target`, named as the spec names them.

        Returns:
            The kept manifest, or None if the key is not kept, or was damaged (it is then dropped).
        """
        if spec["stage"] not in CELL_STAGES:
            return None
        entry = self.entry(spec["stage"], spec["key"])
        manifest = read_manifest(entry / "manifest.json")
        if manifest is None:
            return None
        kept = {Path(path).name: path for path in (*manifest["outputs"], *manifest["volatile"])}
        hashes = {Path(path).name: found for path, found in manifest["outputs"].items()}
        for path in spec["outputs"]:
            name = Path(path).name
            try:
                copy_file(entry / "files" / kept[name], target / path)
            except (OSError, KeyError):
                shutil.rmtree(entry, ignore_errors=True)
                return None
            if name in hashes and hash_file(target / path) != hashes[name]["sha256"]:
                shutil.rmtree(entry, ignore_errors=True)
                return None
        os.utime(entry)
        return manifest

    def entries(self) -> Iterator[tuple[Path, Manifest]]:
        """Yield every kept cell's folder and manifest."""
        for stage in CELL_STAGES:
            for entry in sorted((self.folder / stage).glob("[!.]*")):
                manifest = read_manifest(entry / "manifest.json")
                if manifest is not None:
                    yield entry, manifest

    def bound(self, largest: int, keep: frozenset[str] = frozenset()) -> list[tuple[Path, int]]:
        """Choose the entries to drop so that the rest fits in `largest` bytes.

        Least recently used first; the keys in `keep` (those on disk now) last.

        Returns:
            The folders to remove, with their sizes in bytes.
        """
        found = []
        for entry, manifest in self.entries():
            size = sum(p.stat().st_size for p in entry.rglob("*") if p.is_file())
            found.append((manifest["key"] in keep, entry.stat().st_mtime, entry, size))
        found.sort(key=lambda one: one[:2])
        excess = sum(size for *_, size in found) - largest
        dropped = []
        for _, _, entry, size in found:
            if excess <= 0:
                break
            excess -= size
            dropped.append((entry, size))
        return dropped

    def remove_leftovers(self, older_than: float = 3600.0) -> None:
        """Remove the partial entries of processes that were killed."""
        for path in self.folder.glob("*/.*.partial"):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > older_than:
                    shutil.rmtree(path)


def sorted_hashes(manifest: Manifest) -> list[tuple[str, str]]:
    """Return the names and hashes of a manifest's outputs, wherever they lie."""
    return sorted((Path(p).name, found["sha256"]) for p, found in manifest["outputs"].items())


def copy_file(source: Path, target: Path) -> None:
    """Copy a file, sharing its blocks where the file system can."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as read, target.open("wb") as write:
        try:
            fcntl.ioctl(write.fileno(), FICLONE, read.fileno())
        except OSError:
            shutil.copyfileobj(read, write, 1 << 20)
