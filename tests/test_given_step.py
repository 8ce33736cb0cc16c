"""The step of a cell that is not trained, run in this process from the specs of the graph."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from advtrain.results.history import read_history
from advtrain.training.checkpoint import load_weights
from pipeline.job import JobError
from pipeline.plugins import build_model, load
from pipeline.run import run
from pipeline.steps import given as given_step
from tests.graph.conftest import MakeGraph, make_graph
from tests.test_steps import job, make, process_as_it_was

__all__ = ["make_graph", "process_as_it_was"]

OWN = Path(__file__).parent / "models"
CELL = "train:tiny/mine-s0"
IMAGES = {"channels": 1, "size": 8, "classes": list(range(10))}


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's model in the repository, with weights as another repository saved them."""
    folder = tmp_path / "own"
    folder.mkdir()
    for name in ("own_network.py", "own_blocks.py"):
        (folder / name).write_text((OWN / name).read_text())
    monkeypatch.chdir(tmp_path)  # as a job is
    torch.manual_seed(5)
    weights = load("models", "external")(
        channels=1, size=8, classes=10, file=str(folder / "own_network.py")
    )[1].state_dict()
    torch.save({"net": {f"module.{k}": v for k, v in weights.items()}}, folder / "w.pt")
    return folder


def small(params: dict[str, Any]) -> None:
    params["datasets"]["digits"] |= {"train_examples": 100, "test_examples": 20}
    params["models"]["mine"] = {"module": "external", "file": "own/own_network.py", "mean": [0.5]}
    params["models"]["mine"] |= {"std": [0.25]}
    params["methods"] = {"mine": {"module": "given", "weights": "own/w.pt"}}
    params["studies"]["tiny"] |= {"model": "mine", "methods": ["mine"], "epsilons": [0.1]}
    del params["studies"]["tiny"]["recipe"]


def test_given_weights_are_a_cells_last_and_best(make_graph: MakeGraph, own: Path) -> None:
    graph = make_graph(small)
    make(graph[CELL])
    saved = torch.load(own / "w.pt", weights_only=True)["net"]
    found = {}
    for which in ("last", "best"):
        found[which] = load_weights(graph.root / f"checkpoints/tiny/mine-s0/{which}.safetensors")
        for name, one in saved.items():
            assert found[which][name.replace("module.", "1.")].equal(one), name
    assert found["last"].keys() == found["best"].keys() == {
        *(name.replace("module.", "1.") for name in saved), "0.mean", "0.std"
    }  # fmt: skip
    folder = graph.root / graph[CELL].folder
    assert read_history(folder / "history.parquet") == []
    summary = json.loads((folder / "summary.json").read_text())
    assert {name: summary[name] for name in ("status", "epochs", "forward_passes", "part")} == {
        "status": "finished", "epochs": 0, "forward_passes": 0, "part": "net"
    }  # fmt: skip
    model = build_model(graph[CELL].params["model"], IMAGES)
    model.load_state_dict(found["last"])  # as an evaluation does


def test_the_attack_of_a_given_cell(make_graph: MakeGraph, own: Path) -> None:
    graph = make_graph(small)
    node = graph["attack:tiny/mine-s0/fgsm-linf-0.1"]
    make(node)
    recorded = json.loads(node.manifest.read_text())
    assert recorded["params"]["model"]["files"].keys() == {
        "own/own_network.py", "own/own_blocks.py"
    }  # fmt: skip


@pytest.mark.parametrize("name", ["own_blocks.py", "w.pt"])
def test_a_file_that_changes_after_the_start_is_refused(
    make_graph: MakeGraph, own: Path, name: str
) -> None:
    graph = make_graph(small)
    make(graph["prepare:digits"])
    one = job(graph[CELL])
    with (own / name).open("ab") as file:
        file.write(b"\n")
    with pytest.raises(JobError, match=f"own/{name} changed since the run began: start it again"):
        run(graph.root, dict(one.spec), one.workspace, one.progress)


def test_weights_of_another_network_name_their_place(make_graph: MakeGraph, own: Path) -> None:
    def change(params: dict[str, Any]) -> None:
        small(params)
        params["studies"]["tiny"]["model"] = "small_cnn"

    graph = make_graph(change)
    make(graph["prepare:digits"])
    told = r"params.yaml: methods.mine.weights: .*own/w.pt: net: .* names agree; the file lacks"
    with pytest.raises(ValueError, match=told):
        given_step.run(job(graph[CELL]))


def test_weights_for_a_network_of_the_project(make_graph: MakeGraph, own: Path) -> None:
    def change(params: dict[str, Any]) -> None:
        small(params)
        params["studies"]["tiny"]["model"] = "small_cnn"

    trained = build_model({"module": "small_cnn", "parameters": {"width": 4, "hidden": 32}}, IMAGES)
    torch.save(trained.state_dict(), own / "w.pt")
    graph = make_graph(change)
    make(graph[CELL])
    found = load_weights(graph.root / "checkpoints/tiny/mine-s0/last.safetensors")
    assert all(found[name].equal(one) for name, one in trained.state_dict().items())


def test_without_a_file_the_weights_are_those_that_the_function_gives(
    make_graph: MakeGraph, own: Path
) -> None:
    with (own / "own_network.py").open("a") as file:
        file.write("\n\ndef filled():\n    net = build(1, 10)\n"
                   "    nn.init.constant_(net[-1].bias, 3.0)\n    return net\n")  # fmt: skip

    def change(params: dict[str, Any]) -> None:
        small(params)
        params["methods"]["mine"] = {"module": "given"}
        params["models"]["mine"]["build"] = "filled"

    graph = make_graph(change)
    make(graph[CELL])
    found = load_weights(graph.root / "checkpoints/tiny/mine-s0/last.safetensors")
    assert found["1.3.bias"].eq(3).all()


def test_a_network_of_the_project_brings_no_weights(make_graph: MakeGraph, own: Path) -> None:
    def change(params: dict[str, Any]) -> None:
        small(params)
        params["methods"]["mine"] = {"module": "given"}
        params["studies"]["tiny"]["model"] = "small_cnn"

    graph = make_graph(change)
    make(graph["prepare:digits"])
    with pytest.raises(ValueError, match="methods.mine.weights: none are given, and only an exter"):
        given_step.run(job(graph[CELL]))
