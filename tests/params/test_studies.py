"""What a study is made of beyond lists of names: seeds by budget, certificates, upstream cells."""

import copy
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from advtrain.params.reader import ParamsError, read
from advtrain.params.schema import Params, Study

GOOD: dict[str, Any] = {
    "run": ["small"],
    "datasets": {"digits": {}},
    "models": {"small_cnn": {}},
    "recipes": {"mixed": {"extra_fraction": 0.5}, "short": {}},
    "methods": {"natural": {}, "fgsm_rs": {}, "pgd_at": {}, "trades": {}},
    "attacks": {"fgsm": {}},
    "certificates": {"ibp": {}, "smoothing_025": {"module": "smoothing", "sigma": 0.25}},
    "studies": {
        "small": {
            "dataset": "digits",
            "model": "small_cnn",
            "recipe": {"default": "short", "trades": "mixed"},
            "epsilons": [0.1, "1/5"],
            "methods": ["natural", "fgsm_rs", "pgd_at", "trades"],
            "attacks": ["fgsm"],
        }
    },
}
PUBLISHED = "torchvision:resnet50/IMAGENET1K_V2"

Change = Callable[[dict[str, Any]], object]


def reading(tmp_path: Path, *changes: Change) -> Params:
    given = copy.deepcopy(GOOD)
    for change in changes:
        change(given)
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(given))
    return read(path)


def the_study(tmp_path: Path, **values: object) -> Study:
    return reading(tmp_path, study(**values)).studies["small"]


def study(**values: object) -> Change:
    return lambda given: given["studies"]["small"].update(values)


def method(name: str, **values: object) -> Change:
    return lambda given: given["methods"].update({name: values})


def refused(tmp_path: Path, *changes: Change) -> str:
    with pytest.raises(ParamsError) as caught:
        reading(tmp_path, *changes)
    return str(caught.value)


def test_seeds_of_each_budget(tmp_path: Path) -> None:
    found = the_study(tmp_path, seeds={"default": [2], "0.2": [1, 0]})
    low, high = found.epsilons
    assert (low.text, found.seeds_at(low)) == ("0.1", (2,))
    assert (high.text, found.seeds_at(high)) == ("1/5", (1, 0))
    assert found.seeds_at(None) == (0, 1, 2)  # a cell without a budget is compared with all


def test_the_same_seeds_for_all(tmp_path: Path) -> None:
    found = the_study(tmp_path, seeds=[1, 0])
    assert [found.seeds_at(one) for one in found.epsilons] == [(1, 0), (1, 0)]
    assert found.seeds_at(None) == (0, 1)


@pytest.mark.parametrize(
    ("seeds", "message"),
    [
        (
            {"default": [0], "0.3": [1]},
            "seeds.0.3 is not a budget of the study; known: default, 0.1, 1/5",
        ),
        ({"default": [0], 0.1: [0]}, "seeds: write the key 0.1 in quotes, '0.1'"),
        ({"defalt": [0]}, "seeds.defalt is not a budget of the study; known: default"),
        ({"0.1": [0], "1/10": [1], "1/5": [0]}, "seeds.1/10 is a budget that is given twice"),
        ({"0.1": [0]}, "seeds: none for the budget 1/5; add it, or a `default`"),
        ({"default": [0, 0]}, "seeds.default: 0 is given twice"),
        ({"default": 3}, "seeds.default: expected a list of whole numbers, got 3"),
        ({}, "seeds: none for the budget 0.1"),
    ],
)
def test_seeds_that_are_no_good(tmp_path: Path, seeds: object, message: str) -> None:
    assert f"params.yaml: studies.small.{message}" in refused(tmp_path, study(seeds=seeds))


def test_certificates_ask_for_attacks_on_the_last_weights(tmp_path: Path) -> None:
    told = refused(tmp_path, study(certificates=["ibp"], weights=["best"]))
    assert "params.yaml: studies.small.weights: certificates are of the last weights" in told
    for weights in (["last"], ["best", "last"]):
        assert the_study(tmp_path, certificates=["ibp"], weights=weights).weights == tuple(weights)
    assert the_study(tmp_path, weights=["best"]).weights == ("best",)


def test_certificates_of_all_methods_or_of_some(tmp_path: Path) -> None:
    assert the_study(tmp_path).certificates == {}
    found = the_study(tmp_path, certificates=["ibp"], certify_examples=7)
    assert found.certificates == {"ibp": ("natural", "fgsm_rs", "pgd_at", "trades")}
    assert found.certify_examples == 7
    found = the_study(tmp_path, certificates={"smoothing_025": ["trades", "natural"]})
    assert found.certificates == {"smoothing_025": ("trades", "natural")}
    assert found.certify_examples is None
    entry = reading(tmp_path).certificates["smoothing_025"]
    assert (entry.module, entry.parameters["sigma"]) == ("smoothing", 0.25)


def test_the_published_trainings_that_methods_stand_beside(tmp_path: Path) -> None:
    assert the_study(tmp_path).published == {}
    named = {"pgd_at": "free/pgd_at", "trades": ["trades/trades", "robustbench/trades"]}
    assert the_study(tmp_path, published=named).published == {
        "pgd_at": ("free/pgd_at",),
        "trades": ("trades/trades", "robustbench/trades"),
    }


@pytest.mark.parametrize(
    ("published", "message"),
    [
        ({"pdg_at": "free/pgd_at"}, "published.pdg_at is not a key; did you mean 'pgd_at'?"),
        (
            {"pgd_at": "free/pgd"},
            "published.pgd_at: there is no published training 'free/pgd'; did you mean "
            "'free/pgd_at'?",
        ),
        (
            {"trades": ["trades/trades", "trade/trades"]},
            "published.trades: there is no published work 'trade/trades'; did you mean 'trades'?",
        ),
        ({"trades": []}, "published.trades: expected the name of a published training such as"),
        ({"trades": 8}, "published.trades: expected the name of a published training such as"),
        (["trades"], "published: expected a mapping of names"),
    ],
)
def test_published_trainings_that_are_not_known(
    tmp_path: Path, published: object, message: str
) -> None:
    assert f"params.yaml: studies.small.{message}" in refused(tmp_path, study(published=published))


def test_without_the_section_there_are_no_certificates(tmp_path: Path) -> None:
    assert reading(tmp_path, lambda given: given.pop("certificates")).certificates == {}


@pytest.mark.parametrize(
    ("certificates", "message"),
    [
        (["ipb"], "certificates: there is no certificate 'ipb'; did you mean 'ibp'?"),
        ({"ipb": ["trades"]}, "certificates: there is no certificate 'ipb'; did you mean 'ibp'?"),
        (
            {"ibp": ["pgd"]},
            "certificates.ibp: there is no method of this study 'pgd'; did you mean 'pgd_at'?",
        ),
        ({"ibp": []}, "certificates.ibp: expected a list of names"),
        (["ibp", "ibp"], "certificates: 'ibp' is given twice"),
    ],
)
def test_certificates_that_are_no_good(tmp_path: Path, certificates: Any, message: str) -> None:
    found = refused(tmp_path, study(certificates=certificates))
    assert f"params.yaml: studies.small.{message}" in found


def test_a_certificate_is_checked_as_every_plugin(tmp_path: Path) -> None:
    def change(given: dict[str, Any]) -> None:
        given["certificates"] = {"smoothig": {}, "smoothing": {"sigma": -1}}

    found = refused(tmp_path, change)
    assert "no src/advtrain/certificates/smoothig.py; did you mean 'smoothing'?" in found
    assert "certificates.smoothing.sigma: expected a number above 0, got -1" in found


def test_the_last_and_the_best_weights_are_attacked_unless_said_otherwise(tmp_path: Path) -> None:
    assert the_study(tmp_path).weights == ("last", "best")


def test_what_a_method_reads_of_others(tmp_path: Path) -> None:
    methods = reading(
        tmp_path,
        method("trades", teacher="natural", start="pgd_at", beta=3),
        method("fgsm_rs", start=PUBLISHED),
        method("pgd_at", start=None),
    ).methods
    assert methods["trades"].upstream == {"teacher": "natural", "start": "pgd_at"}
    assert methods["trades"].upstream_methods == methods["trades"].upstream
    assert methods["trades"].parameters["beta"] == 3.0
    assert methods["fgsm_rs"].upstream == {"start": PUBLISHED}
    assert methods["fgsm_rs"].upstream_methods == {}
    assert methods["pgd_at"].upstream == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            method("trades", teacher="naturl"),
            "methods.trades.teacher: there is no method 'naturl'; did you mean 'natural'?",
        ),
        (
            method("trades", teachr="natural"),
            "methods.trades.teachr is not a parameter of trades; did you mean 'teacher'?",
        ),
        (method("trades", start=["natural"]), "methods.trades.start: there is no method \"['nat"),
        (
            method("trades", teacher=PUBLISHED),
            f"methods.trades.teacher: expected the name of a method, got '{PUBLISHED}'",
        ),
        (
            method("trades", start="torchvision:resnet50"),
            "methods.trades.start: expected torchvision:<model>/<weights> such as "
            f"{PUBLISHED}, got 'torchvision:resnet50'",
        ),
        (
            method("natural", start="trades"),
            "methods.natural.start: trades is trained at a budget and natural has none, so there "
            "is no one trades to read; name a method without a budget",
        ),
        (
            method("trades", start="trades"),
            "methods.trades: trades -> trades is a circle of teacher and start, of which none can",
        ),
    ],
)
def test_an_upstream_that_is_no_good(tmp_path: Path, change: Change, message: str) -> None:
    assert f"params.yaml: {message}" in refused(tmp_path, change)


def test_a_circle_is_told_in_the_order_of_reading(tmp_path: Path) -> None:
    found = refused(
        tmp_path,
        method("trades", teacher="pgd_at"),
        method("pgd_at", start="fgsm_rs"),
        method("fgsm_rs", start="trades"),
    )
    chain = found.split(": ")[2].split(" is a circle")[0].split(" -> ")
    reads = {"trades": "pgd_at", "pgd_at": "fgsm_rs", "fgsm_rs": "trades"}
    assert len(chain) == 4
    assert all(reads[one] == other for one, other in itertools.pairwise(chain))


def test_a_study_trains_what_its_methods_read(tmp_path: Path) -> None:
    found = refused(
        tmp_path,
        method("trades", start="natural"),
        study(methods=["trades"], recipe="short"),
    )
    assert found == (
        "params.yaml: studies.small.methods: trades reads the weights of natural "
        "(methods.trades.start), which the study does not list; add natural"
    )


def test_a_teacher_whose_labels_nothing_learns(tmp_path: Path) -> None:
    found = refused(tmp_path, method("trades", teacher="natural"), study(recipe="short"))
    assert found.startswith(
        "params.yaml: studies.small.recipe: recipes.short.extra_fraction is 0, so that nothing "
        "learns from what trades's teacher labels; set it above 0"
    )


@pytest.mark.parametrize(
    ("method", "recipe", "message"),
    [
        ("gradalign", {"precision": "float16"}, "gradalign with short: precision float16 scales"),
        ("ibp", {"precision": "float16"}, "ibp with short: precision float16 scales"),
        ("gradalign", {"compile_mode": "default"}, "compiled passes have no second derivative"),
        ("free", {"micro_batch": 8}, "free with short: micro_batch: its step is not the mean"),
        ("cat", {"micro_batch": 8}, "cat with short: micro_batch"),
        ("iaat", {"halve_on_out_of_memory": True}, "iaat with short: halve_on_out_of_memory"),
        ("fgsm_mixed", {"micro_batch": 8}, "fgsm_mixed with short: micro_batch"),
    ],
)
def test_a_recipe_that_a_method_cannot_be_trained_with_is_named(
    tmp_path: Path, method: str, recipe: dict[str, Any], message: str
) -> None:
    def change(given: dict[str, Any]) -> None:
        given["methods"][method] = {}
        given["recipes"]["short"] = recipe
        given["studies"]["small"]["methods"].append(method)

    with pytest.raises(ParamsError, match=message):
        reading(tmp_path, change)


@pytest.mark.parametrize("recipe", [{"precision": "bfloat16"}, {"micro_batch": 0}])
def test_a_recipe_that_every_method_can_be_trained_with_passes(
    tmp_path: Path, recipe: dict[str, Any]
) -> None:
    def change(given: dict[str, Any]) -> None:
        given["methods"] |= {"gradalign": {}, "free": {}, "cat": {}}
        given["recipes"]["short"] = recipe
        given["studies"]["small"]["methods"] += ["gradalign", "free", "cat"]

    assert "cat" in reading(tmp_path, change).studies["small"].methods
