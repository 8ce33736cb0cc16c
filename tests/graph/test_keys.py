"""Content keys: what moves them, and nothing else."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from advtrain.graph.nodes import DuplicateCellError, Graph
from advtrain.params.signatures import signature
from advtrain.results.collect import TABLES
from tests.graph.conftest import MakeGraph
from tests.pipeline.workspace import PARAMS

Change = Callable[[dict[str, Any]], object]


def keys(graph: Graph) -> dict[str, str]:
    return {node.id: node.key for node in graph}


def moved(make_graph: MakeGraph, change: Change) -> set[str]:
    """Name the training and attack nodes whose key a change moves."""
    before, after = keys(make_graph()), keys(make_graph(change))
    return {
        id
        for id in before.keys() & after.keys()
        if before[id] != after[id] and id.startswith(("train", "attack"))
    }


def everything(make_graph: MakeGraph, stages: tuple[str, ...] = ("train", "attack")) -> set[str]:
    return {node.id for node in make_graph() if node.stage in stages}


def test_the_cells_of_the_smallest_study(make_graph: MakeGraph) -> None:
    graph = make_graph()
    assert [node.name for node in graph.stage("train")] == [
        "tiny/natural-s0",
        "tiny/fgsm_rs-linf-0.1-s0",
        "tiny/fgsm_rs-linf-0.2-s0",
        "tiny/trades-linf-0.1-s0",
        "tiny/trades-linf-0.2-s0",
    ]
    natural = [n.name for n in graph.stage("attack") if "natural" in n.name]
    assert natural == [
        f"tiny/natural-s0/{attack}-linf-{epsilon}"
        for epsilon in ("0.1", "0.2")
        for attack in ("fgsm", "pgd_2")
    ]
    assert len(graph.stage("attack")) == 4 + 4 * 2
    order = list(graph.nodes)
    for node in graph:
        assert all(order.index(one.id) < order.index(node.id) for one in node.inputs)


def set_value(section: str, name: str, key: str, value: object) -> Change:
    return lambda p: p[section][name].__setitem__(key, value)


def test_a_parameter_of_a_method_moves_its_cells_alone(make_graph: MakeGraph) -> None:
    found = moved(make_graph, set_value("methods", "trades", "beta", 5.0))
    assert found == {id for id in everything(make_graph) if "/trades" in id}


def test_a_parameter_of_an_attack_moves_no_training(make_graph: MakeGraph) -> None:
    found = moved(make_graph, set_value("attacks", "pgd_2", "steps", 3))
    assert found == {id for id in everything(make_graph, ("attack",)) if "/pgd_2" in id}


@pytest.mark.parametrize(
    "change",
    [
        set_value("recipes", "short", "learning_rate", 0.07),
        set_value("models", "small_cnn", "width", 3),
        set_value("datasets", "digits", "split_seed", 1),
    ],
)
def test_recipe_model_and_data_move_everything(make_graph: MakeGraph, change: Change) -> None:
    assert moved(make_graph, change) == everything(make_graph)


@pytest.mark.parametrize(
    "change",
    [
        lambda p: p.update(device="auto"),
        lambda p: p.update(cells_per_gpu=4),
        lambda p: p.update(raw_data="elsewhere"),
        lambda p: p.update(store_gib=1),
        lambda p: p["studies"]["tiny"].update(title="Another", attack_batch_size=7),
        lambda p: p["studies"]["tiny"].update(epsilons=["1/10", "2/10"]),
        lambda p: p["methods"].update(pgd_at={}),
        lambda p: p["methods"]["trades"].update(beta=6),
        lambda p: p["studies"]["tiny"].update(seeds=[0, 1]),
        lambda p: p["studies"]["tiny"]["epsilons"].append(0.3),
        lambda p: p["studies"]["tiny"]["attacks"].pop(),
    ],
)
def test_what_moves_no_number_moves_no_key(make_graph: MakeGraph, change: Change) -> None:
    assert moved(make_graph, change) == set()


def leaves() -> Iterator[tuple[str, str, str]]:
    yield from (("methods", "trades", p) for p in signature("methods", "trades"))
    yield from (("methods", "fgsm_rs", p) for p in signature("methods", "fgsm_rs"))
    yield from (("attacks", "pgd_2", p) for p in signature("attacks", "pgd"))
    yield from (("models", "small_cnn", p) for p in signature("models", "small_cnn"))
    yield from (("recipes", "short", p) for p in signature("training", "loop", "train"))
    yield from (("datasets", "digits", p) for p in signature("data", "prepare"))


def another(section: str, name: str, parameter: str) -> object:
    """Return a valid value of a parameter that differs from the one it has."""
    place = {
        "methods": ("methods", name),
        "attacks": ("attacks", "pgd"),
        "models": ("models", name),
        "recipes": ("training", "loop", "train"),
        "datasets": ("data", "prepare"),
    }[section]
    found = signature(*place)[parameter]
    now = PARAMS[section][name].get(parameter, found.default)
    if found.quantity == "bool":
        return not now
    if found.choices:
        return next(one for one in found.choices if one != now)
    if found.quantity in ("Count", "Whole"):
        return (now or 1) + 1
    if found.quantity == "StepSize":
        return "epsilon/7"
    if found.quantity == "Shares":
        return [0.25]
    return now / 2 if now else 0.5


@pytest.mark.parametrize(("section", "name", "parameter"), list(leaves()))
def test_no_parameter_is_left_out_of_the_keys(
    make_graph: MakeGraph, section: str, name: str, parameter: str
) -> None:
    value = another(section, name, parameter)
    found = moved(make_graph, set_value(section, name, parameter, value))
    word = {"methods": f"/{name}", "attacks": f"/{name}"}.get(section, "")
    stages = ("attack",) if section == "attacks" else ("train", "attack")
    expected = {id for id in everything(make_graph, stages) if word in id}
    if parameter == "step_size":  # natural training has no budget, its attacks have
        expected = {id for id in expected if "natural-s0" not in id or section == "attacks"}
    assert found == expected


def test_studies_share_the_keys_of_equal_cells(make_graph: MakeGraph) -> None:
    def two(params: dict[str, Any]) -> None:
        params["studies"]["other"] = yaml.safe_load(yaml.safe_dump(params["studies"]["tiny"]))
        params["run"] = ["tiny", "other"]

    graph = make_graph(two)
    ours = {n.name.split("/", 1)[1]: n.key for n in graph.stage("train") if "tiny/" in n.name}
    theirs = {n.name.split("/", 1)[1]: n.key for n in graph.stage("train") if "other/" in n.name}
    assert ours == theirs
    assert len(graph.stage("prepare")) == 1


def test_the_best_weights_are_attacked_beside_the_last(make_graph: MakeGraph) -> None:
    graph = make_graph(lambda p: p["studies"]["tiny"].update(weights=["last", "best"]))
    names = {n.name.rsplit("/", 1)[1] for n in graph.stage("attack")}
    assert {"fgsm-linf-0.1", "fgsm-linf-0.1-best"} <= names


@pytest.mark.parametrize(
    ("weights", "ending", "best"),
    [
        (["last"], "", []),
        (["last", "best"], "", ["fgsm-linf-0.1-best", "pgd_2-linf-0.1-best"]),
        (["best"], "-best", []),
    ],
)
def test_the_curve_makes_each_evaluation_once_of_the_last_weights(
    make_graph: MakeGraph, weights: list[str], ending: str, best: list[str]
) -> None:
    curve = {"attack": "pgd_2", "epsilons": [0.05, "1/10"]}
    graph = make_graph(lambda p: p["studies"]["tiny"].update(curve=curve, weights=weights))
    own = [n.name for n in graph.stage("attack") if "trades-linf-0.1" in n.name]
    assert [name.rsplit("/", 1)[1] for name in own] == [
        f"fgsm-linf-0.1{ending}",
        f"pgd_2-linf-0.1{ending}",
        f"pgd_2-linf-0.05{ending}",
        *best,
    ]


def test_seeds_of_each_budget(make_graph: MakeGraph) -> None:
    graph = make_graph(lambda p: p["studies"]["tiny"].update(seeds={"default": [0], "0.2": [0, 2]}))
    assert [node.name.removeprefix("tiny/") for node in graph.stage("train")] == [
        "natural-s0",
        "natural-s2",
        "fgsm_rs-linf-0.1-s0",
        "fgsm_rs-linf-0.2-s0",
        "fgsm_rs-linf-0.2-s2",
        "trades-linf-0.1-s0",
        "trades-linf-0.2-s0",
        "trades-linf-0.2-s2",
    ]


def test_prepared_data_have_a_split_without_labels(make_graph: MakeGraph) -> None:
    assert "data/prepared/digits/unlabelled.arrow" in make_graph()["prepare:digits"].outputs


def test_what_a_method_learns_of_each_example_is_a_result(make_graph: MakeGraph) -> None:
    def change(params: dict[str, Any]) -> None:
        params["methods"]["iaat"] = {}
        params["studies"]["tiny"]["methods"] = ["trades", "iaat"]

    graph = make_graph(change)
    name = "tiny/iaat-linf-0.1-s0"
    assert f"results/train/{name}/examples.parquet" in graph[f"train:{name}"].outputs
    others = graph["train:tiny/trades-linf-0.1-s0"].outputs
    assert not any(path.endswith("examples.parquet") for path in others)


def test_the_tables_of_rows_are_those_that_are_collected(make_graph: MakeGraph) -> None:
    node = make_graph()["collect:tiny"]
    assert node.outputs == tuple(f"{node.folder}/{name}.parquet" for name in TABLES)
    # Beside the attacked images that were kept stand the clean ones.
    assert "prepare:digits" in {one.id for one in node.inputs}


def test_two_entries_for_one_cell_are_refused(make_graph: MakeGraph) -> None:
    # `pgd_2` at 0.1 with the best weights, and an attack that is called just that.
    def change(params: dict[str, Any]) -> None:
        params["attacks"]["pgd_2-linf-0.1"] = {}

    with pytest.raises(ValueError, match="a name holds letters"):
        make_graph(change)
    graph = make_graph()
    with pytest.raises(DuplicateCellError, match=r"two entries make the cell tiny/natural-s0"):
        graph._node("train", "tiny/natural-s0", params={}, roots=(), folder="", outputs=())


def test_the_training_key_does_not_know_the_tables(make_graph: MakeGraph) -> None:
    for node in make_graph():
        if node.stage in ("train", "attack"):
            assert not any("reporting" in file or "tracking" in file for file in node.code)
            assert not any(file.startswith("src/advtrain/graph") for file in node.code)
            assert "src/advtrain/params/reader.py" not in node.code


def test_a_cell_is_made_of_its_own_plugins_alone(make_graph: MakeGraph) -> None:
    for node in make_graph().stage("train"):
        used = {f for f in node.code if f.startswith("src/advtrain/methods/")}
        module = node.params["method"]["module"]
        own = {f"src/advtrain/methods/{name}.py" for name in (module, "method", "__init__")}
        assert used == own
        assert not {f"src/advtrain/attacks/{a}.py" for a in ("pgd", "fgsm", "cw")} & set(node.code)


@pytest.mark.parametrize("file", ["claims.yaml", "registry/free.yaml", "registry/survey.yaml"])
def test_what_is_published_is_part_of_what_the_tables_and_the_page_are_made_of(
    make_graph: MakeGraph, file: str
) -> None:
    # They are data, which no import leads to.
    path = f"src/advtrain/published/{file}"
    assert {node.stage for node in make_graph() if path in node.code} == {"tables", "report"}


def test_what_a_study_stands_beside_changes_what_shows_it_and_no_cell(
    make_graph: MakeGraph,
) -> None:
    before = make_graph()
    published = {"trades": "trades/trades"}
    after = make_graph(lambda p: p["studies"]["tiny"].update(published=published))
    changed = {node.id for node in after if node.key != before[node.id].key}
    assert changed == {"tables:tiny", "figures:tiny", "report:all"}
    assert after["tables:tiny"].params["published"] == {"trades": ["trades/trades"]}
    assert after["tables:tiny"].params["data_set"]["module"] == "digits"
