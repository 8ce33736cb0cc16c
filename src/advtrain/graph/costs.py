"""Costs: what a node is likely to take, from what the likes of it took here before."""

import json
import statistics
from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping
from pathlib import Path
from typing import Any

from advtrain.graph.nodes import CELL_STAGES, Node
from advtrain.graph.records import Manifest, read_manifest
from advtrain.graph.store import Store

OVERHEAD = 3.0
"""Seconds that a job spends outside its step, most of it importing torch."""


class Rates:
    """Measured seconds per unit of work, by how alike the work is."""

    def __init__(self) -> None:
        self.seconds: dict[Hashable, list[float]] = defaultdict(list)

    @classmethod
    def measured(cls, root: Path, store: Store) -> "Rates":
        """Gather the times of all finished cells, those on disk and those in the store."""
        rates = cls()
        for manifest, timing in _timings(root, store):
            for likeness in _likenesses(manifest["params"], manifest["inputs"]):
                rates.seconds[likeness].append(timing / _units(manifest["params"]))
        return rates


def estimate(node: Node, rates: Rates) -> float | None:
    """Return the likely seconds of a node, or None where nothing like it was ever measured."""
    if node.stage not in CELL_STAGES:
        return OVERHEAD
    for likeness in _likenesses(node.params, {one.id: None for one in node.inputs}):
        if found := rates.seconds.get(likeness):
            return statistics.median(found) * _units(node.params) + OVERHEAD
    return None


def _timings(root: Path, store: Store) -> Iterator[tuple[Manifest, float]]:
    for stage in CELL_STAGES:
        for path in (root / "results" / stage).rglob("manifest.json"):
            manifest = read_manifest(path)
            if manifest and (seconds := _seconds(path.with_name("timing.json"))):
                yield manifest, seconds
    for entry, manifest in store.entries():
        for path in manifest["volatile"]:
            if seconds := _seconds(entry / "files" / path):
                yield manifest, seconds


def _seconds(path: Path) -> float | None:
    try:
        return float(json.loads(path.read_text(encoding="utf-8"))["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _likenesses(params: Mapping[str, Any], inputs: Mapping[str, Any]) -> Iterator[Hashable]:
    """Name the work from the most to the least alike."""
    data = next((id for id in inputs if id.startswith("prepare:")), "")
    model = json.dumps(params["model"], sort_keys=True)
    kinds = ("method", "attack", "certificate")
    kind = next((one for one in kinds if one in params), "probe")
    work = params.get(kind, {"module": kind})
    yield kind, data, model, json.dumps(work, sort_keys=True)
    yield kind, data, model, work["module"]
    yield kind, data, model


def _units(params: Mapping[str, Any]) -> float:
    """Return by what the time of like work grows: epochs, steps times restarts, noise samples."""
    if params.get("recipe"):
        return float(params["recipe"]["parameters"]["epochs"])
    if "certificate" in params:
        return float(params["certificate"]["parameters"].get("samples") or 1)
    attack = params.get("attack", {}).get("parameters", {})
    steps = float(attack.get("steps") or attack.get("queries") or 1)
    return steps * float(attack.get("restarts") or 1) * float(attack.get("targets") or 1)
