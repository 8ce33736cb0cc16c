"""The studies of papers: they resolve, and their hyper-parameters are those of the registry."""

import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from advtrain.graph.nodes import Graph, Node
from advtrain.params.quantities import fraction
from advtrain.params.reader import read
from advtrain.params.schema import Entry, Study
from advtrain.published.registry import Training, read_registry

ROOT = Path(__file__).resolve().parents[2]
PARAMS = read(ROOT / "params.yaml")
REGISTRY = read_registry()

EXAMPLES = {"cifar10": 50_000, "cifar100": 50_000}
CLIPPED = "the paper's budget is .031, the study's 8/255"
SAME_NETWORK = "the depth 32 is counted otherwise: the same network as WRN-34-10"
ONE_NETWORK = "all methods of the study train one network"

# Study -> method -> the published training, and the fields in which we depart from it.
TRAININGS: dict[str, dict[str, tuple[str, dict[str, str]]]] = {
    "free_poster_cifar10": {
        "natural": ("free/natural", {}),
        **{f"free_{m}": (f"free/free_{m}", {}) for m in (2, 4, 8, 10)},
        "pgd_at": ("free/pgd_at", {}),
    },
    "free_poster_cifar100": {
        "natural": ("free/cifar100_natural", {}),
        **{f"free_{m}": (f"free/cifar100_free_{m}", {}) for m in (2, 4, 6, 8, 10)},
        "pgd_at_2": ("free/cifar100_pgd_at_2", {}),
        "pgd_at": ("free/cifar100_pgd_at_7", {}),
    },
    "free_poster_imagenet": {
        "free_4": ("free/imagenet_free_4", {}),
        "pgd_at_2": ("free/imagenet_pgd_at_2", {}),
    },
    "free_poster_imagenet_101": {"free_4": ("free/imagenet_free_4_101", {})},
    "free_poster_imagenet_152": {"free_4": ("free/imagenet_free_4_152", {})},
    "survey": {
        "natural": ("robust_overfitting/natural", {"model": SAME_NETWORK}),
        "pgd_at_10": ("robust_overfitting/pgd_at_wrn_34_10", {"model": SAME_NETWORK}),
        "trades_paper": ("trades/trades", {"model": SAME_NETWORK, "epsilon": CLIPPED}),
        "mart_paper": ("mart/mart", {"model": ONE_NETWORK, "epsilon": CLIPPED}),
        "fgsm_rs": ("fast_adversarial/fgsm_rs", {"model": ONE_NETWORK}),
        "pgd_at_10_awp": ("awp/pgd_at_awp_wide", {"model": SAME_NETWORK}),
        "consistency": ("consistency/consistency", {"model": ONE_NETWORK}),
        "gaussian": ("smoothing/cifar10_025", {"model": ONE_NETWORK}),
    },
    "lesson": {
        "pgd_at_10": ("lesson/pgd_at", {}),
        "trades": ("lesson/trades", {"start": "the paper's start is normal, the lesson's uniform"}),
        "cat_paper": ("curriculum/cat_paper", {}),
        "fgsm_mixed": (
            "jax_tutorial/fgsm_mixed",
            {
                "epsilon": "the tutorial's is for no data set in particular",
                "step_size": "likewise: it is the budget",
            },
        ),
    },
    "lesson_wider": {
        "pgd_at_10": ("lesson/pgd_at", {}),
        "trades": ("lesson/trades", {"start": "the paper's start is normal, the lesson's uniform"}),
    },
    "lesson_extra": {"trades_paper": ("robust_self_training/trades_extra", {})},
    "iaat": {"pgd_at_10": ("iaat/pgd_at", {}), "iaat_paper": ("iaat/iaat", {})},
    "iaat_cifar100": {
        "pgd_at_10": ("iaat/pgd_at", {"dataset": "stated for CIFAR-10"}),
        "iaat_paper": ("iaat/iaat", {"dataset": "stated for CIFAR-10"}),
    },
}
# Methods for which no source states a recipe; they have that of the study's other methods.
UNSTATED = {
    "lesson": {"natural", "fgsm", "trades_1", "trades_3", "pgd_at_10_smoothed"},
    "lesson_wider": {"natural"},
    "iaat": {"natural"},
    "iaat_cifar100": {"natural"},
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

PAPERS = sorted(TRAININGS)
CELLS = [(study, method) for study, methods in TRAININGS.items() for method in methods]
SMALL = sorted(name for name in PARAMS.studies if name.endswith("_h200"))

OF_THE_RECIPE = ("awp_gamma", "extra_fraction")
COMPARED_AS_THEY_ARE = ("batch_size", "optimizer", "learning_rate", "schedule", "factor")
COMPARED_AS_THEY_ARE += ("momentum", "nesterov", "weight_decay", "label_smoothing", "update")


def graph_of(name: str) -> Graph:
    return Graph(replace(PARAMS, run=(name,)), ROOT)


def cell_of(study: Study, method: str) -> Node:
    cells = graph_of(study.name).stage("train")
    return next(one for one in cells if one.params["method"]["name"] == method)


def network(entry: Entry) -> str:
    values = entry.parameters
    if entry.module == "wide_resnet":
        return f"WRN-{values['depth']}-{values['widen']}"
    family = {"preact_resnet": "PreActResNet", "resnet": "ResNet"}[entry.module]
    return f"{family}-{values['depth']}"


def length(value: object) -> object:
    """A registry's parameter as a number: `1.9/255` is a text there."""
    return fraction(value) if isinstance(value, str) and "/" in value else value


def ours(study: Study, method: str, published: Training) -> dict[str, Any]:
    """What our cell does, in the fields of the registry."""
    cell = cell_of(study, method)
    entry, recipe = cell.params["method"], cell.params["recipe"]["parameters"]
    own = entry["parameters"]
    dataset = PARAMS.datasets[study.dataset]
    module = {"imagefolder": "imagenet"}.get(dataset.module, dataset.module)
    replays = own.get("replays", 1)
    epochs = math.ceil(recipe["epochs"] / replays) * replays
    kept = EXAMPLES.get(module, 0) * (1 - dataset.parameters["validation"])
    threat = cell.params["threat"] or {}
    start = "normal" if "start_deviation" in own else "uniform"
    if entry["module"] in ("fgsm_mixed", "fgsm"):
        start = "clean"
    warmup = own.get("warmup", 0) * epochs if "warmup" in own else recipe["awp_warmup"]
    per_share = published.weight_steps or epochs
    return {
        **{name: recipe[name] for name in COMPARED_AS_THEY_ARE},
        "dataset": module,
        "model": network(PARAMS.models[study.model]),
        "method": entry["module"],
        "norm": threat.get("norm"),
        "epsilon": threat.get("epsilon"),
        "steps": own.get("steps", 1),
        "step_size": own.get("step_size", own.get("least_step")),
        "start": start,
        "crafting": own.get("crafting"),
        "parameters": {
            name: (recipe if name in OF_THE_RECIPE else own)[name] for name in published.parameters
        },
        "epochs": epochs,
        "weight_steps": math.ceil(kept / recipe["batch_size"]) * epochs,
        "warmup_epochs": warmup,
        "milestones": tuple(share * per_share for share in recipe["milestones"]),
        "selection": "last" if "last" in study.weights else "best_validation",
    }


# Not of the training, or said in words; the study's description and comments say what we take.
IN_WORDS = ("source", "note", "hardware", "augmentation", "extra_data", "start_from")
IN_WORDS += ("averaging", "precision")


@pytest.mark.parametrize(("study", "method"), CELLS)
def test_a_cell_is_trained_as_it_was_published(study: str, method: str) -> None:
    name, departures = TRAININGS[study][method]
    published = REGISTRY.trainings[name]
    found = ours(PARAMS.studies[study], method, published)
    if published.schedule != "piecewise":
        found.pop("milestones")
    for one in fields(published):
        stated = getattr(published, one.name)
        if stated is None or one.name in IN_WORDS or one.name not in found:
            assert one.name in found or stated is None or one.name in IN_WORDS, one.name
            continue
        got = found[one.name]
        if one.name in departures:
            assert got != stated, f"{one.name} does not depart any more: {departures[one.name]}"
        elif one.name == "parameters":
            expected = {key: length(value) for key, value in stated.items()}
            assert got == pytest.approx(expected), name
        elif one.name == "weight_steps":  # whole passes over the data
            assert got == pytest.approx(stated, rel=0.03), name
        elif one.name == "selection":  # a lesson asks for held-out images; we attack both
            assert stated in ("last", "best_validation"), name
            assert {"last": "last", "best_validation": "best"}[stated] in PARAMS.studies[
                study
            ].weights
        elif one.name in ("milestones", "warmup_epochs"):  # written as shares of six digits
            assert got == pytest.approx(stated, abs=1e-3), f"{name}: {one.name}"
        elif isinstance(stated, float | int):
            assert got == pytest.approx(stated, rel=1e-9), f"{name}: {one.name}"
        else:
            assert got == stated, f"{name}: {one.name}"


@pytest.mark.parametrize("name", PAPERS)
def test_each_method_of_a_study_is_published_or_said_not_to_be(name: str) -> None:
    study = PARAMS.studies[name]
    assert {*TRAININGS[name], *UNSTATED.get(name, ())} == {*study.methods}
    assert study.seeds_at(None) == (0, 1, 2)


@pytest.mark.parametrize("name", PAPERS)
def test_what_is_not_stated_is_trained_as_the_other_methods(name: str) -> None:
    study = PARAMS.studies[name]
    shared = {study.recipes[method] for method in TRAININGS[name]}
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
    made = node.params["attack"]
    found = {**made["parameters"], **node.params["threat"], "attack": made["module"]}
    found["mode"] = "eval"  # of every attack here
    found["objective"] = {"pgd": "cross_entropy", "cw": "margin"}.get(made["module"])
    found["examples"] = node.params["examples"] or 10_000  # of CIFAR's test set
    for one in fields(published):
        stated = getattr(published, one.name)
        if one.name in ("quantity", "source", "note") or stated is None:
            continue
        if one.name == "parameters":
            assert {key: found[key] for key in stated} == stated
        elif isinstance(stated, float):
            assert found[one.name] == pytest.approx(stated, rel=1e-9), one.name
        else:
            assert found[one.name] == stated, one.name


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
