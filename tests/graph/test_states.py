"""States: fresh, stale with the reason in words, missing, orphan."""

import json
from typing import Any

from advtrain.graph.states import orphans, states, todo
from advtrain.graph.sync import EPOCH, sync
from tests.graph.conftest import MakeGraph, finish, finish_all

TRADES = "train:tiny/trades-linf-0.1-s0"
ATTACK = "attack:tiny/trades-linf-0.1-s0/pgd_2-linf-0.1"


def test_nothing_then_everything(make_graph: MakeGraph) -> None:
    graph = make_graph()
    assert {state.word for state in states(graph).values()} == {"missing"}
    finish_all(graph)
    assert {state.word for state in states(graph).values()} == {"fresh"}


def test_a_failed_job_is_the_reason_why_its_result_is_missing(make_graph: MakeGraph) -> None:
    graph = make_graph()
    node = graph[TRADES]
    path = graph.root / node.progress
    path.parent.mkdir(parents=True)
    failed = {"state": "failed", "key": node.key, "cause": "no space left"}
    path.write_text(json.dumps(failed))
    told = f"its job failed: no space left (logs/train/{node.name}.log)"
    assert states(graph)[TRADES].reasons == (told,)
    for other in (failed | {"key": "another"}, failed | {"state": "running"}):
        path.write_text(json.dumps(other))
        assert states(graph)[TRADES].reasons == ("it has not been computed here",)
    path.write_text("half of")
    assert states(graph)[TRADES].reasons == ("it has not been computed here",)


def test_a_changed_parameter_is_named_with_both_values(make_graph: MakeGraph) -> None:
    finish_all(make_graph())
    found = states(make_graph(lambda p: p["methods"]["trades"].update(beta=1.5)))
    assert found[TRADES].word == "stale"
    assert found[TRADES].reasons == ("methods.trades.beta: 6.0 -> 1.5",)
    assert found[ATTACK].reasons == (f"input: {TRADES} changed",)
    assert found["train:tiny/natural-s0"].is_fresh


def test_a_changed_split_is_named_too(make_graph: MakeGraph) -> None:
    finish_all(make_graph())
    found = states(make_graph(lambda p: p["datasets"]["digits"].update(split_seed=3)))
    assert found["prepare:digits"].reasons == ("datasets.digits.split_seed: 0 -> 3",)


def test_changed_code_is_named(make_graph: MakeGraph) -> None:
    graph = make_graph()
    finish_all(graph)
    manifest = json.loads(graph[TRADES].manifest.read_text())
    manifest["key"] = "0" * 16
    manifest["code"]["src/advtrain/methods/trades.py"] = "0" * 16
    manifest["code"]["src/advtrain/gone.py"] = "0" * 16
    del manifest["code"]["src/advtrain/noise.py"]
    graph[TRADES].manifest.write_text(json.dumps(manifest))
    assert states(graph)[TRADES].reasons == (
        "code: src/advtrain/gone.py is no longer used",
        "code: src/advtrain/methods/trades.py changed",
        "code: src/advtrain/noise.py is used now",
    )


def test_an_output_that_is_gone_or_cut_short(make_graph: MakeGraph) -> None:
    graph = make_graph()
    finish_all(graph)
    weights = graph.root / "checkpoints/tiny/trades-linf-0.1-s0/last.safetensors"
    weights.write_text("cut")
    assert states(graph)[TRADES].word == "partial"
    history = graph.root / "results/train/tiny/natural-s0/history.parquet"
    history.unlink()
    assert states(graph)["train:tiny/natural-s0"].word == "missing"
    weights.unlink()
    found = states(graph)
    assert "checkpoints/tiny/trades-linf-0.1-s0/last.safetensors" in found[TRADES].reasons[0]
    assert "dvc pull" in found[TRADES].reasons[0]
    assert found[ATTACK].is_fresh  # its rows are here, and say what they were made from


def test_rows_of_other_weights_are_stale(make_graph: MakeGraph) -> None:
    graph = make_graph()
    finish_all(graph)
    finish(graph[TRADES], "trained again on another machine")
    found = states(graph)
    assert found[TRADES].is_fresh
    assert found[ATTACK].word == "stale"
    assert "other bytes" in found[ATTACK].reasons[0]
    # All that is made from those rows is stale too, down to the page.
    for id in ("collect:tiny", "tables:tiny", "figures:tiny", "report:all"):
        assert found[id].word == "stale"
    assert {ATTACK, "collect:tiny", "report:all"} <= todo(graph, found)


def test_a_damaged_manifest_is_a_missing_one(make_graph: MakeGraph) -> None:
    graph = make_graph()
    finish_all(graph)
    graph[TRADES].manifest.write_text("{")
    assert states(graph)[TRADES].word == "missing"


def test_orphans_are_what_no_study_owns(make_graph: MakeGraph) -> None:
    finish_all(make_graph())

    def less(params: dict[str, Any]) -> None:
        params["studies"]["tiny"]["methods"].remove("trades")

    graph = make_graph(less)
    found = {str(path.relative_to(graph.root)) for path in orphans(graph)}
    assert found == {
        f"{folder}/tiny/trades-linf-{epsilon}-s0"
        for folder in ("checkpoints", "results/train")
        for epsilon in ("0.1", "0.2")
    } | {
        f"results/attack/tiny/trades-linf-{epsilon}-s0/{attack}-linf-{epsilon}"
        for epsilon in ("0.1", "0.2")
        for attack in ("fgsm", "pgd_2")
    } | {f"results/probe/tiny/trades-linf-{epsilon}-s0/gradients" for epsilon in ("0.1", "0.2")}
    assert orphans(make_graph()) == []


def test_markers_say_what_the_keys_say(make_graph: MakeGraph) -> None:
    graph = make_graph()
    finish_all(graph)
    sync(graph)
    markers = [graph.root / node.marker for node in graph]
    assert all(marker.exists() for marker in markers)
    assert all(EPOCH <= marker.stat().st_mtime <= EPOCH + 10 for marker in markers)
    changed = make_graph(lambda p: p["methods"]["trades"].update(beta=1.5))
    sync(changed)
    gone = {node.id for node in changed if not (graph.root / node.marker).exists()}
    assert TRADES in gone
    assert ATTACK in gone
    assert "train:tiny/natural-s0" not in gone
    spec = json.loads((graph.root / changed[TRADES].spec_path).read_text())
    assert spec == json.loads(json.dumps(changed[TRADES].spec()))
    assert spec["params"]["method"]["parameters"]["beta"] == 1.5
    assert (graph.root / graph[TRADES].spec_path).exists()  # the old snapshot stays what it was


def test_a_job_that_is_to_run_gets_the_device_and_the_batch_size_of_now(
    make_graph: MakeGraph,
) -> None:
    sync(make_graph())

    def change(params: dict[str, Any]) -> None:
        params |= {"device": "auto", "cells_per_gpu": 4}
        params["studies"]["tiny"]["attack_batch_size"] = 8

    graph = make_graph(change)
    sync(graph)
    spec = json.loads((graph.root / graph[ATTACK].spec_path).read_text())
    assert spec["unkeyed"] == {"device": "auto", "cells_per_gpu": 4, "batch_size": 8}


def test_weights_that_were_not_pulled_are_missed_by_attacks_alone(make_graph: MakeGraph) -> None:
    graph = make_graph()
    finish_all(graph)
    for path in (graph.root / "checkpoints").rglob("*.safetensors"):
        path.unlink()
    found = states(graph)
    assert found[TRADES].word == "partial"
    assert todo(graph, found) == set()
    changed = make_graph(lambda p: p["attacks"]["pgd_2"].update(steps=3))
    waiting = todo(changed, states(changed))
    assert TRADES in waiting
    graph[ATTACK].manifest.unlink()
    waiting = todo(graph, states(graph))
    assert {id for id in waiting if id.startswith("train")} == {TRADES}
