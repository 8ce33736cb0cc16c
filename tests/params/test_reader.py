"""`params.yaml`: what is read, and what every mistake is told."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from advtrain.params.reader import ParamsError, read

ROOT = Path(__file__).resolve().parents[2]
GOOD: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text()) | {"run": ["digits"]}


def reading(tmp_path: Path, change: Callable[[dict[str, Any]], None]) -> Any:
    given = copy.deepcopy(GOOD)
    change(given)
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(given))
    return read(path)


def test_the_projects_own_parameters_are_good() -> None:
    params = read(ROOT / "params.yaml")
    assert set(params.run) <= set(params.studies)
    assert {"digits", "cifar10_cpu"} <= set(params.studies)


def test_the_config_stands_in_for_the_file() -> None:
    given = copy.deepcopy(GOOD)
    given["methods"]["trades"] = {"beta": 2}
    assert read(ROOT / "params.yaml", given).methods["trades"].parameters["beta"] == 2.0


def set_at(path: str, value: object) -> Callable[[dict[str, Any]], None]:
    def change(given: dict[str, Any]) -> None:
        *parents, last = path.split(".")
        for name in parents:
            given = given[name]
        given[last] = value

    return change


STUDY = "studies.digits"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("methods.trades", {"betta": 3}, "methods.trades.betta is not a parameter of trades; did"),
        ("methods.trades", {"beta": -1}, "methods.trades.beta: expected a number, 0 or more"),
        ("methods.tradez", {}, "there is no src/advtrain/methods/tradez.py; did you mean 'trades'"),
        ("methods.mine", {"module": "tradez"}, "methods.mine: there is no src/advtrain/methods"),
        ("methods.a/b", {"module": "trades"}, "a name holds letters"),
        ("recipes.digits", {"epoch": 3}, "recipes.digits.epoch is not a parameter of the recipe"),
        ("recipes.digits", {"epochs": 0}, "recipes.digits.epochs: expected a whole number, 1 or"),
        ("attacks.pgd_20", {"module": "pgd", "steps": "x"}, "attacks.pgd_20.steps: expected a who"),
        ("datasets.digits", {"validation": 2}, r"datasets.digits.validation: expected a number in"),
        ("datasets.digits", 3, "datasets.digits: expected a mapping of names, got 3"),
        ("studios", {}, "studios is not a key; did you mean 'studies'?"),
        ("run", ["digit"], "run: there is no study 'digit'; did you mean 'digits'?"),
        ("run", [], "run: expected a list of names"),
        ("run", ["digits", "digits"], "run: 'digits' is given twice"),
        ("raw_data", 3, "raw_data: expected a folder, got 3"),
        ("device", "gpu", "device: expected auto, cpu or cuda, got 'gpu'"),
        ("cells_per_gpu", 0, "cells_per_gpu: expected a whole number, 1 or more, got 0"),
        ("store_gib", -1, "store_gib: expected a number, 0 or more"),
        (f"{STUDY}.epsilons", [8], r"epsilons\[0\]: linf epsilon is in \[0, 1\] pixel units, got 8"
         "; did you mean 8/255"),
        (f"{STUDY}.epsilons", ["eight"], "expected a budget such as 8/255 or 0.2, got 'eight'"),
        (f"{STUDY}.epsilons", [0.2, "1/5"], "0.2 and 1/5 are the same budget, which would make"),
        (f"{STUDY}.epsilons", [], "expected a list of budgets"),
        (f"{STUDY}.epsilons", 0.2, "expected a list of budgets"),
        (f"{STUDY}.norm", "linfinity", "norm: expected one of linf, l2, l1, got 'linfinity'"),
        (f"{STUDY}.methods", ["natural", "natural"], "would make duplicate cells"),
        (f"{STUDY}.methods", ["naturl"], "there is no method 'naturl'; did you mean 'natural'?"),
        (f"{STUDY}.seeds", [0, 0], "seeds: 0 is given twice, which would make duplicate cells"),
        (f"{STUDY}.seeds", ["a"], "seeds: expected a list of whole numbers"),
        (f"{STUDY}.seeds", [True], "seeds: expected a list of whole numbers"),
        (f"{STUDY}.dataset", "digitz", "there is no data set 'digitz'; did you mean 'digits'?"),
        (f"{STUDY}.model", "cnn", "there is no model 'cnn'"),
        (f"{STUDY}.recipe", "digit", "there is no recipe 'digit'; did you mean 'digits'?"),
        (f"{STUDY}.recipe", {"free": "digits"}, "recipe.natural: there is no recipe None"),
        (f"{STUDY}.recipe", {"default": "digits", "fre": "x"}, "recipe.fre is not a key"),
        (f"{STUDY}.attacks", ["pgd_21"], "there is no attack 'pgd_21'; did you mean 'pgd_20'?"),
        (f"{STUDY}.weights", [], "expected a list of last, best"),
        (f"{STUDY}.weights", [["last"]], "expected a list of last, best"),
        (f"{STUDY}.methods", [["natural"]], "there is no method"),
        (f"{STUDY}.epsilons", ["1_0/255"], "expected a budget such as 8/255"),
        (f"{STUDY}.epsilons", ["1e400"], "expected a budget such as 8/255"),
        ("methods.trades", {"beta": float("inf")}, "methods.trades.beta: expected a number"),
        ("methods.trades", {"step_size": "epsilon/0"}, "divides by zero"),
        ("store_gib", float("inf"), "store_gib: expected a number"),
        ("methods", {}, "there is no method 'natural'; none is defined"),
        (f"{STUDY}.weights", ["first"], "expected a list of last, best"),
        (f"{STUDY}.epsilon", [0.2], "epsilon is not a key; did you mean 'epsilons'?"),
        (f"{STUDY}.curve", {"attack": "pgd", "epsilons": [0.2]}, "curve.attack: there is no"),
        (f"{STUDY}.curve", {"attack": "fgsm", "epsilons": [3]}, "did you mean 3/255"),
        (f"{STUDY}.title", 3, "title: expected a text, got 3"),
        (f"{STUDY}.attack_examples", 0, "attack_examples: expected a whole number, 1 or more"),
        (f"{STUDY}.certify_examples", 0, "certify_examples: expected a whole number, 1 or more"),
    ],
)  # fmt: skip
def test_a_mistake_names_its_place_and_the_mend(
    tmp_path: Path, path: str, value: object, message: str
) -> None:
    with pytest.raises(ParamsError, match=message) as caught:
        reading(tmp_path, set_at(path, value))
    assert str(caught.value).startswith("params.yaml: ")


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    def change(given: dict[str, Any]) -> None:
        given["methods"]["trades"] = {"betta": 1}
        given["studies"]["digits"]["epsilons"] = [8]

    with pytest.raises(ParamsError) as caught:
        reading(tmp_path, change)
    assert len(str(caught.value).splitlines()) == 2


def test_a_recipe_for_each_method(tmp_path: Path) -> None:
    def change(given: dict[str, Any]) -> None:
        given["recipes"]["short"] = {"epochs": 1}
        given["studies"]["digits"]["recipe"] = {"default": "digits", "free": "short"}

    recipes = reading(tmp_path, change).studies["digits"].recipes
    assert recipes["free"] == "short"
    assert recipes["trades"] == "digits"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("run: [a]\nrun: [b]\n", "line 2: 'run' is given twice"),
        ("methods:\n  free: {}\n  free: {}\n", "line 3: 'free' is given twice"),
        ("run: [a\n", "params.yaml is not valid YAML"),
        ("run:\n\t- a\n", "params.yaml is not valid YAML"),
        ("? [a]\n: 1\n", "line 1: a list or a mapping cannot be a key"),
        ("- 1\n", "params.yaml holds no mapping"),
    ],
)
def test_a_file_that_is_no_good(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(ParamsError, match=message):
        read(tmp_path / "params.yaml")


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="is not there; run from the repository's top folder"):
        read(tmp_path / "params.yaml")


def test_anchors_and_merges_are_yaml_too(tmp_path: Path) -> None:
    studies = {"digits": GOOD["studies"]["digits"]}
    text = yaml.safe_dump({**GOOD, "recipes": None, "studies": studies}).replace(
        "recipes: null",
        "recipes:\n  digits: &base {epochs: 3}\n  digits_free: {<<: *base, momentum: 0.5}",
    )
    (tmp_path / "params.yaml").write_text(text)
    recipe = read(tmp_path / "params.yaml").recipes["digits_free"].parameters
    assert (recipe["epochs"], recipe["momentum"]) == (3, 0.5)


def test_an_l2_budget_in_255ths_is_recognised(tmp_path: Path) -> None:
    def change(given: dict[str, Any]) -> None:
        given["studies"]["digits"] |= {"norm": "l2", "epsilons": [128], "curve": None}

    with pytest.raises(ParamsError, match=r"l2 epsilon .* got 128; did you mean 128/255\?"):
        reading(tmp_path, change)
