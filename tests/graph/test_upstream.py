"""Cells that use the weights of other cells: what they read, and what moves their keys."""

from typing import Any

import pytest
import yaml

from advtrain.graph.nodes import Graph, Node
from advtrain.graph.states import states, todo
from tests.graph.conftest import MakeGraph, finish, finish_all

NATURAL = "train:tiny/natural-s0"
FAST = "train:tiny/fgsm_rs-linf-0.1-s0"
TRADES = "train:tiny/trades-linf-0.1-s0"
PUBLISHED = "torchvision:resnet50/IMAGENET1K_V2"


def upstream(**roles: object) -> Any:
    """Give trades a teacher or a start; all cells mix in extra data."""

    def change(params: dict[str, Any]) -> None:
        params["recipes"]["short"]["extra_fraction"] = 0.5
        params["methods"]["trades"] |= roles

    return change


def inputs(node: Node) -> list[str]:
    return [one.id for one in node.inputs]


def test_a_cell_reads_the_cell_of_its_seed_and_budget(make_graph: MakeGraph) -> None:
    def change(params: dict[str, Any]) -> None:
        upstream(teacher="natural", start="fgsm_rs")(params)
        params["studies"]["tiny"]["seeds"] = [0, 1]

    graph = make_graph(change)
    node = graph["train:tiny/trades-linf-0.2-s1"]
    assert inputs(node) == [
        "prepare:digits",
        "train:tiny/natural-s1",
        "train:tiny/fgsm_rs-linf-0.2-s1",
    ]
    assert (node.params["teacher"], node.params["start"]) == ("last", "last")
    assert node.spec()["roles"] == {
        "teacher": "train:tiny/natural-s1",
        "start": "train:tiny/fgsm_rs-linf-0.2-s1",
    }
    assert graph[NATURAL].params["teacher"] is None
    assert graph[NATURAL].spec()["roles"] == {}


def test_nodes_come_after_what_they_read(make_graph: MakeGraph) -> None:
    def change(params: dict[str, Any]) -> None:
        upstream(teacher="natural", start="fgsm_rs")(params)
        params["studies"]["tiny"]["methods"] = ["trades", "fgsm_rs", "natural"]

    graph = make_graph(change)
    order = list(graph.nodes)
    for node in graph:
        assert all(order.index(one.id) < order.index(node.id) for one in node.inputs)
    cells = list(graph["collect:tiny"].params["cells"])
    assert cells == [f"{m}-linf-{e}-s0" for m in ("trades", "fgsm_rs") for e in (0.1, 0.2)] + [
        "natural-s0"
    ]


def test_one_cell_may_be_both(make_graph: MakeGraph) -> None:
    node = make_graph(upstream(teacher="natural", start="natural"))[TRADES]
    assert inputs(node) == ["prepare:digits", NATURAL]
    assert node.spec()["roles"] == {"teacher": NATURAL, "start": NATURAL}


def test_published_weights_are_no_node(make_graph: MakeGraph) -> None:
    node = make_graph(upstream(start=PUBLISHED))[TRADES]
    assert inputs(node) == ["prepare:digits"]
    assert node.params["start"] == PUBLISHED
    assert node.spec()["roles"] == {}


def test_who_is_what_moves_the_key(make_graph: MakeGraph) -> None:
    """Each choice of teacher and start is a training of its own."""
    choices: list[dict[str, str]] = [
        {},
        {"teacher": "natural"},
        {"start": "natural"},
        {"start": PUBLISHED},
        {"teacher": "natural", "start": "natural"},
        {"teacher": "natural", "start": "fgsm_rs"},
        {"teacher": "fgsm_rs", "start": "natural"},
        {"teacher": "natural", "start": PUBLISHED},
    ]
    keys = {make_graph(upstream(**choice))[TRADES].key for choice in choices}
    assert len(keys) == len(choices)


@pytest.mark.parametrize("role", ["teacher", "start"])
def test_what_moves_the_upstream_cell_moves_what_reads_it(make_graph: MakeGraph, role: str) -> None:
    def keys(step: str) -> dict[str, str]:
        def change(params: dict[str, Any]) -> None:
            upstream(**{role: "fgsm_rs"})(params)
            params["methods"]["fgsm_rs"]["step_size"] = step

        return {node.id: node.key for node in make_graph(change)}

    before, after = keys("epsilon"), keys("epsilon/2")
    moved = {
        id
        for id in before
        if before[id] != after[id] and id.startswith(("train", "attack", "probe"))
    }
    expected = {id for id in before if "/trades" in id or "/fgsm_rs" in id}
    assert moved == expected


def test_studies_share_a_cell_that_reads_others(make_graph: MakeGraph) -> None:
    def two(params: dict[str, Any]) -> None:
        upstream(teacher="natural", start="fgsm_rs")(params)
        params["studies"]["other"] = yaml.safe_load(yaml.safe_dump(params["studies"]["tiny"]))
        params["run"] = ["tiny", "other"]

    graph = make_graph(two)
    other = graph[TRADES.replace("tiny/", "other/")]
    assert other.key == graph[TRADES].key
    assert all(":tiny/" not in id for id in inputs(other))  # each study reads its own copy


def test_a_reason_names_the_role(make_graph: MakeGraph) -> None:
    finish_all(make_graph(upstream(teacher="natural", start="fgsm_rs")))
    found = states(make_graph(upstream(teacher="fgsm_rs", start="natural")))
    assert found[TRADES].reasons == (f"teacher: {NATURAL} -> {FAST}", f"start: {FAST} -> {NATURAL}")
    found = states(make_graph(upstream(start="fgsm_rs")))
    assert found[TRADES].reasons == ("teacher: last -> None", f"input: {NATURAL} is no longer read")


def without_weights(graph: Graph) -> Graph:
    finish_all(graph)
    for path in (graph.root / "checkpoints").rglob("*.safetensors"):
        path.unlink()
    return graph


def test_weights_that_were_not_pulled_are_missed_by_the_trainings_that_read_them(
    make_graph: MakeGraph,
) -> None:
    graph = without_weights(make_graph(upstream(start="fgsm_rs")))
    assert states(graph)[TRADES].word == "partial"
    assert todo(graph, states(graph)) == set()  # all rows are here
    graph[TRADES].manifest.unlink()
    waiting = todo(graph, states(graph))
    assert {id for id in waiting if id.startswith("train")} == {TRADES, FAST}


def test_a_chain_of_weights_that_were_not_pulled(make_graph: MakeGraph) -> None:
    def chain(params: dict[str, Any]) -> None:
        upstream(start="fgsm_rs")(params)
        params["methods"]["fgsm_rs"]["start"] = "natural"

    graph = without_weights(make_graph(chain))
    attack = "attack:tiny/trades-linf-0.1-s0/pgd_2-linf-0.1"
    graph[attack].manifest.unlink()
    waiting = todo(graph, states(graph))
    assert {id for id in waiting if id.startswith("train")} == {TRADES, FAST, NATURAL}


def test_other_weights_upstream_make_what_reads_them_stale(make_graph: MakeGraph) -> None:
    graph = make_graph(upstream(start="fgsm_rs"))
    finish_all(graph)
    finish(graph[FAST], "trained again on another machine")
    found = states(graph)
    assert found[FAST].is_fresh
    assert found[TRADES].reasons == (f"{FAST} has other bytes than those it was made from",)


def test_what_the_tables_are_told(make_graph: MakeGraph) -> None:
    def change(params: dict[str, Any]) -> None:
        upstream(teacher="natural", start=PUBLISHED)(params)
        params["recipes"]["perturbed"] = {**params["recipes"]["short"], "update": "awp"}
        params["studies"]["tiny"]["recipe"] = {"default": "short", "trades": "perturbed"}

    told = make_graph(change)["tables:tiny"].params
    assert told["method_upstream"] == {
        "natural": {"teacher": None, "start": None},
        "fgsm_rs": {"teacher": None, "start": None},
        "trades": {"teacher": "natural", "start": PUBLISHED},
    }
    assert told["method_updates"] == {"natural": "plain", "fgsm_rs": "plain", "trades": "awp"}
