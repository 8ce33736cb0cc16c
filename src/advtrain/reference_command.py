"""`advtrain reference STUDY`: keep a finished study's rows in the repository, as a reference."""

import json
import re
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from advtrain.command_error import CommandError
from advtrain.graph.nodes import COLLECTED, Graph, Node
from advtrain.graph.records import read_manifest, write_json
from advtrain.graph.references import FACTS, FOLDER
from advtrain.graph.states import states
from advtrain.provenance import hash_file

CPU_FACTS = Path("/proc/cpuinfo")


class NotFinishedError(CommandError):
    """The study cannot be a reference; the message says why and what to do."""


def keep_reference(root: Path, graph: Graph, study: str, device: str | None = None) -> Path:
    """Copy the collected rows of a finished study to `reports/reference/<study>@<device>`.

    Args:
        root: the repository's top folder.
        graph: with the study in its run.
        study: its name.
        device: the name after the @; the device that the costs name if not given.

    Returns:
        The folder; what was there before is replaced.

    Raises:
        NotFinishedError: if the study's results are not those of the present parameters and code.
    """
    collect = graph[f"collect:{study}"]
    found = states(graph)
    stale = [one.id for one in (collect, *collect.inputs) if not found[one.id].is_fresh]
    if stale:
        raise NotFinishedError(
            f"{study}: {len(stale)} results are missing or stale ({stale[0]} first); run "
            f"`make reproduce STUDY={study}` before it is kept as a reference"
        )
    source = root / collect.folder
    devices = sorted({*pq.read_table(source / "costs.parquet")["device"].to_pylist()} - {None})
    slug = device or "-".join(_slug(one) for one in devices)
    folder = root / FOLDER / f"{study}@{slug}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for one in COLLECTED:
        shutil.copyfile(source / f"{one}.parquet", folder / f"{one}.parquet")
    files = {one.name: hash_file(one) for one in sorted(folder.glob("*.parquet"))}
    write_json(folder / FACTS, {**_facts(root, collect, devices), "files": files})
    return folder


def _slug(device: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")


def _facts(root: Path, collect: Node, devices: list[str]) -> dict[str, Any]:
    timings, manifests = [], []
    for node in collect.inputs:
        manifest = read_manifest(node.manifest)
        assert manifest is not None  # it is fresh
        if node.stage == "train":
            manifests.append(manifest)
        if path := next((one for one in node.volatile if one.endswith("timing.json")), None):
            timings.append(_json(root / path))
    data = next(one for one in collect.inputs if one.stage == "prepare")
    finished = max((float(one["finished"]) for one in timings), default=0.0)
    return {
        "classes": len(_json(root / data.folder / "dataset.json")["classes"]),
        "commit": next((one["git_commit"] for one in timings if one.get("git_commit")), ""),
        "devices": devices,
        "environment": manifests[0]["environment"],
        "finished": time.strftime("%Y-%m-%d", time.gmtime(finished)),
        "hours": round(sum(float(one["seconds"]) for one in timings) / 3600, 3),
        "processor": _processor(),
    }


def _json(path: Path) -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _processor() -> str:
    """Name the processor; `cpu` where the system does not say."""
    if CPU_FACTS.is_file():
        for line in CPU_FACTS.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return " ".join(line.partition(":")[2].split())
    return "cpu"
