"""`python -m pipeline.partial STUDY...`: the page of a run that did not finish.

It shows what there is, and for each cell without numbers the cause. It is no result: the next run
that finishes writes the page anew, and the tables of earlier runs stay as they are.
"""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from advtrain.graph.nodes import Graph, Node
from advtrain.graph.records import byte_problems, read_manifest
from advtrain.graph.states import State, states
from advtrain.params.reader import read
from advtrain.reporting.figures import write_figures
from advtrain.reporting.html import write_report
from advtrain.reporting.study_report import StudyReport
from advtrain.results.collect import CellRecord, collect, read_cell, write_collected
from pipeline.study_info import study_info

FOLDER = ".pipeline/partial"


def main() -> int:
    """Write the partial page; return the exit code."""
    root = Path.cwd()
    params = read(root / "params.yaml")
    config = os.environ.get("ADVTRAIN_CONFIG")
    if config:  # what the run was started with, `--config` included
        params = read(root / "params.yaml", json.loads(config))
    graph = Graph(replace(params, run=tuple(sys.argv[1:])), root)
    found = states(graph)
    shutil.rmtree(root / FOLDER, ignore_errors=True)
    studies = [_study(graph, found, name) for name in graph.params.run]
    page = root / "reports/index.html"
    (root / "reports/manifest.json").unlink(missing_ok=True)  # the page is no longer its result
    page.parent.mkdir(exist_ok=True)
    write_report(studies, page)
    print(f"some cells have no results; {page.relative_to(root)} names them and the causes")
    return 0


def _study(graph: Graph, found: dict[str, State], name: str) -> StudyReport:
    """Collect what a study has; a cell that cannot be read is one without numbers."""
    node = graph[f"collect:{name}"]
    tables = graph[f"tables:{name}"]
    data = next(one for one in tables.inputs if one.stage == "prepare")
    folder = graph.root / FOLDER / name
    failures: list[dict[str, str]] = []
    records: list[CellRecord] = []
    prepared = graph.root / data.folder
    for cell, evaluations in node.params["cells"].items():
        train = graph[f"train:{name}/{cell}"]
        asked = {
            "attack": [graph[f"attack:{name}/{cell}/{one}"] for one in evaluations],
            "certify": [
                graph[f"certify:{name}/{cell}/{one}"] for one in node.params["certificates"][cell]
            ],
            "probe": [graph[f"probe:{name}/{cell}/{one}"] for one in node.params["probes"][cell]],
        }
        if not found[data.id].is_fresh:
            failures.append(_described(cell, data))
            continue
        if found[train.id].word not in ("fresh", "partial"):
            failures.append(_described(cell, train))
            continue
        done = {
            stage: [one for one in nodes if found[one.id].is_fresh]
            for stage, nodes in asked.items()
        }
        failures += [
            _described(f"{cell}/{one.params['evaluation']}", one)
            for nodes in asked.values()
            for one in nodes
            if not found[one.id].is_fresh
        ]
        try:
            for one in (train, *(one for made in done.values() for one in made)):
                _check(one)
            names = {stage: [one.params["evaluation"] for one in done[stage]] for stage in done}
            record = read_cell(graph.root, name, cell, *names.values())
            collect(name, [record], prepared=prepared)
        except (ValueError, OSError) as error:
            cause = str(error)
            failures.append({"cell": cell, "stage": "collect", "state": "failed", "cause": cause})
        else:
            records.append(record)
    info = study_info(tables.params, graph.root, failures)
    if records:
        write_collected(collect(name, records, prepared=prepared), folder / "collect")
        write_figures(folder / "collect", info, folder / "figures")
    return StudyReport(info=info, collected=folder / "collect", figures=folder / "figures")


def _check(node: Node) -> None:
    """Refuse rows whose bytes are not those that the manifest says; weights are not shown."""
    for path, problem in byte_problems(node.root, read_manifest(node.manifest) or {"outputs": {}}):
        if not path.startswith("checkpoints/"):
            raise ValueError(f"{path} {problem}")


def _described(cell: str, node: Node) -> dict[str, str]:
    state, cause = _failure(node)
    return {"cell": cell, "stage": node.stage, "state": state, "cause": cause}


def _failure(node: Node) -> tuple[str, str]:
    """Return `failed` and the cause that the job wrote down, or `missing`."""
    try:
        job = json.loads((node.root / node.progress).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        job = {}
    if job.get("key") != node.key:
        return "missing", next(_upstream_causes(node), "it was not computed")
    if job.get("state") == "failed":
        return "failed", str(job.get("cause", "unknown"))
    return "failed", "its process died before it could say why; was the memory enough?"


def _upstream_causes(node: Node) -> Iterator[str]:
    for one in node.inputs:
        state, cause = _failure(one)
        if state == "failed":
            yield f"it waits for {one.id}, which failed: {cause}"


if __name__ == "__main__":
    sys.exit(main())
