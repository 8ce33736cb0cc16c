"""What a study would cost by arithmetic, where nothing like it was measured: counts and guesses."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from advtrain.graph.costs import CostModel, passes_spent
from advtrain.graph.nodes import Node

ASSUMED = {"float32": 40e12, "tf32": 130e12, "bfloat16": 250e12, "float16": 250e12}
"""Operations per second of one H200 that a training reaches, by precision: guesses, a third of what
its matrix units do, as fast trainings of the kind reach on an A100. `make bench-gpu` measures."""

FlopModel = Callable[[Mapping[str, Any], int, int, int], float | None]
"""From the resolved parameters of a network, the channels and the size of an image and the number
of classes to the operations of a forward pass per image; None where they cannot be counted."""


@dataclass(frozen=True)
class Facts:
    """What a prepared data set holds.

    Attributes:
        channels: of an image.
        size: its height and width in pixels.
        classes: how many.
        train: how many training images.
        test: how many test images.
    """

    channels: int
    size: int
    classes: int
    train: int
    test: int


PUBLISHED = {
    "cifar10": Facts(3, 32, 10, 50_000, 10_000),
    "cifar100": Facts(3, 32, 100, 50_000, 10_000),
    "mnist": Facts(1, 28, 10, 60_000, 10_000),
    "fashion_mnist": Facts(1, 28, 10, 60_000, 10_000),
    "svhn": Facts(3, 32, 10, 73_257, 26_032),
}
"""The data sets as their authors published them, by module."""

IMAGENET = Facts(3, 224, 1000, 1_281_167, 50_000)
"""A folder of images that is named so is taken for it until it is prepared."""


def counted_once(flops: FlopModel) -> FlopModel:
    """Return the same count, made once for each network and kind of image."""
    known: dict[str, float | None] = {}

    def count(model: Mapping[str, Any], channels: int, size: int, classes: int) -> float | None:
        asked = json.dumps([model, channels, size, classes], sort_keys=True)
        if asked not in known:
            known[asked] = flops(model, channels, size, classes)
        return known[asked]

    return count


def arithmetic_hours(node: Node, passes: CostModel, flops: FlopModel) -> float | None:
    """Return the hours on one H200 by arithmetic: operations over an assumed rate.

    An evaluation counts as if every example withstood it; the validation of a training, and the
    reading of images, do not count.

    Args:
        node: a training, an attack, a certificate or a probe.
        passes: tells the passes of a training.
        flops: tells the operations of a pass.

    Returns:
        The hours; None where the data set, the network or the method is not known, and for what is
        to run on a CPU.
    """
    facts = _facts(node)
    if facts is None or node.unkeyed.get("device") == "cpu":
        return None
    params = node.params
    forward = flops(params["model"], facts.channels, facts.size, facts.classes)
    if forward is None:
        return None
    if node.stage == "train":
        recipe = params["recipe"]
        spent = passes(params) if recipe else None
        if spent is None:
            return None
        precision, examples = recipe["parameters"].get("precision", "float32"), facts.train
    else:
        spent = passes_spent(params)
        precision = params.get("precision") or "float32"
        examples = min(params.get("examples") or facts.test, facts.test)
    return spent * examples * forward / ASSUMED[precision] / 3600


def _facts(node: Node) -> Facts | None:
    """Return what the node's data hold: as prepared, else as published."""
    prepare = next(one for one in node.inputs if one.stage == "prepare")
    found = _prepared(node.root / prepare.folder / "dataset.json")
    if found is not None:
        return found
    own = prepare.params["dataset"]
    split = own["split"]
    known = PUBLISHED.get(own["module"])
    if own["module"] == "imagefolder" and own["parameters"]["folder"] == "imagenet":
        known = Facts(3, own["parameters"]["image_size"], 1000, IMAGENET.train, IMAGENET.test)
    if known is None:
        return None
    kept = round(known.train * (1 - split["validation"] - split["unlabelled"]))
    return Facts(
        known.channels,
        known.size,
        known.classes,
        min(kept, split["train_examples"] or kept),
        min(known.test, split["test_examples"] or known.test),
    )


def _prepared(path: Path) -> Facts | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        channels, size = found["channels"], found["size"]
        counts = found["counts"]
        return Facts(channels, size, len(found["classes"]), counts["train"], counts["test"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
