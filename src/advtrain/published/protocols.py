"""Protocols side by side: what a source states of a number, and what was done here.

Both are written in the fields of the registry, so that they can be compared one by one.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any, NamedTuple

from advtrain.params.quantities import fraction
from advtrain.published.registry import Evaluation, Training
from advtrain.results.names import epsilon_text

WHOLE_PASSES = 0.03
"""Weight steps that are whole passes over the data may differ by this share from those stated."""

ROUNDED_SHARES = 1e-4
"""Epochs that are written as shares of six digits may differ by this share."""

NOT_PROTOCOL = ("source", "note", "hardware", "quantity")
"""Fields that say where a protocol was read, or what cannot be compared."""

IN_WORDS = ("augmentation", "averaging", "extra_data", "start_from")
"""Fields whose words are not compared; that one has it and the other has not is a difference."""

LENGTHS = ("epsilon", "step_size")
OF_THE_RECIPE = ("awp_gamma", "extra_fraction")
"""Parameters of a recipe that the registry lists with those of the method."""

AS_THEY_ARE = (
    *("batch_size", "optimizer", "learning_rate", "schedule", "momentum", "nesterov"),
    *("weight_decay", "label_smoothing", "precision"),
)

FAMILIES = {"preact_resnet": "PreActResNet", "resnet": "ResNet"}
WIDTH = 64
"""The channels of a residual network's first stage, where a published name says nothing else."""

OBJECTIVES = {"pgd": "cross_entropy", "cw": "margin"}
FROM_THE_IMAGE = ("fgsm_mixed",)
"""Methods whose attack starts at the clean image."""


class Departure(NamedTuple):
    """A field in which two protocols differ, in words.

    Attributes:
        field: of the training (`epochs`, `parameters.beta`) or of the attack (`attack.steps`).
        theirs: what the source states.
        ours: what was done here; `none` if it was not.
    """

    field: str
    theirs: str
    ours: str

    def __str__(self) -> str:
        """Say it: `epochs: 200 → 30`."""
        return f"{self.field.replace('_', ' ')}: {self.theirs} → {self.ours}"


def training_here(
    params: Mapping[str, Any],
    data_set: Mapping[str, Any],
    examples: int | None,
    weights: str = "last",
) -> Training:
    """Write down how a cell is trained, in the fields of the registry.

    Args:
        params: the cell's resolved parameters, as its manifest and the collected cells hold them.
        data_set: its data set: `module`, `parameters` and `split`.
        examples: how many images it is trained on; None if that is not known.
        weights: which of its weights are evaluated, `last` or `best`.

    Returns:
        The protocol; None is what is not known here (a network that was given).
    """
    own = params["method"]["parameters"]
    recipe = (params["recipe"] or {}).get("parameters", {})
    threat = params["threat"] or {}
    replays = own.get("replays", 1)
    epochs = math.ceil(recipe["epochs"] / replays) * replays if "epochs" in recipe else None
    piecewise = recipe.get("schedule") == "piecewise"
    milestones = tuple(share * (epochs or 0) for share in recipe.get("milestones", ()))
    return Training(
        **{name: recipe.get(name) for name in AS_THEY_ARE},
        dataset=_data(data_set),
        model=_network(params["model"]),
        method=params["method"]["module"],
        update=recipe.get("update", "plain"),
        norm=threat.get("norm"),
        epsilon=threat.get("epsilon"),
        steps=own.get("steps", 1) if threat else None,
        step_size=own.get("step_size", own.get("least_step")),
        start=_start(params["method"]["module"], own) if threat else None,
        crafting=own.get("crafting"),
        parameters={**{one: recipe.get(one) for one in OF_THE_RECIPE}, **own},
        epochs=epochs,
        weight_steps=_weight_steps(recipe, examples, epochs),
        warmup_epochs=_warmup(own, recipe, epochs),
        milestones=milestones if piecewise else None,
        factor=recipe.get("factor") if piecewise else None,
        averaging=_unless(recipe.get("averaging"), "none"),
        augmentation=_augmentation(recipe),
        extra_data="images without labels" if recipe.get("extra_fraction") else None,
        start_from=params.get("start"),
        selection="last" if weights == "last" else "best_validation",
    )


def evaluation_here(params: Mapping[str, Any], examples: int | None) -> Evaluation:
    """Write down how an attack or a certificate was run, in the fields of the registry.

    Args:
        params: its resolved parameters, as its manifest and the collected cells hold them.
        examples: how many images it was run on.
    """
    attack = params.get("attack")
    made = attack or params["certificate"]
    own = made["parameters"]
    return Evaluation(
        quantity="robust_accuracy" if attack else "certified_accuracy",
        attack=made["module"],
        norm=params["threat"]["norm"],
        epsilon=params["threat"]["epsilon"],
        steps=own.get("steps"),
        step_size=own.get("step_size"),
        restarts=own.get("restarts"),
        random_start=own.get("random_start"),
        iterate=own.get("iterate"),
        objective=OBJECTIVES.get(made["module"]),
        kappa=own.get("kappa"),
        mode="eval",
        examples=examples,
        parameters=own,
    )


def differences(
    published: Training | Evaluation, ours: Training | Evaluation
) -> tuple[Departure, ...]:
    """List the fields in which we depart from a protocol, of those that its source states.

    Lengths, rates and counts are compared as numbers. The milestones and the factor of a schedule
    are not compared where the schedules are two kinds, which is a difference by itself.

    Args:
        published: of the registry.
        ours: of the same kind, from `training_here` or `evaluation_here`.

    Returns:
        In the order of the fields; empty where all that is stated agrees.
    """
    of = "attack." if isinstance(published, Evaluation) else ""
    found = []
    for name, stated, got in _stated(published, ours):
        if not _agree(name, stated, got):
            field = name if name == "attack" else f"{of}{name}"
            found.append(Departure(field, _words(name, stated), _words(name, got)))
    kinds = {one.field for one in found}
    if "schedule" in kinds:
        found = [one for one in found if one.field not in ("milestones", "factor")]
    return tuple(found)


def unstated(published: Training | Evaluation, ours: Training | Evaluation) -> tuple[str, ...]:
    """List the fields of our protocol that the source of the published one does not state."""
    return tuple(
        one.name
        for one in fields(published)
        if one.name not in (*NOT_PROTOCOL, *IN_WORDS)
        and getattr(published, one.name) is None
        and getattr(ours, one.name) is not None
    )


def _stated(
    published: Training | Evaluation, ours: Training | Evaluation
) -> Iterator[tuple[str, Any, Any]]:
    for one in fields(published):
        stated, got = getattr(published, one.name), getattr(ours, one.name)
        if one.name == "parameters":
            for key, value in stated.items():
                yield f"parameters.{key}", _number(value), got.get(key)
        elif stated is not None and one.name not in NOT_PROTOCOL:
            if one.name == "milestones" and isinstance(published, Training):
                got = _rescaled(published, ours, got)
            yield one.name, stated, got


def _rescaled(published: Training, ours: Any, epochs: tuple[float, ...] | None) -> Any:
    """Write our milestones in the source's unit, for a training as long as the source's.

    That a training is shorter is a difference of its own.
    """
    length = published.weight_steps or published.epochs
    return epochs and tuple(one / ours.epochs * (length or ours.epochs) for one in epochs)


def _agree(name: str, stated: Any, got: Any) -> bool:
    if got is None:
        return False
    if name in IN_WORDS:
        return True
    if name == "model":
        return _same_network(stated) == _same_network(got)
    if name == "weight_steps":
        return math.isclose(got, stated, rel_tol=WHOLE_PASSES)
    if name == "milestones":
        return len(stated) == len(got) and all(
            math.isclose(one, other, rel_tol=ROUNDED_SHARES)
            for one, other in zip(stated, got, strict=True)
        )
    if name == "warmup_epochs":
        return math.isclose(got, stated, rel_tol=ROUNDED_SHARES)
    if isinstance(stated, int | float) and not isinstance(stated, bool):
        return math.isclose(got, stated, rel_tol=1e-9)
    return bool(got == stated)


def _words(name: str, value: Any) -> str:
    """Write a value for a reader: `8/255`, `40000, 60000`, `none`."""
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return ", ".join(_words(name, one) for one in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return epsilon_text(value) if name in LENGTHS else f"{value:.6g}"
    return str(value).replace("_", " ") if name != "dataset" else str(value)


def _number(value: Any) -> Any:
    """Read a parameter of the registry that is written as a fraction."""
    return fraction(value) if isinstance(value, str) and "/" in value else value


def _data(data_set: Mapping[str, Any]) -> str:
    """Name a data set as the registry does, and say so where it was made smaller."""
    name = data_set["module"]
    if name == "imagefolder":
        name = data_set["parameters"]["folder"]
    fewer = data_set["split"].get("train_examples")
    return f"{name}, {fewer} training images" if fewer else str(name)


def _network(model: Mapping[str, Any]) -> str:
    values = model["parameters"]
    if model["module"] == "wide_resnet":
        return f"WRN-{values['depth']}-{values['widen']}"
    family = FAMILIES.get(model["module"])
    if family is None:
        return str(model["name"])
    narrower = values.get("width", WIDTH) != WIDTH
    width = f", width {values['width']}" if narrower else ""
    return f"{family}-{values['depth']}{width}"


def _same_network(name: str) -> str:
    """Give the depth 32 of Madry et al., who count otherwise, the name of the same network."""
    return name.replace("WRN-32-", "WRN-34-")


def _start(module: str, own: Mapping[str, Any]) -> Any:
    if module in FROM_THE_IMAGE or own.get("random_start") is False:
        return "clean"
    return "normal" if "start_deviation" in own else "uniform"


def _weight_steps(
    recipe: Mapping[str, Any], examples: int | None, epochs: int | None
) -> int | None:
    if examples is None or epochs is None or "batch_size" not in recipe:
        return None
    return math.ceil(examples / int(recipe["batch_size"])) * epochs


def _warmup(own: Mapping[str, Any], recipe: Mapping[str, Any], epochs: int | None) -> Any:
    if "warmup" in own:
        return None if epochs is None else own["warmup"] * epochs
    return recipe.get("awp_warmup") if recipe.get("update") == "awp" else None


def _augmentation(recipe: Mapping[str, Any]) -> str | None:
    made = [name for name in ("crop_padding", "flip", "cutout") if recipe.get(name)]
    made += [recipe["policy"]] if _unless(recipe.get("policy"), "none") else []
    return ", ".join(made) or None


def _unless(value: Any, nothing: str) -> Any:
    return None if value == nothing else value
