"""Wiring: what the rules declare, looked up in the graph by the wildcard `name`."""

import fcntl
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from snakemake.exceptions import WorkflowError
from snakemake.io import ancient, touch
from snakemake.utils import update_config

from advtrain.graph.nodes import DuplicateCellError, Graph, Node
from advtrain.graph.processes import processes
from advtrain.params.reader import ParamsError, load_yaml, read
from advtrain.published.registry import read_registry
from pipeline.devices import gpu_places

# A job writes to its log alone; what made it fail is worth a line on the terminal.
RUN = "python -m pipeline.run {input.spec} > {log} 2>&1 || {{ tail -n 4 {log} >&2; exit 1; }}"


def load_graph(root: Path, config: dict[str, Any]) -> Graph:
    """Read the parameters, with what `--config` laid over them, and derive the graph.

    Raises:
        WorkflowError: with the clear message, which Snakemake shows without a traceback.
    """
    # The jobs' `python` is the one that Snakemake runs in, activated or not.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    try:
        given = load_yaml(root / "params.yaml")
        update_config(given, config)
        graph = Graph(read(root / "params.yaml", given), root)
        for node in graph:
            _ = node.key
    except (ParamsError, DuplicateCellError) as error:
        raise WorkflowError(f"\n{error}") from None
    except SyntaxError as error:
        raise WorkflowError(f"\n{error.filename}, line {error.lineno}: {error.msg}") from None
    try:
        read_registry()  # a slip in it is told before anything is trained
    except ValueError as error:
        raise WorkflowError(f"\nsrc/advtrain/published/registry: {error}") from None
    return graph


def gpus_of(graph: Graph) -> list[str]:
    """List a GPU for each job that may run on one at the same time.

    Raises:
        WorkflowError: if the environment asks for a number of jobs or processes that is none.
    """
    try:
        processes()
        return gpu_places(graph.params.device, graph.params.cells_per_gpu)
    except ValueError as error:
        raise WorkflowError(f"\n{error}") from None


def hold_workspace(root: Path) -> IO[str] | None:
    """Hold the workspace while this process lives, and drop the locks of one that was killed.

    Snakemake's own lock outlives a `kill -9`; a lock on an open file does not.

    Returns:
        The open file, to be kept; None while another Snakemake is at work (which then refuses).
    """
    lock = root / ".pipeline/run.lock"
    lock.parent.mkdir(exist_ok=True)
    file = lock.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    for left in (root / ".snakemake/locks").glob("*.lock"):
        left.unlink(missing_ok=True)
    return file


def marker(stage: str, name: str = "{name}") -> Any:
    """Declare the output of a rule: the node's marker."""
    return touch(f".pipeline/fresh/{stage}/{name}")


def spec_of(graph: Graph, stage: str) -> Callable[[Any], Any]:
    """Return the input function for a node's spec, whose age says nothing."""
    return lambda wildcards: ancient(_node(graph, stage, wildcards).spec_path)


def inputs_of(graph: Graph, stage: str) -> Callable[[Any], list[str]]:
    """Return the input function for the markers of what a node reads."""
    return lambda wildcards: [one.marker for one in _node(graph, stage, wildcards).inputs]


def _node(graph: Graph, stage: str, wildcards: Any) -> Node:
    name = wildcards.get("name", "all")
    try:
        return graph[f"{stage}:{name}"]
    except KeyError:
        studies = ", ".join(graph.params.run)
        raise WorkflowError(
            f"there is no {stage} {name} in the studies of this run ({studies}); "
            "`advtrain status --all` lists what there is"
        ) from None
