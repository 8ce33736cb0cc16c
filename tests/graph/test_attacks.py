"""How a study's attacks become nodes: budgets, examples, precision, sources, kept images."""

from typing import Any

import pytest

from advtrain.graph.nodes import Node
from advtrain.params.reader import ParamsError
from tests.graph.conftest import MakeGraph

TRADES = "attack:tiny/trades-linf-0.1-s0/"


def study(**given: Any) -> Any:
    def change(params: dict[str, Any]) -> None:
        params["attacks"] |= {
            "autoattack": {},
            "moved": {"module": "transfer", "source": "natural", "steps": 2},
            "rotations": {"module": "spatial", "tries": 2},
            "squares": {"module": "square", "queries": 10},
        }
        params["studies"]["tiny"] |= given

    return change


def names(nodes: list[Node], cell: str) -> list[str]:
    return [node.name.rsplit("/", 1)[1] for node in nodes if f"/{cell}/" in node.name]


def test_each_attack_has_its_own_number_of_examples(make_graph: MakeGraph) -> None:
    attacks = ["fgsm", "pgd_2", "autoattack"]
    graph = make_graph(study(attacks=attacks, attack_examples={"default": 50, "autoattack": 20}))
    examples = {name: graph[f"{TRADES}{name}-linf-0.1"].params["examples"] for name in attacks}
    assert examples == {"fgsm": 50, "pgd_2": 50, "autoattack": 20}
    graph = make_graph(study(attacks=attacks, attack_examples={"autoattack": 20}))
    assert graph[f"{TRADES}fgsm-linf-0.1"].params["examples"] is None


def test_a_transformation_has_no_budget(make_graph: MakeGraph) -> None:
    graph = make_graph(study(attacks=["fgsm", "rotations"], weights=["last", "best"]))
    assert names(graph.stage("attack"), "natural-s0") == [
        "fgsm-linf-0.1",
        "fgsm-linf-0.2",
        "rotations-spatial",
        "fgsm-linf-0.1-best",
        "fgsm-linf-0.2-best",
        "rotations-spatial-best",
    ]
    node = graph[f"{TRADES}rotations-spatial"]
    assert node.params["threat"] == {"norm": "spatial", "epsilon": None}


def test_a_transferred_attack_reads_the_cell_that_it_is_crafted_on(make_graph: MakeGraph) -> None:
    graph = make_graph(study(attacks=["fgsm", "moved"]))
    node = graph[f"{TRADES}moved-linf-0.1"]
    assert node.spec()["roles"] == {"source": "train:tiny/natural-s0"}
    assert [one.id for one in node.inputs] == [
        "train:tiny/trades-linf-0.1-s0",
        "prepare:digits",
        "train:tiny/natural-s0",
    ]
    own = graph["attack:tiny/natural-s0/moved-linf-0.1"]
    assert own.spec()["roles"] == {"source": "train:tiny/natural-s0"}
    assert len(own.inputs) == 2


def test_a_source_with_a_budget_is_the_cell_of_the_same_budget(make_graph: MakeGraph) -> None:
    def change(params: dict[str, Any]) -> None:
        study(attacks=["fgsm", "moved"])(params)
        params["attacks"]["moved"]["source"] = "fgsm_rs"

    graph = make_graph(change)
    for name, source in (
        ("trades-linf-0.2-s0/moved-linf-0.2", "fgsm_rs-linf-0.2-s0"),
        ("natural-s0/moved-linf-0.2", "fgsm_rs-linf-0.1-s0"),
    ):
        assert graph[f"attack:tiny/{name}"].spec()["roles"] == {"source": f"train:tiny/{source}"}


def test_what_moves_an_attacks_key(make_graph: MakeGraph) -> None:
    base = make_graph(study())[f"{TRADES}fgsm-linf-0.1"].key
    for given in (
        {"attack_examples": 20},
        {"attack_precision": "bfloat16"},
        {"keep_adversarial": {"fgsm": "float16"}},
    ):
        assert make_graph(study(**given))[f"{TRADES}fgsm-linf-0.1"].key != base
    assert make_graph(study(audits="strict"))[f"{TRADES}fgsm-linf-0.1"].key == base
    assert make_graph(study(attack_batch_size=7))[f"{TRADES}fgsm-linf-0.1"].key == base


def test_kept_images_are_an_output(make_graph: MakeGraph) -> None:
    graph = make_graph(study(keep_adversarial={"fgsm": "float32"}))
    kept = [node for node in graph.stage("attack") if len(node.outputs) == 3]
    assert {node.params["attack"]["name"] for node in kept} == {"fgsm"}
    assert kept[0].outputs[1].endswith("/adversarial.safetensors")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"norm": "l1", "epsilons": [2]}, "attacks: fgsm knows the norm linf and l2, the study's"),
        ({"norm": "l1", "epsilons": [2]}, "methods: trades knows the norm linf and l2, the study"),
        ({"attacks": ["moved"], "methods": ["trades"]}, "network of natural .* add natural to its"),
        ({"attack_precision": "float8"}, "expected one of float32, tf32, bfloat16, got 'float8'"),
        ({"attack_examples": {"fgsn": 3}}, "attack_examples.fgsn is not a key; did you mean"),
        ({"attack_examples": {"fgsm": 0}}, "attack_examples.fgsm: expected a whole number, 1 or"),
        ({"keep_adversarial": {"fgsm": "uint8"}}, "expected one of float32, float16, got 'uint8'"),
        (
            {"norm": "l2", "keep_adversarial": {"fgsm": "float16"}},
            "float16 rounds every pixel, which can leave an l2 ball; keep float32",
        ),
        (
            {"epsilons": [1 / 5000], "keep_adversarial": {"fgsm": "float16"}},
            "more than the smallest budget; keep float32",
        ),
        ({"epsilons": [0]}, "epsilons: a budget of 0 allows no attack"),
        (
            {"weights": {"default": ["last"], "fgsm": ["best"]}},
            "weights: fgsm is not run on the last weights",
        ),
        (
            {"curve": {"attack": "rotations", "epsilons": [0.1]}},
            "attacks: rotations knows the norm spatial, the study's is linf",
        ),
        ({"audits": "lax"}, "audits: expected one of report, strict, got 'lax'"),
    ],
)
def test_mistakes_are_named(make_graph: MakeGraph, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        make_graph(study(**given))


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"module": "transfer"}, "attacks.one.source: name the method whose network"),
        ({"module": "transfer", "source": "natral"}, "there is no method 'natral'; did you mean"),
        ({"module": "pgd", "source": "natural"}, "attacks.one.source is not a parameter of pgd"),
        (
            {"module": "corruption", "severity": 6},
            "attacks.one.severity: expected one of 1, 2, 3, 4, 5, got 6",
        ),
    ],
)
def test_mistakes_in_an_entry_are_named(
    make_graph: MakeGraph, entry: dict[str, Any], message: str
) -> None:
    def change(params: dict[str, Any]) -> None:
        params["attacks"]["one"] = entry

    with pytest.raises(ParamsError, match=message):
        make_graph(change)


def test_a_set_of_attacks_is_each_of_them(make_graph: MakeGraph) -> None:
    def change(params: dict[str, Any]) -> None:
        each = {"kind": ["fog", "contrast"], "severity": [1, 5]}
        params["attacks"]["cifar10_c"] = {"module": "corruption", "each": each}
        params["studies"]["tiny"] |= {"attacks": ["fgsm", "cifar10_c"], "methods": ["natural"]}

    graph = make_graph(change)
    assert names(graph.stage("attack"), "natural-s0")[2:] == [
        f"cifar10_c.{kind}.{severity}-corruption"
        for kind in ("fog", "contrast")
        for severity in (1, 5)
    ]
    node = graph["attack:tiny/natural-s0/cifar10_c.contrast.5-corruption"]
    assert node.params["attack"]["parameters"] == {"kind": "contrast", "severity": 5}


def test_a_set_stands_for_its_members_wherever_it_is_named(make_graph: MakeGraph) -> None:
    def change(params: dict[str, Any]) -> None:
        params["attacks"]["set"] = {"module": "corruption", "each": {"kind": ["fog", "snow"]}}
        params["studies"]["tiny"] |= {
            "attacks": ["fgsm", "set"],
            "attack_examples": {"set": 7},
            "weights": {"default": ["last", "best"], "set": ["last"]},
            "keep_adversarial": {"set": "float32"},
        }

    graph = make_graph(change)
    made = [node for node in graph.stage("attack") if "/set." in node.name]
    assert {node.params["examples"] for node in made} == {7}
    assert {node.params["adversarial"] for node in made} == {"float32"}
    assert not any(node.name.endswith("-best") for node in made)


def test_a_member_of_a_set_may_not_be_an_entry_too(make_graph: MakeGraph) -> None:
    def change(params: dict[str, Any]) -> None:
        params["attacks"]["set"] = {"module": "corruption", "each": {"kind": ["fog"]}}
        params["attacks"]["set.fog"] = {"module": "fgsm"}

    with pytest.raises(ParamsError, match="attacks.set.fog is an entry and a member of the set"):
        make_graph(change)


@pytest.mark.parametrize(
    ("each", "message"),
    [
        ({"kind": "fog"}, "attacks.set.each.kind: expected a list of values, got 'fog'"),
        ({"kind": ["fgo"]}, "attacks.set.fgo.kind: expected one of"),
        ({"sevrity": [1]}, "attacks.set.1.sevrity is not a parameter of corruption; did you mean"),
        (["fog"], "attacks.set.each: expected a mapping of names"),
    ],
)
def test_mistakes_in_a_set_are_named(make_graph: MakeGraph, each: object, message: str) -> None:
    def change(params: dict[str, Any]) -> None:
        params["attacks"]["set"] = {"module": "corruption", "each": each}

    with pytest.raises(ParamsError, match=message):
        make_graph(change)
