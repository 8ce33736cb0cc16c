"""What the pipeline itself costs: per cell, when there is nothing to do, and per row (P7).

    python benchmarks/overhead.py [--quick] [--only cell plan rows] [--folder FOLDER]

`cell` runs the smallest study in scratch copies of the repository, whose cells are almost nothing
but overhead; `plan` checks a finished study of a thousand cells; `rows` writes the results of an
attack. Times are wall time here: a pipeline waits for disks and other processes.
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT)]

import numpy as np  # noqa: E402
import torch  # noqa: E402

from advtrain.attacks.pgd import pgd  # noqa: E402
from advtrain.graph.nodes import Graph  # noqa: E402
from advtrain.graph.sync import sync  # noqa: E402
from advtrain.params.reader import read  # noqa: E402
from advtrain.results.outcomes import write_outcomes  # noqa: E402
from advtrain.results.schema import STAMPS  # noqa: E402
from benchmarks import harness  # noqa: E402
from benchmarks.harness import CPU, Goal, Results, spread  # noqa: E402
from benchmarks.training import networks  # noqa: E402
from tests.graph.conftest import finish_all  # noqa: E402
from tests.pipeline.workspace import PARAMS, Workspace, make_workspace  # noqa: E402

CORES = 2


def cell_section(quick: bool) -> Results:
    """Seconds that a cell of the smallest study takes beside the model's own (P7)."""
    results = Results()
    inside: dict[str, list[float]] = {"train": [], "attack": []}
    whole: list[float] = []
    cells = 0
    for _ in range(1 if quick else 3):
        with tempfile.TemporaryDirectory() as folder:
            workspace = make_workspace(Path(folder) / "work")
            workspace.run("snakemake", "--cores", str(CORES))
            found, span, probes = per_job(workspace), *between(workspace)
        model, cells = sum(own for _, own, _ in found), len(found)
        whole.append((span * CORES - model - probes) / cells)
        for stage, own, job in found:
            inside[stage].append(job - own)
    for stage, overhead in inside.items():
        results.rows.append({"what": f"inside the job of a {stage} cell", "s": spread(overhead)})
        label = f"P7 {stage} cell, in a forked job: seconds beside the model's"
        results.goals.append(Goal(label, spread(overhead), 0.5, at_most=True))
    results.rows.append(
        {"what": f"per cell, Snakemake included, {cells} cells", "s": spread(whole)}
    )
    label = "P7 a cell of 60 s, Snakemake included: share beside the model's"
    results.goals.append(Goal(label, spread([one / 60 for one in whole]), 0.02, at_most=True))
    results.remarks.append(
        "A training's own time is its epochs by the median one; of an attack on 60 images none is "
        "taken off. With Snakemake: all cores, from the first cell's start to the last one's end, "
        "the time in which a core has nothing to do included."
    )
    return results


def per_job(workspace: Workspace) -> list[tuple[str, float, float]]:
    """The stage, the model's own seconds and the seconds of each job that trained or attacked."""
    found = []
    for job in workspace.journal():
        if job["stage"] in ("train", "attack"):
            timing = workspace.root / "results" / job["stage"] / job["name"] / "timing.json"
            epochs = [one["seconds"] for one in json.loads(timing.read_text())["epochs"]]
            own = len(epochs) * statistics.median(epochs) if epochs else 0.0
            found.append((job["stage"], own, job["finished"] - job["started"]))
    return found


def between(workspace: Workspace) -> tuple[float, float]:
    """Seconds from the first start of a cell to the last end, and the probes' seconds in it."""
    jobs = [job for job in workspace.journal() if job["stage"] in ("train", "attack", "probe")]
    span = max(job["finished"] for job in jobs) - min(job["started"] for job in jobs)
    probes = sum(job["finished"] - job["started"] for job in jobs if job["stage"] == "probe")
    return span, probes


def plan_section(quick: bool) -> Results:
    """Seconds until a finished study of a thousand cells is found finished (P7)."""
    results = Results()
    with tempfile.TemporaryDirectory() as folder:
        workspace = make_workspace(Path(folder) / "work", thousand_cells())
        graph = derived(workspace)
        finish_all(graph)
        sync(graph)
        ways: dict[str, Callable[[], Any]] = {
            "keys, states and markers, in one process": lambda: sync(derived(workspace)),
            "advtrain status": partial(workspace.run, "advtrain", "status"),
            "snakemake": partial(workspace.run, "snakemake", "--cores", str(CORES)),
        }
        for name, way in ways.items():
            taken = spread([seconds(way) for _ in range(2 if quick else 5)])
            results.rows.append({"what": name, "nodes": len(graph.nodes), "seconds": taken})
            label = f"P7 {len(graph.nodes)} finished nodes, {name}: seconds"
            results.goals.append(Goal(label, taken, 2.0, at_most=True))
    return results


def thousand_cells() -> dict[str, Any]:
    """The smallest study with more seeds and budgets: 350 trainings, 700 attacks."""
    params: dict[str, Any] = json.loads(json.dumps(PARAMS))
    params["studies"]["tiny"] |= {"seeds": list(range(50))}
    params["studies"]["tiny"] |= {"epsilons": [number / 10 for number in range(1, 4)]}
    return params


def derived(workspace: Workspace) -> Graph:
    """The graph, as each process derives it anew."""
    return Graph(read(workspace.root / "params.yaml"), workspace.root)


ROWS = 10_000


def rows_section(quick: bool) -> Results:
    """Bytes of a row of results, and the time of writing them beside the attack's (P7)."""
    results, drawn = Results(), np.random.default_rng(0)
    network = networks(CPU)[0]
    x, y, noise = next(network.batches())
    attack = partial(pgd, network.model, x, y, network.threat, noise, steps=20)
    # Numbers that no compression makes smaller; those of a real attack repeat.
    numbers = {name: drawn.normal(size=ROWS) for name in ("objective", "gain", "late_gain")}
    columns: dict[str, Any] = {
        "cell": "cnn/trades-linf-0.1-s0",
        "attack": "pgd_20",
        "protocol": "0" * 16,
        "norm": "linf",
        "epsilon": 8 / 255,
        "example": np.arange(ROWS),
        **{name: drawn.integers(0, 10, ROWS) for name in ("label", "clean_prediction")},
        "adversarial_prediction": drawn.integers(0, 10, ROWS),
        "distance": 8 / 255 - drawn.random(ROWS) * 1e-8,
        **numbers,
        "forward": np.full(ROWS, 21),
        "backward": np.full(ROWS, 20),
        "stage": np.full(ROWS, ""),
        "claim": np.where(drawn.random(ROWS) < 0.5, "none", "confirmed"),
    }
    written, attacked = [], []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "outcomes.parquet"
        for _ in range(2 if quick else 7):
            write = partial(write_outcomes, path, columns, dict.fromkeys(STAMPS, "0" * 16))
            written.append(seconds(write))
            attacked.append(seconds(attack) * ROWS / network.batch)
        size = path.stat().st_size / ROWS
    share = harness.ratio(written, attacked)
    results.rows += [
        {"what": f"bytes per row, of {ROWS}", "found": size},
        {"what": f"seconds of writing {ROWS} rows", "found": spread(written)},
        {"what": f"seconds of PGD-20 on {ROWS} images, {network.name}", "found": spread(attacked)},
    ]
    results.goals += [
        Goal("P7 bytes per row", size, 30, at_most=True),
        Goal("P7 writing rows / PGD-20 that makes them", share, 0.005, at_most=True),
    ]
    return results


def seconds(action: Callable[[], object]) -> float:
    """The wall time of a call."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


SECTIONS: dict[str, Callable[[bool], Results]] = {
    "cell": cell_section,
    "plan": plan_section,
    "rows": rows_section,
}


def main(argv: list[str] | None = None) -> None:
    """Measure, print, and keep the results."""
    given = harness.parser(__doc__, SECTIONS).parse_args(argv)
    torch.set_num_threads(1)
    harness.measure("overhead", SECTIONS, given, given.quick)


if __name__ == "__main__":
    main()
