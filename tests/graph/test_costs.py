"""What a node is likely to take, from times that are written by hand."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from advtrain.graph.arithmetic import ASSUMED
from advtrain.graph.costs import OTHERS, OVERHEAD, CostModel, Prediction, Rates, predict
from advtrain.graph.forecast import basis_line, forecasts, hours_line
from advtrain.graph.nodes import Graph
from advtrain.graph.store import Store
from advtrain.training.cost_model import training_passes
from tests.graph.conftest import MakeGraph, finish_all

NATURAL = "train:tiny/natural-s0"
FAST = "train:tiny/fgsm_rs-linf-0.1-s0"
TRADES = "train:tiny/trades-linf-0.1-s0"
PGD = "attack:tiny/trades-linf-0.1-s0/pgd_2-linf-0.1"
FGSM = "attack:tiny/trades-linf-0.1-s0/fgsm-linf-0.1"


def passes(params: Mapping[str, Any]) -> float | None:
    """A cost model: natural training 3 passes an epoch, FGSM-RS 5, TRADES 6 + 3 and 2 a step."""
    own = params["method"]
    known = {"natural": 3, "fgsm_rs": 5, "trades": 7 + 2 * own["parameters"].get("steps", 0)}
    an_epoch = known.get(own["module"])
    epochs: int = params["recipe"]["parameters"]["epochs"]
    return None if an_epoch is None else an_epoch * epochs


def timed(graph: Graph, id: str, seconds: float, **facts: Any) -> None:
    path = graph.root / graph[id].folder / "timing.json"
    path.write_text(json.dumps({"seconds": seconds, "device": "cpu", "finished": 1.0} | facts))


def likely(
    graph: Graph, id: str, changed: Graph | None = None, model: CostModel | None = passes
) -> Prediction | None:
    """Predict a node of the graph as it is now, from the times that are on disk."""
    rates = Rates.measured(graph.root, Store.of(graph.root), model)
    return predict((changed or graph)[id], rates)


def seconds_of(found: Prediction | None) -> float:
    assert found is not None
    return found.seconds - OVERHEAD


@pytest.fixture(autouse=True)
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ADVTRAIN_PROCESSES", raising=False)


@pytest.fixture
def graph(make_graph: MakeGraph) -> Graph:
    """All cells done, none of them timed."""
    graph = make_graph()
    finish_all(graph)
    return graph


def test_the_same_work_takes_as_long_at_another_seed_budget_and_weight(
    graph: Graph, make_graph: MakeGraph
) -> None:
    timed(graph, TRADES, 60.0)
    timed(graph, NATURAL, 30.0)

    def change(params: dict[str, Any]) -> None:
        params["studies"]["tiny"]["seeds"] = [7]
        params["methods"]["trades"]["beta"] = 1.0
        params["recipes"]["short"] |= {"epochs": 12, "learning_rate": 0.5}

    changed = make_graph(change)
    for epsilon in ("0.1", "0.2"):
        found = likely(graph, f"train:tiny/trades-linf-{epsilon}-s7", changed)
        assert seconds_of(found) == 120.0
        assert found is not None
        assert found.scaled_from == ()


def test_a_method_never_measured_is_scaled_by_its_passes(graph: Graph) -> None:
    timed(graph, NATURAL, 30.0)
    found = likely(graph, TRADES)
    assert seconds_of(found) == pytest.approx(30.0 * 11 / 3)
    assert found is not None
    assert found.scaled_from == ("natural",)
    # Without a cost model there are the epochs alone.
    assert seconds_of(likely(graph, TRADES, model=None)) == 30.0


def test_the_nearest_work_is_scaled(graph: Graph, make_graph: MakeGraph) -> None:
    timed(graph, NATURAL, 3.0)
    timed(graph, TRADES, 66.0)
    changed = make_graph(lambda p: p["methods"]["trades"].update(steps=10))
    found = likely(graph, TRADES, changed)
    assert seconds_of(found) == pytest.approx(66.0 * 27 / 11)
    assert found is not None
    assert found.scaled_from == ("trades",)


def test_what_is_no_pass_is_scaled_by_the_epochs(graph: Graph, make_graph: MakeGraph) -> None:
    epoch = {"data": 1.0, "attack": 0.0, "update": 3.0, "validation": 4.0}
    epochs = [{"epoch": one, "seconds": 10.0, "measured": epoch} for one in range(1, 7)]
    timed(graph, NATURAL, 60.0, epochs=epochs)
    changed = make_graph(lambda p: p["recipes"]["short"].update(epochs=12))
    # An epoch: 3 s of passes become 11, and 7 s of minibatches, validation and the rest stay.
    assert seconds_of(likely(graph, TRADES, changed)) == pytest.approx(12 * (11 + 7))


def test_what_comes_once_is_not_scaled(graph: Graph, make_graph: MakeGraph) -> None:
    lasts = [25.0, 5.0, 5.0, 5.0, 5.0, 5.0]
    epochs = [{"epoch": one, "seconds": seconds} for one, seconds in enumerate(lasts, start=1)]
    timed(graph, NATURAL, sum(lasts), epochs=epochs)
    changed = make_graph(lambda p: p["recipes"]["short"].update(epochs=12))
    assert seconds_of(likely(graph, NATURAL, changed)) == 20.0 + 12 * 5.0
    assert seconds_of(likely(graph, TRADES, changed)) == pytest.approx(20.0 + 12 * 5.0 * 11 / 3)


def test_a_training_that_collapsed_early_is_no_faster(graph: Graph) -> None:
    timed(graph, NATURAL, 10.0, epochs=[{"epoch": 1, "seconds": 5.0}, {"epoch": 2, "seconds": 5.0}])
    assert seconds_of(likely(graph, NATURAL)) == 30.0
    assert seconds_of(likely(graph, FAST)) == pytest.approx(30.0 * 5 / 3)


def test_a_method_of_which_the_cost_is_not_known_predicts_nothing(
    graph: Graph, make_graph: MakeGraph
) -> None:
    timed(graph, NATURAL, 30.0)
    assert likely(graph, TRADES, model=lambda params: None) is None


def test_an_attack_is_scaled_by_its_passes_and_examples(
    graph: Graph, make_graph: MakeGraph
) -> None:
    description = graph.root / "data/prepared/digits/dataset.json"
    description.write_text(json.dumps({"counts": {"test": 60}}))
    timed(graph, FGSM, 6.0)

    def change(params: dict[str, Any]) -> None:
        params["studies"]["tiny"]["attack_examples"] = {"pgd_2": 20}

    # 5 passes of 20 examples, where FGSM took 3 of 60.
    found = likely(graph, PGD, make_graph(change))
    assert seconds_of(found) == pytest.approx(6.0 * 5 / 3 * 20 / 60)
    assert found is not None
    assert found.scaled_from == ("fgsm",)


def test_given_weights_are_no_training(graph: Graph) -> None:
    manifest = json.loads(graph[NATURAL].manifest.read_text())
    manifest["params"] |= {"recipe": None}
    manifest["params"]["method"] = {"name": "theirs", "module": "given", "parameters": {}}
    graph[NATURAL].manifest.write_text(json.dumps(manifest))
    timed(graph, NATURAL, 0.1)
    assert likely(graph, TRADES) is None


@pytest.mark.parametrize(("wanted", "expected"), [("cpu", 60.0), ("cuda", 2.0), ("auto", 2.0)])
def test_times_are_those_of_the_device_that_will_be_used(
    graph: Graph, make_graph: MakeGraph, wanted: str, expected: float
) -> None:
    timed(graph, TRADES, 60.0, finished=10.0)
    timed(graph, "train:tiny/trades-linf-0.2-s0", 2.0, device="NVIDIA H200", finished=20.0)
    changed = make_graph(lambda p: p.update(device=wanted))
    assert seconds_of(likely(graph, TRADES, changed)) == expected


def test_where_only_the_other_device_was_measured_nothing_is_predicted(
    graph: Graph, make_graph: MakeGraph
) -> None:
    timed(graph, TRADES, 60.0)
    assert likely(graph, TRADES, make_graph(lambda p: p.update(device="cuda"))) is None


def on_several(graph: Graph, make_graph: MakeGraph) -> Graph:
    """Time trainings on two devices, then an attack on one; return the graph that may use them."""
    timed(graph, TRADES, 60.0, device="2 x NVIDIA H200", finished=10.0)
    timed(graph, PGD, 6.0, device="NVIDIA H200", finished=20.0)
    timed(graph, FGSM, 3.0, device="cpu", finished=30.0)
    return make_graph(lambda p: p.update(device="cuda"))


def test_trainings_and_evaluations_have_each_their_newest_device(
    graph: Graph, make_graph: MakeGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADVTRAIN_PROCESSES", "2")
    changed = on_several(graph, make_graph)
    found = likely(graph, TRADES, changed)
    assert seconds_of(found) == 60.0
    assert found is not None
    assert (found.device, found.processes, found.timed_with) == ("NVIDIA H200", 2, ())
    found = likely(graph, PGD, changed)
    assert seconds_of(found) == 6.0
    assert found is not None
    assert (found.device, found.processes) == ("NVIDIA H200", 1)
    # With `auto`, trainings go where they went, whatever attacks did since.
    anywhere = make_graph(lambda p: p.update(device="auto"))
    assert seconds_of(likely(graph, TRADES, anywhere)) == 60.0
    assert seconds_of(likely(graph, FGSM, anywhere)) == 3.0


def test_times_of_as_many_processes_come_first(
    graph: Graph, make_graph: MakeGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = on_several(graph, make_graph)
    timed(graph, NATURAL, 30.0, device="NVIDIA H200", finished=5.0)
    for count, expected in (("", 30.0 * 11 / 3), ("2", 60.0)):
        monkeypatch.setenv("ADVTRAIN_PROCESSES", count)
        found = likely(graph, TRADES, changed)
        assert seconds_of(found) == pytest.approx(expected)
        assert found is not None
        assert found.timed_with == ()


def test_times_of_other_counts_are_taken_as_they_are_and_said(
    graph: Graph, make_graph: MakeGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = on_several(graph, make_graph)
    monkeypatch.setenv("ADVTRAIN_PROCESSES", "4")
    rates = Rates.measured(graph.root, Store.of(graph.root), passes)
    found = predict(changed[TRADES], rates)
    assert seconds_of(found) == 60.0
    assert found is not None
    assert (found.processes, found.timed_with) == (4, (2,))
    (forecast,) = forecasts([changed[TRADES]], rates)
    # Each of the four devices is held for as long.
    assert forecast.hours == {"NVIDIA H200": {"train": pytest.approx(4 * found.seconds / 3600)}}
    assert basis_line(forecast) == (
        "jobs: 1 measured before; 1 as long as with 2 processes, for want of times with as many as "
        "are set"
    )


def test_several_processes_on_the_cpu_are_on_the_cpu(
    graph: Graph, make_graph: MakeGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed(graph, TRADES, 3600.0 - OVERHEAD, device="2 x cpu")
    assert likely(graph, TRADES, make_graph(lambda p: p.update(device="cuda"))) is None
    monkeypatch.setenv("ADVTRAIN_PROCESSES", "2")
    rates = Rates.measured(graph.root, Store.of(graph.root), passes)
    (forecast,) = forecasts([make_graph(lambda p: p.update(device="cpu"))[TRADES]], rates)
    assert hours_line(forecast) == "about 2 CPU hours (train 2)"


def test_a_forecast_adds_up_a_study_and_says_what_it_rests_on(
    graph: Graph, make_graph: MakeGraph
) -> None:
    gpu = {"device": "NVIDIA H200", "peak_memory_bytes": 3 << 29}
    timed(graph, NATURAL, 3600.0 - OVERHEAD, **gpu)
    changed = make_graph(lambda p: p.update(device="auto"))
    rates = Rates.measured(graph.root, Store.of(graph.root), passes)
    (found,) = forecasts(changed, rates)
    # One natural training, two of FGSM-RS and of TRADES; no attack was timed.
    hours = 1 + ((2 * 5 + 2 * 11) / 3 * (3600 - OVERHEAD) + 4 * OVERHEAD) / 3600
    assert found.hours == {"NVIDIA H200": {"train": pytest.approx(hours)}}
    assert (
        hours_line(found) == "about 12 GPU hours on NVIDIA H200 (train 12), at most 1.5 GiB a job"
    )
    assert basis_line(found) == (
        "jobs: 1 measured before; 4 scaled by the passes (train from natural); "
        "not in it, as nothing like them was measured: 12 attack, 5 probe"
    )


def test_what_belongs_to_no_cell_takes_what_it_takes(graph: Graph) -> None:
    assert likely(graph, "tables:tiny") == Prediction(OTHERS, "cpu")


def with_extra_data(params: dict[str, Any]) -> None:
    params["datasets"]["digits"]["unlabelled"] = 0.25
    params["methods"]["trades"]["teacher"] = "natural"
    params["recipes"]["extra"] = params["recipes"]["short"] | {"extra_fraction": 0.25}
    params["studies"]["tiny"]["recipe"] = {"default": "short", "trades": "extra"}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda p: None, 6 * (2 * 2 + 1 + 2 + 4)),
        (lambda p: p["methods"]["trades"].update(steps=10), 6 * 27),
        (lambda p: p["recipes"]["short"].update(epochs=1), 11),
        (lambda p: p["recipes"]["short"].update(update="awp"), 6 * 17),
        (lambda p: p["recipes"]["short"].update(update="awp", awp_warmup=2), 2 * 11 + 4 * 17),
        (with_extra_data, 6 * 11 * 16 / 12),
    ],
)
def test_the_passes_of_a_training(make_graph: MakeGraph, change: Any, expected: float) -> None:
    assert training_passes(make_graph(change)[TRADES].params) == pytest.approx(expected)


def test_replays_are_epochs_and_views_are_rows(make_graph: MakeGraph) -> None:
    def changed(params: dict[str, Any]) -> None:
        params["methods"] |= {"free": {"replays": 4}, "consistency": {"steps": 2}}
        params["studies"]["tiny"]["methods"] += ["free", "consistency"]

    graph = make_graph(changed)
    free, two_views = (
        training_passes(graph[f"train:tiny/{name}-linf-0.1-s0"].params)
        for name in ("free", "consistency")
    )
    assert free == 2 * 4 * 3  # 6 epochs are 2 of 4 replays
    assert two_views == 6 * 2 * (2 * 2 + 3)
    assert training_passes({"method": {"module": "gone", "parameters": {}}}) is None


def test_what_was_never_measured_is_counted_for_one_h200(
    make_graph: MakeGraph,
) -> None:
    graph = make_graph(lambda p: p.update(device="auto"))
    finish_all(graph)
    rates = Rates.measured(graph.root, Store.of(graph.root), passes)
    asked: list[Mapping[str, Any]] = []

    def flops(model: Mapping[str, Any], channels: int, size: int, classes: int) -> float:
        asked.append(model)
        return 1e9

    cells = [graph[NATURAL], graph[FAST]]
    assert forecasts(cells, rates)[0].unknown == {"train": 2}
    (path,) = {one.root / one.folder for one in graph.stage("prepare")}
    facts = {"channels": 1, "size": 8, "classes": ["0", "1"], "counts": {"train": 80, "test": 20}}
    (path / "dataset.json").write_text(json.dumps(facts))
    (found,) = forecasts(cells, rates, flops)
    epochs = graph[NATURAL].params["recipe"]["parameters"]["epochs"]
    operations = (3 + 5) * epochs * 80 * 1e9
    assert found.assumed == {"train": pytest.approx(operations / ASSUMED["float32"] / 3600)}
    assert len(asked) == 1
    on_a_cpu = make_graph(lambda p: p.update(device="cpu"))
    assert not forecasts([on_a_cpu[NATURAL]], rates, flops)[0].assumed
    assert hours_line(found).startswith("by arithmetic, unmeasured: about ")
    assert "40 in float32" in basis_line(found)
