"""The studies of papers: they resolve, and their hyper-parameters are those of the registry."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from advtrain.graph.nodes import Graph, Node
from advtrain.params.reader import read
from advtrain.params.schema import Study
from advtrain.published.protocols import differences, evaluation_here, training_here
from advtrain.published.registry import read_registry

ROOT = Path(__file__).resolve().parents[2]
PARAMS = read(ROOT / "params.yaml")
REGISTRY = read_registry()

EXAMPLES = {"cifar10": 50_000, "cifar100": 50_000}
CLIPPED = "the paper's budget is .031, the study's 8/255"
ONE_NETWORK = "all methods of the study train one network"
UNIFORM = "the paper's start is normal, the lesson's uniform"
FULL_PRECISION = "the paper computes in 16 bits to be fast"
NOT_CIFAR100 = "stated for CIFAR-10"

PAPERS = sorted(
    name
    for name, study in PARAMS.studies.items()
    if "Paper scale" in study.description and study.published
)

# Study -> method -> the fields in which we depart from the training that its recipe follows.
DEPARTURES: dict[str, dict[str, dict[str, str]]] = {
    "survey": {
        "trades_paper": {"epsilon": CLIPPED},
        "mart_paper": {"model": ONE_NETWORK, "epsilon": CLIPPED},
        "fgsm_rs": {"model": ONE_NETWORK, "precision": FULL_PRECISION},
        "consistency": {"model": ONE_NETWORK},
        "gaussian": {"model": ONE_NETWORK},
    },
    "lesson": {
        "trades": {"start": UNIFORM},
        "fgsm_mixed": {
            "epsilon": "the tutorial's is for no data set in particular",
            "step_size": "likewise: it is the budget",
        },
    },
    "lesson_wider": {"trades": {"start": UNIFORM}},
    "iaat_cifar100": {
        "pgd_at_10": {"dataset": NOT_CIFAR100},
        "iaat_paper": {"dataset": NOT_CIFAR100},
    },
}
# Methods for which no source states a recipe; they have that of the study's other methods.
UNSTATED = {
    "lesson": {"natural", "fgsm", "trades_1", "trades_3", "pgd_at_10_smoothed"},
    "lesson_wider": {"natural"},
    "iaat": {"natural"},
    "iaat_cifar100": {"natural"},
}
FOLLOWED = {
    name: {
        method: of[0]
        for method, of in PARAMS.studies[name].published.items()
        if method not in UNSTATED.get(name, ())
    }
    for name in PAPERS
}

# Study -> attack -> the published evaluation.
EVALUATIONS = {
    "free_poster_cifar10": {
        "pgd_20": "free/PGD-20",
        "pgd_100": "free/PGD-100",
        "cw_100": "free/CW-100",
        "pgd_20_x10": "free/10xPGD-20",
        "autoattack": "robustbench/AutoAttack",
    },
    "free_poster_cifar100": {
        "pgd_20": "free/PGD-20",
        "pgd_100": "free/PGD-100",
        "autoattack": "robustbench/AutoAttack",
    },
    "survey": {
        "pgd_10_any": "robust_overfitting/PGD-10",
        "pgd_20": "madry/PGD-20",
        "pgd_50_x10": "fast_adversarial/PGD-50-10",
        "autoattack": "robustbench/AutoAttack",
    },
    "lesson": {"autoattack": "robustbench/AutoAttack"},
    "iaat": {
        "pgd_10": "iaat/PGD-10",
        "pgd_1000": "iaat/PGD-1000",
        "mifgsm_40": "iaat/MI-FGSM-40",
        "deepfool": "iaat/DeepFool",
        "autoattack": "robustbench/AutoAttack",
    },
    **{
        f"free_poster_imagenet{depth}": {
            f"pgd_{steps}_step_1": f"free/imagenet_PGD-{steps}" for steps in (10, 50, 100)
        }
        for depth in ("", "_101", "_152")
    },
}

CELLS = [(study, method) for study, methods in FOLLOWED.items() for method in methods]
SMALL = sorted(name for name in PARAMS.studies if name.endswith("_h200"))


def graph_of(name: str) -> Graph:
    return Graph(replace(PARAMS, run=(name,)), ROOT)


def cell_of(study: Study, method: str) -> Node:
    cells = graph_of(study.name).stage("train")
    return next(one for one in cells if one.params["method"]["name"] == method)


def told(study: Study) -> dict[str, Any]:
    return graph_of(study.name).stage("tables")[0].params


@pytest.mark.parametrize(("name", "method"), CELLS)
def test_a_cell_is_trained_as_it_was_published(name: str, method: str) -> None:
    study = PARAMS.studies[name]
    published = REGISTRY.trainings[FOLLOWED[name][method]]
    # A lesson asks for held-out images; both weights are attacked there.
    weights = "last" if published.selection in (None, "last") else "best"
    assert weights in study.weights
    data_set = told(study)["data_set"]
    kept = EXAMPLES.get(data_set["module"])
    examples = None if kept is None else round(kept * (1 - data_set["split"]["validation"]))
    ours = training_here(cell_of(study, method).params, data_set, examples, weights)
    found = differences(published, ours)
    assert {one.field for one in found} == {*DEPARTURES.get(name, {}).get(method, {})}, found


@pytest.mark.parametrize("name", PAPERS)
def test_each_method_of_a_study_is_published_or_said_not_to_be(name: str) -> None:
    study = PARAMS.studies[name]
    assert {*FOLLOWED[name], *UNSTATED.get(name, ())} == {*study.methods}
    assert {*DEPARTURES.get(name, {})} <= {*FOLLOWED[name]}
    assert study.seeds_at(None) == (0, 1, 2)


@pytest.mark.parametrize("name", PAPERS)
def test_what_is_not_stated_is_trained_as_the_other_methods(name: str) -> None:
    study = PARAMS.studies[name]
    shared = {study.recipes[method] for method in FOLLOWED[name]}
    for method in UNSTATED.get(name, ()):
        recipe = study.recipes[method]
        assert recipe in shared or recipe.removesuffix("_smoothed") in shared


@pytest.mark.parametrize(
    ("study", "attack"), [(study, one) for study, made in EVALUATIONS.items() for one in made]
)
def test_an_attack_is_the_published_one(study: str, attack: str) -> None:
    published = REGISTRY.evaluations[EVALUATIONS[study][attack]]
    node = next(
        one
        for one in graph_of(study).stage("attack")
        if one.params["attack"]["name"] == attack and one.params["weights"] == "last"
    )
    examples = node.params["examples"] or 10_000  # of CIFAR's test set
    assert differences(published, evaluation_here(node.params, examples)) == ()


def test_the_scale_of_one_gpu_stands_beside_the_same_numbers() -> None:
    for name in (name for name in SMALL if name != "minute_h200"):
        small, paper = (PARAMS.studies[one] for one in (name, name.removesuffix("_h200")))
        named = [
            sorted((PARAMS.methods[m].module, of) for m, of in study.published.items())
            for study in (small, paper)
        ]
        assert named[0] == named[1], name


@pytest.mark.parametrize("name", SMALL)
def test_no_training_of_a_smaller_scale_is_the_published_one(name: str) -> None:
    study = PARAMS.studies[name]
    for method, of in study.published.items():
        ours = training_here(cell_of(study, method).params, told(study)["data_set"], 50_000)
        for one in of:
            if any(number.trained == one for number in REGISTRY.numbers):
                assert differences(REGISTRY.trainings[one], ours), (method, one)


@pytest.mark.parametrize("name", sorted(PARAMS.studies))
def test_every_study_resolves(name: str) -> None:
    graph = graph_of(name)
    assert graph.stage("train")
    assert len({node.id for node in graph}) == len({*(node.key for node in graph)})


@pytest.mark.parametrize("name", SMALL)
def test_the_scale_of_one_gpu_is_the_paper_made_smaller(name: str) -> None:
    small = PARAMS.studies[name]
    assert "H200 scale" in small.description
    recipes = [PARAMS.recipes[one].parameters for one in {*small.recipes.values()}]
    assert {(one["precision"], one["channels_last"]) for one in recipes} == {("bfloat16", True)}
    if name == "minute_h200":
        return
    paper = PARAMS.studies[name.removesuffix("_h200")]
    assert "Paper scale" in paper.description
    assert (small.norm, small.epsilons, small.dataset) == (
        paper.norm,
        paper.epsilons,
        paper.dataset,
    )
    assert {*small.attacks} <= {*paper.attacks}
    modules = [
        sorted(PARAMS.methods[method].module for method in study.methods)
        for study in (small, paper)
    ]
    assert modules[0] == modules[1]
    longest = max(one["epochs"] for one in recipes)
    assert longest < max(PARAMS.recipes[one].parameters["epochs"] for one in paper.recipes.values())


def test_all_but_imagenet_have_the_scale_of_one_gpu() -> None:
    wanted = {f"{name}_h200" for name in PAPERS if "imagenet" not in name} | {"minute_h200"}
    assert {*SMALL} == wanted


def test_the_readme_lists_every_study() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    table = text.partition("| study |")[2].partition("\n\n")[0]
    listed = [line.split("`")[1] for line in table.splitlines() if line.startswith("| `")]
    assert sorted(listed) == sorted(PARAMS.studies)
