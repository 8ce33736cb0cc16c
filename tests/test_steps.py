"""Steps: the jobs of cells, run in this process from the specs that the graph makes."""

import json
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from advtrain.data.store import load_description, load_split
from advtrain.graph.nodes import PICTURED, Graph, Node
from advtrain.graph.timings import SECTIONS
from advtrain.results.certified import read_certified
from advtrain.results.collect import read_collected
from advtrain.results.files import read_table
from advtrain.results.outcomes import table_stamps
from advtrain.training.checkpoint import load_weights
from pipeline.evaluated import in_words
from pipeline.job import Job, Progress
from pipeline.plugins import build_model
from pipeline.run import run
from pipeline.steps import train as train_step
from pipeline.torch_device import choose_device
from tests.graph.conftest import MakeGraph, make_graph

__all__ = ["make_graph"]

NATURAL = "train:tiny/natural-s0"
TRADES = "train:tiny/trades-linf-0.1-s0"
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def process_as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put back what a job sets for its whole process."""
    for name in ("DVC_ROOT", "ADVTRAIN_STORE", "ADVTRAIN_FORCE"):
        monkeypatch.delenv(name, raising=False)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


def small(params: dict[str, Any]) -> None:
    params["datasets"]["digits"] |= {"train_examples": 100, "test_examples": 20, "unlabelled": 0.2}
    params["recipes"]["short"] |= {"epochs": 1, "batch_size": 32, "extra_fraction": 0.5}
    params["methods"]["natural"]["start"] = None
    params["methods"]["trades"]["teacher"] = "natural"


def job(node: Node) -> Job:
    workspace = node.root / node.wip
    facts = {"stage": node.stage, "name": node.name, "key": node.key, "started": 0.0}
    progress = Progress(node.root / node.progress, workspace / "history.jsonl", facts)
    return Job(node.root, json.loads(json.dumps(node.spec())), workspace, progress)


def make(node: Node) -> None:
    """Make a node and what it reads."""
    for one in node.inputs:
        make(one)
    one = job(node)
    assert run(node.root, dict(one.spec), one.workspace, one.progress) in (
        "computed",
        "is there already",
    )


def with_start(params: dict[str, Any]) -> None:
    small(params)
    params["recipes"]["short"]["extra_fraction"] = 0.0
    params["methods"]["natural"] = {}
    params["methods"]["trades"] = {"start": "natural"}


def test_a_student_learns_what_its_teacher_says(make_graph: MakeGraph) -> None:
    def change(params: dict[str, Any]) -> None:
        small(params)
        params["datasets"]["digits"]["train_examples"] = 300
        params["recipes"]["short"]["epochs"] = 4
        params["recipes"]["plain"] = {**params["recipes"]["short"], "extra_fraction": 0.0}
        params["studies"]["tiny"]["recipe"] = {"default": "plain", "trades": "short"}

    graph = make_graph(change)
    make(graph[NATURAL])
    extra = train_step.extra_data(job(graph[TRADES]), CPU)
    folder = graph.root / "data/prepared/digits"
    split = load_split(folder, "unlabelled")
    assert extra is not None
    assert extra.images.equal(split.images)
    assert extra.example.equal(split.example)
    teacher = build_model(graph[NATURAL].params["model"], load_description(folder))
    weights = load_weights(graph.root / "checkpoints/tiny/natural-s0/last.safetensors")
    teacher.load_state_dict(weights)
    said = teacher.eval()(split.images.float() / 255).argmax(1)
    assert extra.labels.equal(said)
    assert len(said.unique()) > 1  # not one class for all
    make(graph[TRADES])
    assert train_step.extra_data(job(graph[NATURAL]), CPU) is None


def test_a_teacher_without_anything_to_label(make_graph: MakeGraph) -> None:
    def change(params: dict[str, Any]) -> None:
        small(params)
        params["datasets"]["digits"]["unlabelled"] = 0.0

    graph = make_graph(change)
    make(graph["prepare:digits"])
    with pytest.raises(ValueError, match=r"methods.trades has a teacher, but .* set datasets.digits"
                       ".unlabelled to the share"):  # fmt: skip
        train_step.extra_data(job(graph[TRADES]), CPU)


def test_extra_data_that_nobody_labels(make_graph: MakeGraph) -> None:
    graph = make_graph(small)
    make(graph["prepare:digits"])
    with pytest.raises(ValueError, match="recipes.short.extra_fraction is 0.5, but nothing labels "
                       "the extra data of digits: give methods.natural a teacher"):  # fmt: skip
        train_step.extra_data(job(graph[NATURAL]), CPU)


def test_kept_images_are_collected_beside_the_clean_ones(make_graph: MakeGraph) -> None:
    def change(params: dict[str, Any]) -> None:
        params["datasets"]["digits"] |= {"train_examples": 100, "test_examples": 20}
        params["recipes"]["short"]["epochs"] = 1
        kept = {"methods": ["natural"], "keep_adversarial": {"fgsm": "float16"}}
        params["studies"]["tiny"] |= {**kept, "attacks": ["fgsm"], "epsilons": [0.25]}

    graph = make_graph(change)
    make(graph["collect:tiny"])
    rows = read_table(graph.root / "results/collect/tiny/adversarial.parquet").to_pylist()
    test = load_split(graph.root / "data/prepared/digits", "test")
    assert {(row["cell"], row["attack"]) for row in rows} == {("natural-s0", "fgsm-linf-0.25")}
    for row in rows:
        (place,) = (test.example == row["example"]).nonzero()[0].tolist()
        clean = torch.frombuffer(bytearray(row["clean"]), dtype=torch.float32)
        assert clean.equal(test.images[place].flatten().float() / 255)
        x_adv = torch.frombuffer(bytearray(row["x_adv"]), dtype=torch.float32)
        assert 0.2 < (x_adv - clean).abs().max() <= 0.25
        assert row["label"] == row["clean_prediction"] == test.labels[place]


def test_the_loss_around_images_and_learnt_budgets_are_collected(make_graph: MakeGraph) -> None:
    def change(params: dict[str, Any]) -> None:
        params["datasets"]["digits"] |= {"train_examples": 60, "test_examples": 20}
        params["recipes"]["short"]["epochs"] = 2
        params["methods"]["iaat"] = {"steps": 1}
        few = {"methods": ["natural", "iaat"], "attacks": ["fgsm"], "epsilons": [0.1, 0.25]}
        params["studies"]["tiny"] |= few

    graph = make_graph(change)
    make(graph["collect:tiny"])
    tables = read_collected(graph.root / "results/collect/tiny")
    test, train = (
        load_split(graph.root / "data/prepared/digits", name) for name in ("test", "train")
    )
    rows = tables.landscapes.to_pylist()
    # A cell without a budget is looked at in units of the largest.
    budgets = {"natural-s0": 0.25, "iaat-linf-0.1-s0": 0.1, "iaat-linf-0.25-s0": 0.25}
    assert {row["cell"]: row["epsilon"] for row in rows} == budgets
    pictured = sorted(test.example[:PICTURED].tolist())
    assert [row["example"] for row in rows] == pictured * len(budgets)
    for row in rows:
        (place,) = (test.example == row["example"]).nonzero()[0].tolist()
        assert row["image"] == test.images[place].numpy().tobytes()
        assert row["label"] == test.labels[place]
        assert row["largest"] > 0
    learnt = tables.example_values.to_pylist()
    assert {(row["cell"], row["epoch"]) for row in learnt} == {
        (cell, epoch) for cell in budgets if cell.startswith("iaat") for epoch in (1, 2)
    }
    assert {row["examples"] for row in learnt} == {len(train)}
    for row in tables.extremes.to_pylist():
        (place,) = (train.example == row["example"]).nonzero()[0].tolist()
        assert row["image"] == train.images[place].numpy().tobytes()


def test_labels_that_the_data_came_with_are_learnt(make_graph: MakeGraph) -> None:
    graph = make_graph(small)
    make(graph["prepare:digits"])
    folder = graph.root / "data/prepared/digits"
    facts = load_description(folder) | {"unlabelled_labels": True}
    (folder / "dataset.json").write_text(json.dumps(facts))
    extra = train_step.extra_data(job(graph[NATURAL]), CPU)
    assert extra is not None
    assert extra.labels.equal(load_split(folder, "unlabelled").labels)


def test_a_start_is_the_last_weights_of_another_cell(make_graph: MakeGraph) -> None:
    graph = make_graph(with_start)
    make(graph[NATURAL])
    found = train_step.initial_model(job(graph[TRADES])).state_dict()
    last = load_weights(graph.root / "checkpoints/tiny/natural-s0/last.safetensors")
    assert found.keys() == last.keys()
    assert all(found[name].equal(last[name]) for name in last)
    fresh = train_step.initial_model(job(graph[NATURAL])).state_dict()
    assert not all(fresh[name].equal(last[name]) for name in last)
    make(graph[TRADES])
    recorded = json.loads(graph[TRADES].manifest.read_text())
    assert recorded["roles"] == {"start": NATURAL}


def test_a_training_whose_start_has_lost_its_weights_says_so(make_graph: MakeGraph) -> None:
    graph = make_graph(with_start)
    make(graph[NATURAL])
    last = graph.root / "checkpoints/tiny/natural-s0/last.safetensors"
    last.unlink()
    one = job(graph[TRADES])
    with pytest.raises(Exception, match=r"natural-s0/last.safetensors is not here; `dvc checkout`"):
        run(graph.root, dict(one.spec), one.workspace, one.progress)


@pytest.mark.parametrize("role", ["start", "teacher"])
def test_a_collapsed_training_is_nobodys_start_or_teacher(make_graph: MakeGraph, role: str) -> None:
    # Its weights are finite (those before the collapse), and not what their name says.
    def change(params: dict[str, Any]) -> None:
        small(params)
        params["recipes"]["plain"] = {**params["recipes"]["short"], "extra_fraction": 0.0}
        params["recipes"]["broken"] = {**params["recipes"]["plain"], "learning_rate": 1e30}
        recipe = "short" if role == "teacher" else "plain"
        recipes = {"default": "plain", "natural": "broken", "trades": recipe}
        params["studies"]["tiny"]["recipe"] = recipes
        params["methods"]["natural"] = {}
        params["methods"]["trades"] = {role: "natural"}

    graph = make_graph(change)
    make(graph[NATURAL])
    told = rf"methods.trades: the training that is its {role} collapsed \(the training loss became"
    with pytest.raises(ValueError, match=told):
        make(graph[TRADES])


def test_published_weights_are_a_start(
    make_graph: MakeGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(params: dict[str, Any]) -> None:
        with_start(params)
        params["methods"]["trades"]["start"] = "torchvision:resnet18/IMAGENET1K_V1"

    asked: list[str] = []
    monkeypatch.setattr(train_step, "start_from", lambda model, name: asked.append(name))
    graph = make_graph(change)
    make(graph["prepare:digits"])
    train_step.initial_model(job(graph[TRADES]))
    assert asked == ["resnet18/IMAGENET1K_V1"]


def test_what_is_learnt_of_each_example_is_written(make_graph: MakeGraph) -> None:
    def change(params: dict[str, Any]) -> None:
        small(params)
        params["recipes"]["short"]["extra_fraction"] = 0.0
        params["methods"] |= {"iaat": {}}
        params["studies"]["tiny"]["methods"] = ["iaat"]

    graph = make_graph(change)
    node = graph["train:tiny/iaat-linf-0.1-s0"]
    make(node)
    table = read_table(graph.root / node.folder / "examples.parquet")
    assert table.schema.names == ["example", "epoch", "epsilon"]
    assert table.schema.types == [pa.int64(), pa.int64(), pa.float64()]
    train = load_split(graph.root / "data/prepared/digits", "train")
    assert set(table["example"].to_pylist()) == set(train.example.tolist())


def test_a_training_without_an_epoch_has_learnt_nothing_of_its_examples() -> None:
    table = train_step.example_table(("epsilon",), {})
    assert table.num_rows == 0
    assert table.schema.names == ["example", "epoch", "epsilon"]
    assert table.schema.types == [pa.int64(), pa.int64(), pa.float64()]


def certified(params: dict[str, Any]) -> None:
    with_start(params)
    params["certificates"] = {
        "ibp": {},
        "smoothing_025": {"module": "smoothing", "sigma": 0.25, "samples": 20, "selection": 10},
    }
    params["studies"]["tiny"] |= {"certificates": ["ibp", "smoothing_025"], "certify_examples": 12}


@pytest.mark.parametrize(
    ("evaluation", "norm", "epsilon"),
    [("ibp-linf-0.1", "linf", 0.1), ("smoothing_025-l2", "l2", None)],
)
def test_a_certificate(
    make_graph: MakeGraph, evaluation: str, norm: str, epsilon: float | None
) -> None:
    graph = make_graph(certified)
    node = graph[f"certify:tiny/natural-s0/{evaluation}"]
    make(node)
    path = graph.root / node.folder / "certified.parquet"
    rows = read_certified(path)
    assert rows.num_rows == 12
    assert rows["cell"].unique().to_pylist() == ["natural-s0"]
    assert rows["certificate"].unique().to_pylist() == [evaluation]
    assert rows["norm"].unique().to_pylist() == [norm]
    assert rows["epsilon"].unique().to_pylist() == [epsilon]
    test = load_split(graph.root / "data/prepared/digits", "test").take(slice(12))
    assert set(rows["example"].to_pylist()) == set(test.example.tolist())
    assert set(rows["radius"].to_pylist()) <= {0.0, 0.1} or epsilon is None
    stamps = table_stamps(rows, path)
    trained = json.loads(graph[NATURAL].manifest.read_text())
    weights = "checkpoints/tiny/natural-s0/last.safetensors"
    assert stamps["checkpoint"] == trained["outputs"][weights]["sha256"]
    assert (stamps["attack_key"], stamps["cell_key"]) == (node.key, graph[NATURAL].key)


def test_more_examples_than_there_are(make_graph: MakeGraph) -> None:
    def change(params: dict[str, Any]) -> None:
        certified(params)
        params["studies"]["tiny"] |= {"certify_examples": 21, "attack_examples": 22}

    graph = make_graph(change)
    make(graph[NATURAL])
    for stage, evaluation, message in (
        ("certify", "ibp-linf-0.1", "certify_examples: 21, but the test split has 20 examples"),
        ("attack", "fgsm-linf-0.1", "attack_examples: 22, but the test split has 20 examples"),
    ):
        step = import_module(f"pipeline.steps.{stage}")
        with pytest.raises(ValueError, match=f"params.yaml: studies.tiny.{message}"):
            step.run(job(graph[f"{stage}:tiny/natural-s0/{evaluation}"]))


def evaluations(graph: Graph) -> list[Node]:
    return [graph[NATURAL], *(graph.stage(stage)[0] for stage in ("attack", "certify", "probe"))]


def test_no_step_falls_back_to_the_cpu(
    make_graph: MakeGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(params: dict[str, Any]) -> None:
        certified(params)
        params["device"] = "cuda"

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for node in evaluations(make_graph(change)):
        step = import_module(f"pipeline.steps.{node.stage}")
        with pytest.raises(ValueError, match="device: cuda, but torch finds no CUDA device; use a"):
            step.run(job(node))


@pytest.mark.parametrize(
    ("wanted", "there", "chosen"),
    [("auto", True, "cuda"), ("auto", False, "cpu"), ("cpu", True, "cpu"), ("cuda", True, "cuda")],
)
def test_the_device(monkeypatch: pytest.MonkeyPatch, wanted: str, there: bool, chosen: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert choose_device(wanted).type == chosen


def test_the_protocol_in_words() -> None:
    said: dict[str, Any] = {
        "certificate": {"module": "smoothing", "parameters": {"sigma": 0.25, "samples": 100}},
        "threat": {"norm": "l2", "epsilon": None},
        "weights": "last",
        "mode": "eval",
        "precision": "float32",
        "examples": 12,
        "of": 20,
        "seed": 3,
    }
    told = "last weights, eval mode, float32, the first 12 of 20 test examples, seed 3"
    assert in_words(said) == f"smoothing(sigma=0.25, samples=100), l2, {told}"
    said["threat"] = {"norm": "linf", "epsilon": 8 / 255}
    assert in_words(said) == f"smoothing(sigma=0.25, samples=100), linf 0.0313725, {told}"


def test_the_times_of_a_training_say_what_they_went_into(make_graph: MakeGraph) -> None:
    def change(params: dict[str, Any]) -> None:
        small(params)
        params["recipes"]["short"] |= {"epochs": 2, "extra_fraction": 0.0}
        del params["methods"]["trades"]["teacher"]

    node = make_graph(change)[NATURAL]
    make(node)
    folder = node.root / node.folder
    timing = json.loads((folder / "timing.json").read_text())
    measured = [epoch["measured"] for epoch in timing["epochs"]]
    assert len(measured) == 2
    for epoch in measured:
        assert set(epoch) == {*SECTIONS, "images_per_second", "peak_memory_bytes"}
        assert epoch["update"] > 0 < epoch["images_per_second"]
    assert sum(epoch["update"] for epoch in measured) < timing["seconds"]
    history = read_table(folder / "history.parquet")
    assert not {*measured[0], "measured", "seconds"} & {*history.column_names}


def test_a_file_of_a_role(make_graph: MakeGraph) -> None:
    one = job(make_graph(with_start)[TRADES])
    expected = Path("checkpoints/tiny/natural-s0/last.safetensors")
    assert one.role("start", "last.safetensors") == one.root / expected
