"""States: whether the results on disk are those that `params.yaml` asks for, and if not, why."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from advtrain.graph.dotted import changed
from advtrain.graph.nodes import CELL_STAGES, Graph, Node
from advtrain.graph.records import Manifest, absent_outputs, outputs_digest, read_manifest

FOLDERS = (
    ("data/prepared", 1),
    ("results/train", 2),
    ("results/attack", 3),
    ("results/certify", 3),
    ("results/probe", 3),
    ("results/collect", 1),
    ("reports/tables", 1),
    ("reports/figures", 1),
    ("checkpoints", 2),
)
WEIGHTS = "checkpoints/"


@dataclass(frozen=True)
class State:
    """`fresh`, `stale`, `missing` or `partial`, with the reasons in words.

    `partial` is a training of which all is here but the weights (they were not pulled): it is
    trained again only if a node has to run on them: an attack, a certificate, another training.
    """

    word: str
    reasons: tuple[str, ...] = ()

    @property
    def is_fresh(self) -> bool:
        """Whether there is nothing to do."""
        return self.word == "fresh"


FRESH = State("fresh")


def states(graph: Graph) -> dict[str, State]:
    """Return the state of every node, from manifests and file sizes (`verify` reads the bytes)."""
    manifests = {node.id: read_manifest(node.manifest) for node in graph}
    found: dict[str, State] = {}
    for node in graph:  # each after what it reads
        found[node.id] = _state(node, manifests, found)
    return found


def todo(graph: Graph, found: Mapping[str, State]) -> set[str]:
    """Return the nodes that have to run: all that are not fresh, partial ones if they are read."""
    waiting = {node.id for node in graph if found[node.id].word in ("stale", "missing")}
    for node in reversed(graph.nodes.values()):  # a training that has to run reads others' weights
        if node.stage in CELL_STAGES and node.id in waiting:
            waiting |= {one.id for one in node.inputs if not found[one.id].is_fresh}
    return waiting


def _state(
    node: Node, manifests: Mapping[str, Manifest | None], upstream: Mapping[str, State]
) -> State:
    manifest = manifests[node.id]
    if manifest is None:
        return State("missing", (_failure(node) or "it has not been computed here",))
    if manifest["key"] != node.key:
        return State("stale", tuple(_why(node, manifest)))
    absent = absent_outputs(node.root, node.outputs, manifest)
    if absent:
        advice = f"{absent[0]} is not here, or cut short (`dvc pull` brings it if it was pushed)"
        without_weights = all(path.startswith(WEIGHTS) for path in absent)
        return State("partial" if without_weights else "missing", (advice,))
    for one in node.inputs:
        found, recorded = manifests[one.id], manifest["inputs"].get(one.id)
        if found and recorded and recorded["digest"] != outputs_digest(found["outputs"]):
            return State("stale", (f"{one.id} has other bytes than those it was made from",))
        if upstream[one.id].word == "stale":
            return State("stale", (f"input: {one.id} is stale",))
    return FRESH


def _failure(node: Node) -> str:
    """Say why the last job of this very node failed; empty if none did."""
    try:
        job = json.loads((node.root / node.progress).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    if not isinstance(job, dict) or (job.get("state"), job.get("key")) != ("failed", node.key):
        return ""
    return f"its job failed: {job.get('cause', 'no cause was recorded')} ({node.log})"


def _why(node: Node, manifest: Manifest) -> Iterator[str]:
    """Say which parameter, code or input changed, from what to what."""
    for name, (before, now) in changed(manifest["params"], node.params).items():
        yield f"{name}: {before} -> {now}"
    for file in sorted(manifest["code"].keys() | node.code.keys()):
        if file not in node.code:
            yield f"code: {file} is no longer used"
        elif file not in manifest["code"]:
            yield f"code: {file} is used now"
        elif manifest["code"][file] != node.code[file]:
            yield f"code: {file} changed"
    recorded = {id: found["key"] for id, found in manifest["inputs"].items()}
    roles = manifest.get("roles", {})
    for role, one in node.roles.items():
        if roles.get(role, one.id) != one.id:
            yield f"{role}: {roles[role]} -> {one.id}"
    for upstream in node.inputs:
        if recorded.get(upstream.id) != upstream.key:
            yield f"input: {upstream.id} changed"
    for id in sorted(recorded.keys() - {upstream.id for upstream in node.inputs}):
        yield f"input: {id} is no longer read"


def orphans(graph: Graph) -> list[Path]:
    """List result folders that no node of any study of `params.yaml` owns.

    The studies that `run` does not name are not orphans: their results wait.
    """
    owned = {graph.root / node.folder for node in graph}
    owned |= {(graph.root / path).parent for node in graph for path in node.outputs}
    owned |= {above for one in owned for above in one.parents}
    found = []
    for folder, depth in FOLDERS:
        pattern = "/".join(["*"] * depth)
        found += [
            path
            for path in sorted((graph.root / folder).glob(pattern))
            if path.is_dir() and path not in owned
        ]
    return found
