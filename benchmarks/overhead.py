"""What the pipeline itself costs: per cell, and when there is nothing to do.

Runs the smallest study in a scratch copy of the repository, then a run that finds nothing to do,
and derives the keys of a study of 1000 cells. `python benchmarks/overhead.py` prints the figures
with the machine and the versions; times are of this machine and this moment.
"""

import json
import os
import platform
import statistics
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT)]

from advtrain.graph.nodes import Graph  # noqa: E402
from advtrain.graph.sync import sync  # noqa: E402
from advtrain.params.reader import read  # noqa: E402
from tests.pipeline.workspace import PARAMS, Workspace, make_workspace  # noqa: E402

ROUNDS = 5


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        workspace = make_workspace(Path(folder) / "work")
        wall = timed(lambda: workspace.run("snakemake", "--cores", "2"))
        steps, inside = per_job(workspace)
        jobs = len(steps)
        idle = [timed(lambda: workspace.run("snakemake", "--cores", "2")) for _ in range(ROUNDS)]
        workspace.dvc("repro", "--quiet")
        repro = [timed(lambda: workspace.dvc("repro", "--quiet")) for _ in range(ROUNDS)]
        nodes, first, again = thousand_cells(Path(folder) / "large")
    packages = ("snakemake", "dvc", "mlflow", "torch", "pyarrow")
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in packages)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load", end=" ")
    print(f"{os.getloadavg()[0]:.1f}; Python {platform.python_version()}, {versions}")
    print(f"a run of {jobs} cells (train and attack) on 2 cores: {wall:.1f} s")
    print(f"  the steps themselves, summed:      {sum(steps):6.1f} s")
    print(f"  around a step, in its job:         {show(inside)} per cell")
    print(f"a snakemake with nothing to do:      {show(idle)}")
    print(f"a dvc repro with nothing to do:      {show(repro)}")
    print(f"keys, states and markers of {nodes} nodes: {first:.2f} s, again {again:.2f} s")


def per_job(workspace: Workspace) -> tuple[list[float], list[float]]:
    """Return the seconds of each train and attack step, and what its job spent around it."""
    steps, around = [], []
    for job in workspace.journal():
        if job["stage"] in ("train", "attack"):
            timing = workspace.root / "results" / job["stage"] / job["name"] / "timing.json"
            seconds = json.loads(timing.read_text())["seconds"]
            steps.append(seconds)
            around.append(job["finished"] - job["started"] - seconds)
    return steps, around


def thousand_cells(root: Path) -> tuple[int, float, float]:
    """Derive and check a study of about a thousand cells, twice in new graphs."""
    root.mkdir()
    for name in ("src", "pipeline"):
        (root / name).symlink_to(ROOT / name)
    params = json.loads(json.dumps(PARAMS))
    params["studies"]["tiny"] |= {"seeds": list(range(50)), "methods": ["fgsm_rs", "trades"]}
    params["studies"]["tiny"] |= {"epsilons": [i / 10 for i in range(1, 4)]}
    (root / "params.yaml").write_text(json.dumps(params))
    graphs = []

    def derive() -> None:
        graphs.append(Graph(read(root / "params.yaml"), root))
        sync(graphs[-1])

    first, again = timed(derive), timed(derive)
    return len(graphs[-1].nodes), first, again


def timed(action: object) -> float:
    """Return the seconds that a call takes."""
    started = time.perf_counter()
    action()  # type: ignore[operator]
    return time.perf_counter() - started


def show(values: list[float]) -> str:
    """Write a median with its range."""
    return f"{statistics.median(values):6.2f} s ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    main()
