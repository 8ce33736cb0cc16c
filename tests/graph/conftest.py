"""A small repository of parameters, and results written as a job would write them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from advtrain.graph.nodes import Graph, Node
from advtrain.graph.records import describe_outputs, make_manifest, outputs_digest, write_json
from advtrain.params.reader import read
from tests.pipeline.workspace import PARAMS

ROOT = Path(__file__).resolve().parents[2]

MakeGraph = Callable[..., Graph]


@pytest.fixture
def make_graph(tmp_path: Path) -> MakeGraph:
    """Return a function that derives the graph of changed parameters over one scratch root."""
    for name in ("src", "pipeline"):
        (tmp_path / name).symlink_to(ROOT / name)

    def make(change: Callable[[dict[str, Any]], object] = lambda _: None) -> Graph:
        given = yaml.safe_load(yaml.safe_dump(PARAMS))
        given["studies"]["tiny"]["weights"] = ["last"]
        change(given)
        path = tmp_path / "params.yaml"
        path.write_text(yaml.safe_dump(given))
        return Graph(read(path), tmp_path)

    return make


def finish(node: Node, content: str = "") -> dict[str, Any]:
    """Write a node's outputs and manifest, as its job would."""
    for path in node.outputs:
        (node.root / path).parent.mkdir(parents=True, exist_ok=True)
        (node.root / path).write_text(f"{node.id} {Path(path).name} {content}")
    inputs = {}
    for one in node.inputs:
        outputs = describe_outputs(one.root, one.spec())
        inputs[one.id] = {"key": one.key, "digest": outputs_digest(outputs)}
    spec = node.spec()
    manifest = make_manifest(spec, describe_outputs(node.root, spec), inputs, {"torch": "2"})
    write_json(node.manifest, manifest)
    return manifest


def finish_all(graph: Graph) -> None:
    for node in graph:
        finish(node)
