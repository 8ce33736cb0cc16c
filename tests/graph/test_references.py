"""Committed rows of reference runs: they stand beside the study, or for it."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from advtrain.graph.nodes import COLLECTED, Graph
from advtrain.graph.references import FOLDER, references
from advtrain.graph.states import orphans
from advtrain.params.reader import ParamsError
from advtrain.provenance import hash_file
from advtrain.reference_command import NotFinishedError, keep_reference
from tests.graph.conftest import MakeGraph, finish_all

FACTS = {
    "classes": 10,
    "commit": "",
    "devices": ["NVIDIA H200"],
    "environment": {"torch": "2.11.0", "python": "3.12.1"},
    "finished": "2026-11-20",
    "hours": 0.5,
    "processor": "a processor",
}


def kept(root: Path, name: str, rows: str = "rows", **facts: Any) -> Path:
    folder = root / FOLDER / name
    folder.mkdir(parents=True)
    for one in COLLECTED:
        (folder / f"{one}.parquet").write_text(f"{one}: {rows}")
    files = {one.name: hash_file(one) for one in folder.glob("*.parquet")}
    (folder / "reference.json").write_text(json.dumps(FACTS | {"files": files} | facts))
    return folder


def other(params: dict[str, Any]) -> None:
    params["studies"]["other"] = params["studies"]["tiny"]
    params["run"] = ["tiny"]


def test_a_reference_of_another_study_has_tables_figures_and_a_section(
    tmp_path: Path, make_graph: MakeGraph
) -> None:
    kept(tmp_path, "other@nvidia-h200")
    graph = make_graph(other)
    collect = graph["collect:other@nvidia-h200"]
    assert collect.step == "reference"
    assert not collect.inputs
    for stage in ("tables", "figures"):
        assert graph[f"{stage}:other@nvidia-h200"].inputs == (collect,)
    (told,) = graph.report.params["references"]
    assert told["name"] == "other@nvidia-h200"
    assert told["classes"] == 10
    assert told["reference"] == (
        "NVIDIA H200; torch 2.11.0, Python 3.12.1; 0.5 hours of jobs; 2026-11-20"
    )


def test_a_reference_of_a_study_that_is_run_stands_beside_it(
    tmp_path: Path, make_graph: MakeGraph
) -> None:
    kept(tmp_path, "tiny@cpu", devices=["cpu"])
    graph = make_graph()
    assert graph["collect:tiny@cpu"] in graph.report.inputs
    assert "tables:tiny@cpu" not in graph.nodes
    assert graph.report.params["references"][0]["reference"].startswith("a processor; ")


def test_what_another_run_made_of_a_reference_is_no_orphan(
    tmp_path: Path, make_graph: MakeGraph
) -> None:
    kept(tmp_path, "other@cpu")
    graph = make_graph(other)
    finish_all(graph)
    every = replace(graph.params, run=tuple(graph.params.studies))
    assert orphans(Graph(every, graph.root, names_only=True)) == []


def test_a_changed_reference_is_another_result(tmp_path: Path, make_graph: MakeGraph) -> None:
    folder = kept(tmp_path, "other@cpu")
    before = make_graph(other)["tables:other@cpu"].key
    shutil.rmtree(folder)
    kept(tmp_path, "other@cpu", rows="other rows")
    assert make_graph(other)["tables:other@cpu"].key != before


def test_a_reference_moves_no_cell(tmp_path: Path, make_graph: MakeGraph) -> None:
    before = {node.id: node.key for node in make_graph()}
    kept(tmp_path, "tiny@cpu")
    after = {node.id: node.key for node in make_graph()}
    assert {id for id in before if before[id] != after[id]} == {"report:all"}


def test_a_reference_of_a_study_that_is_not_there_is_left_alone(
    tmp_path: Path, make_graph: MakeGraph
) -> None:
    kept(tmp_path, "gone@cpu")
    assert make_graph().report.params["references"] == []


def test_a_damaged_reference_is_named_with_the_mend(tmp_path: Path, make_graph: MakeGraph) -> None:
    folder = kept(tmp_path, "tiny@cpu")
    (folder / "outcomes.parquet").write_text("damaged")
    mend = r"outcomes\.parquet is not the file .*git checkout -- reports/reference/tiny@cpu"
    with pytest.raises(ParamsError, match=mend):
        make_graph()
    (folder / "outcomes.parquet").unlink()
    with pytest.raises(ParamsError, match=mend):
        make_graph()


def test_a_reference_that_says_nothing_is_named(tmp_path: Path, make_graph: MakeGraph) -> None:
    (kept(tmp_path, "tiny@cpu") / "reference.json").unlink()
    with pytest.raises(ParamsError, match=r"tiny@cpu/reference\.json does not say .* restore it"):
        make_graph()


@pytest.mark.parametrize("text", ["{", "{}", "[]", '{"classes": 10}'])
def test_a_reference_that_does_not_say_what_it_is(
    tmp_path: Path, make_graph: MakeGraph, text: str
) -> None:
    (kept(tmp_path, "tiny@cpu") / "reference.json").write_text(text)
    with pytest.raises(ParamsError, match=r"tiny@cpu/reference\.json does not say .* restore it"):
        make_graph()


def test_only_finished_results_become_a_reference(make_graph: MakeGraph) -> None:
    graph = make_graph()
    with pytest.raises(NotFinishedError, match=r"tiny: \d+ results are missing .*make reproduce"):
        keep_reference(graph.root, graph, "tiny")
    assert not list(references(graph.root))


def test_a_result_of_other_parameters_becomes_no_reference(make_graph: MakeGraph) -> None:
    graph: Graph = make_graph()
    finish_all(graph)
    changed = make_graph(lambda p: p["methods"]["trades"].update(beta=2.0))
    with pytest.raises(NotFinishedError, match="missing or stale"):
        keep_reference(graph.root, changed, "tiny")
