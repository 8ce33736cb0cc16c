"""Sync: tell Snakemake, which looks at files, what the keys say.

For each node an empty marker exists if and only if it need not run, and an immutable spec holds
what its job needs. Both are derived and may be deleted at any time.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from advtrain.graph.nodes import STAGES, Graph, Node
from advtrain.graph.records import write_json
from advtrain.graph.states import State, states, todo

EPOCH = 1_000_000_000  # old, and later for later stages: a time stamp never asks for a rerun


def sync(graph: Graph) -> Mapping[str, State]:
    """Make markers and specs agree with the keys; return the states they were made from."""
    found = states(graph)
    waiting = todo(graph, found)
    for node in graph:
        spec = graph.root / node.spec_path
        if not spec.exists() or (node.id in waiting and _is_dated(spec, node)):
            write_json(spec, node.spec())
        marker = graph.root / node.marker
        if node.id not in waiting:
            marker.parent.mkdir(parents=True, exist_ok=True)
            marker.touch()
            os.utime(marker, (EPOCH + STAGES.index(node.stage),) * 2)
        else:
            marker.unlink(missing_ok=True)
        os.utime(spec, (EPOCH - 1,) * 2)
    return found


def _is_dated(spec: Path, node: Node) -> bool:
    """Say whether a spec holds an earlier device or batch size, which its name does not tell."""
    found: Mapping[str, object] = json.loads(spec.read_text(encoding="utf-8"))["unkeyed"]
    return found != node.unkeyed
