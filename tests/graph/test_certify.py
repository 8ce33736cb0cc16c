"""Certificates in the graph: which cells, at which budgets, and what moves their keys."""

import json
from typing import Any

import pytest

from advtrain.graph.costs import OVERHEAD, Rates, estimate
from advtrain.graph.nodes import Graph
from advtrain.graph.states import orphans, states, todo
from advtrain.graph.store import Store
from tests.graph.conftest import MakeGraph, finish, finish_all

TRADES = "train:tiny/trades-linf-0.1-s0"
BOUNDS = "certify:tiny/trades-linf-0.1-s0/ibp-linf-0.1"
RADIUS = "certify:tiny/trades-linf-0.1-s0/smoothing_025-l2"


def certified(params: dict[str, Any]) -> None:
    params["certificates"] = {
        "ibp": {},
        "smoothing_025": {"module": "smoothing", "sigma": 0.25, "samples": 100},
    }
    params["studies"]["tiny"] |= {
        "certificates": {"ibp": ["natural", "trades"], "smoothing_025": ["trades"]},
        "certify_examples": 40,
    }


def names(graph: Graph) -> list[str]:
    return [node.name for node in graph.stage("certify")]


def test_the_nodes_of_certificates(make_graph: MakeGraph) -> None:
    assert names(make_graph()) == []
    assert names(make_graph(certified)) == [
        "tiny/natural-s0/ibp-linf-0.1",  # without a budget of its own, at all of the study's
        "tiny/natural-s0/ibp-linf-0.2",
        "tiny/trades-linf-0.1-s0/ibp-linf-0.1",
        "tiny/trades-linf-0.1-s0/smoothing_025-l2",
        "tiny/trades-linf-0.2-s0/ibp-linf-0.2",
        "tiny/trades-linf-0.2-s0/smoothing_025-l2",
    ]


def test_a_certificate_of_all_methods(make_graph: MakeGraph) -> None:
    def all_of_them(params: dict[str, Any]) -> None:
        certified(params)
        params["studies"]["tiny"]["certificates"] = ["smoothing_025"]

    cells = {f"{node.name}/smoothing_025-l2" for node in make_graph().stage("train")}
    assert set(names(make_graph(all_of_them))) == cells


def test_what_a_certificate_is_given(make_graph: MakeGraph) -> None:
    graph = make_graph(certified)
    bounds, radius = graph[BOUNDS], graph[RADIUS]
    assert bounds.params["threat"] == {"norm": "linf", "epsilon": 0.1}
    assert radius.params["threat"] == {"norm": "l2", "epsilon": None}
    assert radius.params["certificate"]["parameters"]["sigma"] == 0.25
    assert (radius.params["weights"], radius.params["examples"]) == ("last", 40)
    assert [one.id for one in radius.inputs] == [TRADES, "prepare:digits"]
    assert radius.outputs == (
        "results/certify/tiny/trades-linf-0.1-s0/smoothing_025-l2/certified.parquet",
        "results/certify/tiny/trades-linf-0.1-s0/smoothing_025-l2/timing.json",
    )
    assert radius.volatile == radius.outputs[1:]


def test_a_certificate_is_made_of_its_own_plugins_alone(make_graph: MakeGraph) -> None:
    graph = make_graph(certified)
    assert "src/advtrain/certificates/smoothing.py" in graph[RADIUS].code
    assert "src/advtrain/certificates/ibp.py" not in graph[RADIUS].code
    assert "pipeline/steps/attack.py" not in graph[RADIUS].code
    for node in graph.stage("certify"):
        assert not any(file.startswith("src/advtrain/methods/") for file in node.code)
    for node in (*graph.stage("train"), *graph.stage("attack")):
        assert not any("certif" in file for file in node.code)


@pytest.mark.parametrize(
    ("change", "moved"),
    [
        (lambda p: p["certificates"]["smoothing_025"].update(sigma=0.5), "smoothing_025"),
        (lambda p: p["certificates"]["smoothing_025"].update(samples=200), "smoothing_025"),
        (lambda p: p["studies"]["tiny"].update(certify_examples=50), "-"),
        (lambda p: p["methods"]["trades"].update(beta=1.0), "trades"),
        (lambda p: p["attacks"]["pgd_2"].update(steps=3), "nothing"),
        (lambda p: p["studies"]["tiny"].update(attack_examples=10), "nothing"),
        (lambda p: p["studies"]["tiny"].update(attack_batch_size=10), "nothing"),
        (lambda p: p["studies"]["tiny"].update(weights=["last", "best"]), "nothing"),
    ],
)
def test_what_moves_a_certificates_key(make_graph: MakeGraph, change: Any, moved: str) -> None:
    def changed(params: dict[str, Any]) -> None:
        certified(params)
        change(params)

    before = {node.name: node.key for node in make_graph(certified).stage("certify")}
    after = {node.name: node.key for node in make_graph(changed).stage("certify")}
    assert before.keys() == after.keys()
    assert {n for n in before if before[n] != after[n]} == {n for n in before if moved in n}


def test_a_certificate_moves_no_training_and_no_attack(make_graph: MakeGraph) -> None:
    before = {node.id: node.key for node in make_graph()}
    after = {node.id: node.key for node in make_graph(certified)}
    moved = {id for id in before if before[id] != after[id]}
    assert moved == {"collect:tiny", "tables:tiny", "figures:tiny", "report:all"}


def test_the_tables_read_the_certificates(make_graph: MakeGraph) -> None:
    graph = make_graph(certified)
    collect = graph["collect:tiny"]
    assert collect.params["certificates"] == {
        "natural-s0": ["ibp-linf-0.1", "ibp-linf-0.2"],
        "fgsm_rs-linf-0.1-s0": [],
        "fgsm_rs-linf-0.2-s0": [],
        "trades-linf-0.1-s0": ["ibp-linf-0.1", "smoothing_025-l2"],
        "trades-linf-0.2-s0": ["ibp-linf-0.2", "smoothing_025-l2"],
    }
    assert {node.id for node in graph.stage("certify")} < {one.id for one in collect.inputs}
    assert graph["tables:tiny"].params["certificates"] == ["ibp", "smoothing_025"]


def test_a_changed_certificate_is_named(make_graph: MakeGraph) -> None:
    finish_all(make_graph(certified))

    def changed(params: dict[str, Any]) -> None:
        certified(params)
        params["certificates"]["smoothing_025"]["sigma"] = 0.5

    found = states(make_graph(changed))
    assert found[RADIUS].reasons == ("certificates.smoothing_025.sigma: 0.25 -> 0.5",)
    assert found[BOUNDS].is_fresh


def test_a_certificate_needs_the_weights(make_graph: MakeGraph) -> None:
    graph = make_graph(certified)
    finish_all(graph)
    for path in (graph.root / "checkpoints").rglob("*.safetensors"):
        path.unlink()
    assert todo(graph, states(graph)) == set()
    graph[RADIUS].manifest.unlink()
    waiting = todo(graph, states(graph))
    assert {id for id in waiting if id.startswith("train")} == {TRADES}


def test_certificates_that_no_study_asks_for_are_orphans(make_graph: MakeGraph) -> None:
    finish_all(make_graph(certified))
    graph = make_graph()
    found = {str(path.relative_to(graph.root)) for path in orphans(graph)}
    assert found == {f"results/certify/{name}" for name in names(make_graph(certified))}


def test_finished_certificates_are_kept(make_graph: MakeGraph) -> None:
    graph = make_graph(certified)
    manifests = {node.id: finish(node) for node in graph}
    store = Store(graph.root / "store")
    store.put(graph.root, manifests[RADIUS])
    assert store.holds("certify", graph[RADIUS].key)
    assert store.take(graph[RADIUS].spec(), graph.root / "out") is not None
    assert [manifest["key"] for _, manifest in store.entries()] == [graph[RADIUS].key]


def test_the_time_of_a_certificate_grows_with_its_samples(make_graph: MakeGraph) -> None:
    graph = make_graph(certified)
    finish_all(graph)
    for node, seconds in ((graph[RADIUS], 30.0), (graph[BOUNDS], 2.0)):
        (graph.root / node.folder / "timing.json").write_text(json.dumps({"seconds": seconds}))

    def more(params: dict[str, Any]) -> None:
        certified(params)
        params["certificates"]["smoothing_025"] |= {"samples": 400, "sigma": 0.5}

    changed = make_graph(more)
    rates = Rates.measured(graph.root, Store.of(graph.root))
    assert estimate(changed[RADIUS], rates) == 120.0 + OVERHEAD
    assert estimate(changed[BOUNDS], rates) == 2.0 + OVERHEAD
    assert estimate(changed[TRADES], rates) is None
