from dataclasses import replace
from typing import Any

import pytest

from advtrain.published.protocols import (
    differences,
    evaluation_here,
    training_here,
    unstated,
)
from advtrain.published.registry import Evaluation, Training, read_registry

REGISTRY = read_registry()
DATA = {"module": "cifar10", "parameters": {}, "split": {"validation": 0.0}}
RECIPE = {
    "epochs": 204,
    "batch_size": 128,
    "optimizer": "sgd",
    "learning_rate": 0.1,
    "schedule": "piecewise",
    "milestones": [0.5, 0.75],
    "factor": 0.1,
    "momentum": 0.9,
    "nesterov": False,
    "weight_decay": 2e-4,
    "label_smoothing": 0.0,
    "precision": "float32",
    "update": "plain",
    "averaging": "none",
    "awp_gamma": 0.01,
    "awp_warmup": 0,
    "extra_fraction": 0.0,
    "crop_padding": 4,
    "flip": True,
}
ATTACK = {
    "attack": {
        "name": "pgd_20",
        "module": "pgd",
        "parameters": {
            "steps": 20,
            "step_size": 8 / 255 / 4,
            "restarts": 1,
            "random_start": True,
            "iterate": "final",
        },
    },
    "threat": {"norm": "linf", "epsilon": 8 / 255},
}


def cell(module: str = "free", recipe: dict[str, Any] | None = None, **own: Any) -> dict[str, Any]:
    return {
        "method": {"name": "m", "module": module, "parameters": own},
        "model": {
            "name": "w",
            "module": "wide_resnet",
            "parameters": {"depth": 32, "widen": 10, "normalisation": "none"},
        },
        "threat": {"norm": "linf", "epsilon": 8 / 255},
        "recipe": {"name": "r", "parameters": {**RECIPE, **(recipe or {})}},
        "seed": 0,
        "teacher": None,
        "start": None,
    }


def free(m: int = 8, **recipe: Any) -> Training:
    params = cell(recipe=recipe, replays=m, step_size=8 / 255, through_clip=True)
    return training_here(params, DATA, 50_000)


def said(found: Any) -> list[str]:
    return [str(one) for one in found]


@pytest.mark.parametrize("m", [2, 4, 8, 10])
def test_whole_passes_over_the_data_are_the_posters_80000_steps(m: int) -> None:
    # ceil(204 / m) passes of m replays each, of 391 minibatches.
    ours = free(m)
    assert ours.weight_steps == {2: 79_764, 4: 79_764, 8: 81_328, 10: 82_110}[m]
    assert differences(REGISTRY.trainings[f"free/free_{m}"], ours) == ()


def test_what_differs_is_said_in_words() -> None:
    ours = free(4, epochs=80, schedule="cyclic", learning_rate=0.04)
    assert said(differences(REGISTRY.trainings["free/free_8"], ours)) == [
        "parameters.replays: 8 → 4",
        "weight steps: 80000 → 31280",
        "learning rate: 0.1 → 0.04",
        # The milestones of two kinds of schedule are not compared.
        "schedule: piecewise → cyclic",
    ]


def test_lengths_are_compared_as_numbers() -> None:
    published = Training(
        dataset="cifar10",
        method="iaat",
        norm="linf",
        epsilon=8 / 255,
        step_size=2 / 255,
        parameters={"gamma": "1.9/255"},
    )
    params = cell("iaat", least_step=8 / 255 / 4, gamma=1.9 / 255)
    assert differences(published, training_here(params, DATA, None)) == ()
    other = replace(published, epsilon=0.031, step_size=0.007)
    assert said(differences(other, training_here(params, DATA, None))) == [
        "epsilon: 0.031 → 8/255",
        "step size: 0.007 → 2/255",
    ]


def test_madrys_depth_32_is_the_network_of_depth_34() -> None:
    ours = free()
    assert ours.model == "WRN-32-10"
    assert differences(Training("cifar10", "free", model="WRN-34-10"), ours) == ()
    assert said(differences(Training("cifar10", "free", model="WRN-28-10"), ours)) == [
        "model: WRN-28-10 → WRN-32-10"
    ]


def test_a_smaller_data_set_is_another_one() -> None:
    fewer = {**DATA, "split": {"train_examples": 3000}}
    params = cell("pgd_at", steps=7)
    assert said(differences(Training("cifar10", "pgd_at"), training_here(params, fewer, 3000))) == [
        "dataset: cifar10 → cifar10, 3000 training images"
    ]
    folder = {"module": "imagefolder", "parameters": {"folder": "imagenette"}, "split": {}}
    assert training_here(params, folder, None).dataset == "imagenette"


def test_a_narrower_network_says_its_width() -> None:
    params = cell("pgd_at")
    params["model"] = {
        "name": "small",
        "module": "preact_resnet",
        "parameters": {"depth": 10, "width": 8},
    }
    assert training_here(params, DATA, None).model == "PreActResNet-10, width 8"
    params["model"]["parameters"] = {"depth": 18, "width": 64}
    assert training_here(params, DATA, None).model == "PreActResNet-18"


def test_which_weights_are_meant_is_part_of_the_protocol() -> None:
    published = Training("cifar10", "free", selection="best_test")
    found = [
        said(differences(published, training_here(cell(replays=8), DATA, None, weights)))
        for weights in ("last", "best")
    ]
    assert found == [["selection: best test → last"], ["selection: best test → best validation"]]


def test_words_count_where_one_of_the_two_has_nothing() -> None:
    published = Training("cifar10", "free", extra_data="500K images", augmentation="crop, flip")
    assert said(differences(published, free())) == ["extra data: 500K images → none"]
    assert differences(published, free(extra_fraction=0.5)) == ()
    bare = free(crop_padding=0, flip=False, extra_fraction=0.5)
    assert said(differences(published, bare)) == ["augmentation: crop, flip → none"]


@pytest.mark.parametrize(
    ("module", "own", "start"),
    [
        ("pgd_at", {"random_start": True}, "uniform"),
        ("pgd_at", {"random_start": False}, "clean"),
        ("trades", {"start_deviation": 0.001}, "normal"),
        ("fgsm_mixed", {}, "clean"),
    ],
)
def test_where_an_attack_starts(module: str, own: dict[str, Any], start: str) -> None:
    assert training_here(cell(module, **own), DATA, None).start == start


def test_a_warm_up_is_of_the_method_or_of_the_weights_update() -> None:
    iaat = training_here(cell("iaat", {"epochs": 110}, warmup=0.090909), DATA, None)
    assert differences(Training("cifar10", "iaat", warmup_epochs=10), iaat) == ()
    awp = training_here(cell("pgd_at", {"update": "awp", "awp_warmup": 3}), DATA, None)
    assert awp.warmup_epochs == 3
    assert free().warmup_epochs is None


def test_a_network_that_was_given_has_no_protocol_of_its_training() -> None:
    given = {**cell("given"), "recipe": None, "threat": None}
    found = differences(Training("cifar10", "given", epochs=200), training_here(given, DATA, None))
    assert said(found) == ["epochs: 200 → none"]


def test_an_attack_is_compared_field_by_field() -> None:
    poster = REGISTRY.evaluations["free/PGD-20"]
    assert differences(poster, evaluation_here(ATTACK, 10_000)) == ()
    assert said(differences(poster, evaluation_here(ATTACK, 1000))) == [
        "attack.examples: 10000 → 1000"
    ]
    hundred = REGISTRY.evaluations["free/CW-100"]
    assert said(differences(hundred, evaluation_here(ATTACK, 10_000))) == [
        "attack: cw → pgd",
        "attack.steps: 100 → 20",
        "attack.objective: margin → cross entropy",
        "attack.kappa: 0 → none",
    ]


def test_what_a_source_leaves_open_is_counted_where_ours_has_it() -> None:
    clean = Evaluation("clean_accuracy")
    assert "examples" in unstated(clean, evaluation_here(ATTACK, 449))
    assert "kappa" not in unstated(clean, evaluation_here(ATTACK, 449))
    found = unstated(REGISTRY.trainings["free/free_8"], free())
    assert {"nesterov", "epochs", "crafting"} & {*found} == {"nesterov", "epochs"}
    assert not {"source", "note", "hardware", "replays", "weight_steps"} & {*found}
