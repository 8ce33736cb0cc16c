"""Manifests: the record, beside each result, of what was computed from what.

A manifest travels with the files it describes, through DVC and copies, and holds neither a time
nor a host, so that the same computation writes the same bytes.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from advtrain.provenance import hash_file, hash_json

Manifest = dict[str, Any]


def read_manifest(path: Path) -> Manifest | None:
    """Return a manifest, or None where there is none that can be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and "key" in found and "outputs" in found else None


def describe_outputs(root: Path, spec: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return size and SHA-256 of each output that a later step may depend on."""
    kept = [path for path in spec["outputs"] if path not in spec["volatile"]]
    return {
        path: {"size": (root / path).stat().st_size, "sha256": hash_file(root / path)}
        for path in kept
    }


def absent_outputs(root: Path, outputs: Iterable[str], manifest: Manifest) -> list[str]:
    """List the outputs that are not there, or not of the size that the manifest says."""
    return [path for path in outputs if not _is_whole(root / path, manifest["outputs"].get(path))]


def _is_whole(path: Path, recorded: Mapping[str, Any] | None) -> bool:
    try:
        size = path.stat().st_size
    except OSError:
        return False
    return recorded is None or bool(size == recorded["size"])


def byte_problems(root: Path, manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Read every output and yield those that are not what the manifest says, with what is wrong."""
    for path, recorded in manifest["outputs"].items():
        if not (root / path).is_file():
            yield path, "is not here"
        elif hash_file(root / path) != recorded["sha256"]:
            yield path, "has other bytes than its manifest says"


def outputs_digest(outputs: Mapping[str, Mapping[str, Any]]) -> str:
    """Fold the outputs into one hash that does not depend on where they lie."""
    return hash_json({Path(path).name: found["sha256"] for path, found in outputs.items()})


def make_manifest(
    spec: Mapping[str, Any],
    outputs: Mapping[str, Any],
    inputs: Mapping[str, Any],
    environment: Mapping[str, str],
) -> Manifest:
    """Build the manifest of a finished computation."""
    return {
        "stage": spec["stage"],
        "name": spec["name"],
        "key": spec["key"],
        "params": spec["params"],
        "code": spec["code"],
        "code_digest": spec["code_digest"],
        "inputs": inputs,
        "roles": spec["roles"],
        "outputs": outputs,
        "volatile": spec["volatile"],
        "environment": environment,
    }


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that a reader sees the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
