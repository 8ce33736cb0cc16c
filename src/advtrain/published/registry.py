"""The registry of published numbers: each with its protocol, its source and how it was read.

The rows are YAML files below `registry/`, one for each work. They say what the source says: a field
that is left out is one that the source does not state, and is None here. Accuracies are fractions,
lengths are in [0, 1] pixel units and written as fractions (`8/255`), `2/255` is a step of 2 where
the source counts to 255.
"""

import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from advtrain.params.quantities import fraction
from advtrain.params.reader import did_you_mean, load_yaml

REGISTRY = Path(__file__).with_name("registry")

Grade = Literal["R", "S", "I", "2"]
"""How a number was read: in the repository (R) or the document (S) that it names, in an issue or
pull request there (I), in a text that cites it (2). What is only remembered has no grade, and does
not enter."""

GRADES: Mapping[str, str] = {
    "R": "read in the repository",
    "S": "read in the document",
    "I": "read in an issue of the repository",
    "2": "read in a text that cites it",
}

Norm = Literal["linf", "l2", "l1"]
Mode = Literal["train", "eval"]
Selection = Literal["last", "best_test", "best_validation"]
"""Which weights are attacked. Those that are the best on the test set have seen it."""

Quantity = Literal[
    "clean_accuracy",
    "robust_accuracy",
    "verified_accuracy",
    "certified_accuracy",
    "minutes",
    "seconds_per_epoch",
    "seconds_per_example",
]
"""Of one network. Verified: by bounds, at a budget. Certified: by randomised smoothing, at a radius
(the evaluation's epsilon)."""

Compared = Literal[
    "clean_accuracy",
    "robust_accuracy",
    "clean_accuracy_drop",
    "robust_accuracy_drop",
    "robust_accuracy_gain",
    "seed_deviation",
    "cost_ratio",
    "robust_accuracy_growth",
    "step_gap",
]
"""What a claim is of. A drop, a gain and a ratio are against what the range names. The growth is
that with Free's replays, which ends; the gap is of the accuracies under one step and under
several."""


@dataclass(frozen=True)
class Training:
    """How a published network was trained; None is what the source does not state.

    Attributes:
        dataset: the module of `advtrain.data`, or the published name.
        model: `WRN-32-10`, `PreActResNet-18`, `ResNet-50` ...
        method: the module of `advtrain.methods`, or the published name where there is none.
        source: where the protocol is read, if that is not where the numbers are.
        update: `plain` or `awp`.
        epsilon: the training budget.
        steps: of the attack trained on.
        step_size: of each step, in pixel units.
        start: of the attack: `uniform` in the ball, `normal`, or the `clean` image.
        crafting: mode of the model while it is attacked.
        parameters: of the method, by the names that it has here; `replays`, `beta` ...
        epochs: passes over the data; a replayed minibatch counts as often as it is replayed.
        weight_steps: where the source counts steps in place of epochs.
        milestones: in epochs, or in weight steps where these are counted.
        factor: of the learning rate at each milestone.
        decay: of the weights.
        warmup_epochs: before the method sets in.
        extra_data: what is learned beside the training set.
        start_from: the weights that the training begins with.
        hardware: that the times are of.
    """

    dataset: str | None
    method: str
    model: str | None = None
    source: str | None = None
    update: Literal["plain", "awp"] = "plain"
    norm: Norm | None = None
    epsilon: float | None = None
    steps: int | None = None
    step_size: float | None = None
    start: Literal["uniform", "normal", "clean"] | None = None
    crafting: Mode | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    epochs: int | None = None
    weight_steps: int | None = None
    warmup_epochs: int | None = None
    batch_size: int | None = None
    optimizer: Literal["sgd", "adam"] | None = None
    learning_rate: float | None = None
    schedule: Literal["constant", "piecewise", "cosine", "cyclic", "one_cycle"] | None = None
    milestones: tuple[float, ...] | None = None
    factor: float | None = None
    momentum: float | None = None
    nesterov: bool | None = None
    weight_decay: float | None = None
    label_smoothing: float | None = None
    averaging: str | None = None
    augmentation: str | None = None
    extra_data: str | None = None
    start_from: str | None = None
    precision: str | None = None
    selection: Selection | None = None
    hardware: str | None = None
    note: str | None = None


@dataclass(frozen=True)
class Evaluation:
    """What was measured of a network, and how; None is what the source does not state.

    Attributes:
        quantity: what the number is.
        attack: the module of `advtrain.attacks`, or the published name where there is none.
        source: where the protocol is read, if that is not where the numbers are.
        epsilon: the budget of the attack or the bounds, the radius of a certificate.
        restarts: starts per example.
        random_start: whether an attack starts at random.
        iterate: which one is judged: the final one, the best, or any that is misclassified.
        objective: `cross_entropy`, `margin` ...
        kappa: of the margin.
        mode: of the model while it is attacked.
        examples: how many of the test set.
        parameters: further ones, by the names that they have here.
    """

    quantity: Quantity
    attack: str | None = None
    source: str | None = None
    norm: Norm | None = None
    epsilon: float | None = None
    steps: int | None = None
    step_size: float | None = None
    restarts: int | None = None
    random_start: bool | None = None
    iterate: Literal["final", "best", "any"] | None = None
    objective: str | None = None
    kappa: float | None = None
    mode: Mode | None = None
    examples: int | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    note: str | None = None


@dataclass(frozen=True)
class Number:
    """One published number.

    Attributes:
        work: the file of the registry.
        table: of that file.
        row: its label in the table.
        column: the name of the evaluation.
        value: a fraction for an accuracy, else in the quantity's unit.
        spread: as it is printed after the value; a standard deviation if nothing else is said.
        seeds: how many trainings the value is a mean of.
        source: `owner/repository:path`, an issue of it, or a document.
        trained: the name of its training in the registry, `work/name`.
        training: how the network was trained, with the weights that are meant.
        note: what else the source says.
    """

    work: str
    table: str
    row: str
    column: str
    value: float
    spread: float | None
    seeds: int | None
    source: str
    grade: Grade
    trained: str
    training: Training
    evaluation: Evaluation
    note: str | None


@dataclass(frozen=True)
class Range:
    """What a source claims, in round numbers (`about 87 %`, `7 to 20 times`) or of an order.

    Attributes:
        low: a fraction for an accuracy and its changes, a factor for a ratio; None has no bound.
        high: likewise; equal to `low` for one round number.
        against: what a drop, a gain or a ratio is against.
        quote: the words of the source.
        methods: the modules of the methods here that it speaks of; empty if no study can show it.
        references: likewise, of what it is against.
        update: of the methods' weights.
        addition: of the methods' recipe, which the references' has not: `label_smoothing`.
        least_steps: of the attack trained on.
        model: that it speaks of.
        attack: the module of the attack; None for the worst case of all.
        weights: that it speaks of; None for those that a study shows.
    """

    work: str
    name: str
    quantity: Compared
    subject: str
    low: float | None
    high: float | None
    quote: str
    source: str
    grade: Grade
    against: str | None = None
    dataset: str | None = None
    note: str | None = None
    methods: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    update: Literal["plain", "awp"] = "plain"
    addition: str | None = None
    least_steps: int | None = None
    model: str | None = None
    norm: Norm | None = None
    epsilon: float | None = None
    attack: str | None = None
    weights: Literal["last", "best"] | None = None


@dataclass(frozen=True)
class Registry:
    """All that is known to be published.

    Attributes:
        trainings: by `work/name`; with those that no number is known of.
        evaluations: likewise.
    """

    works: Mapping[str, str]
    trainings: Mapping[str, Training]
    evaluations: Mapping[str, Evaluation]
    numbers: tuple[Number, ...]
    ranges: tuple[Range, ...]


def read_registry(folder: Path = REGISTRY) -> Registry:
    """Read all works of a registry.

    Raises:
        ValueError: naming the file, the place in it, what is wrong there and the likely mend.
        FileNotFoundError: if the folder holds no work.
    """
    paths = sorted(folder.glob("*.yaml"))
    if not paths:
        raise FileNotFoundError(f"{folder}: no published work (*.yaml) there")
    found = [_Work(path) for path in paths]
    return Registry(
        works={one.name: one.title for one in found},
        trainings={f"{w.name}/{name}": one for w in found for name, one in w.trainings.items()},
        evaluations={f"{w.name}/{name}": one for w in found for name, one in w.evaluations.items()},
        numbers=tuple(number for one in found for number in one.numbers),
        ranges=tuple(claim for one in found for claim in one.ranges),
    )


class _Work:
    """One file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.stem
        given = load_yaml(path)
        self.keys("", given, ("title",), ("trainings", "evaluations", "tables", "ranges"))
        self.title = str(given["title"])
        self.trainings = {
            name: self.made(Training, f"trainings.{name}", one)
            for name, one in given.get("trainings", {}).items()
        }
        self.evaluations = {
            name: self.made(Evaluation, f"evaluations.{name}", one)
            for name, one in given.get("evaluations", {}).items()
        }
        self.numbers: list[Number] = []
        for table in given.get("tables", ()):
            self.table(table)
        own = {"work": self.name}
        self.ranges = [
            self.made(Range, f"ranges.{name}", {**one, **own, "name": name})
            for name, one in given.get("ranges", {}).items()
        ]

    def refuse(self, place: str, what: str) -> typing.NoReturn:
        raise ValueError(f"{self.path.name}: {place}{what}")

    def keys(
        self, place: str, given: Any, needed: tuple[str, ...], others: tuple[str, ...]
    ) -> None:
        if not isinstance(given, Mapping):
            self.refuse(place, f": expected a mapping, got {given!r}")
        dot = f"{place}." if place else ""
        for key in given:
            if key not in (*needed, *others):
                mend = did_you_mean(key, (*needed, *others))
                self.refuse(f"{dot}{key}", f" is not a field{mend}")
        for key in needed:
            if key not in given:
                self.refuse(f"{dot}{key}", " is missing")

    def made(self, kind: type[Any], place: str, given: Any) -> Any:
        """Make a dataclass of a mapping whose fields have been checked."""
        hints = typing.get_type_hints(kind)
        required = [one.name for one in fields(kind) if _is_required(one)]
        optional = [one.name for one in fields(kind) if not _is_required(one)]
        self.keys(place, given, tuple(required), tuple(optional))
        made = {}
        for name, value in given.items():
            try:
                made[name] = _typed(hints[name], value)
            except ValueError as error:
                self.refuse(f"{place}.{name}", f": {error}")
        found = kind(**made)
        self.budget(place, found)
        return found

    def budget(self, place: str, made: Any) -> None:
        """Check that lengths in the l-infinity norm are in pixel units."""
        for name in ("epsilon", "step_size"):
            value = getattr(made, name, None)
            if value is not None and made.norm == "linf" and not 0 <= value <= 1:
                self.refuse(
                    f"{place}.{name}",
                    f": linf lengths are in [0, 1] pixel units, got {value:g}; "
                    f"did you mean {value:g}/255?",
                )

    def table(self, given: Any) -> None:
        self.keys("tables", given, ("name", "source", "grade", "rows"), ())
        place = f"tables.{given['name']}"
        try:
            grade = _typed(Grade, given["grade"])
        except ValueError as error:
            self.refuse(f"{place}.grade", f": {error}")
        seen: set[tuple[str, str]] = set()
        for number, row in enumerate(given["rows"], start=1):
            at = f"{place}, row {number}"
            self.keys(at, row, ("training", "values"), ("label", "selection", "seeds", "note"))
            training = self.named(at, self.trainings, row["training"], "training")
            if "selection" in row:
                training = replace(training, selection=_typed(Selection, row["selection"]))
            label = str(row.get("label", row["training"]))
            for column, value in row["values"].items():
                if (label, column) in seen:
                    self.refuse(at, f": {label} has {column} already; give the row a `label`")
                seen.add((label, column))
                evaluation = self.named(at, self.evaluations, column, "evaluation")
                mean, spread = value if isinstance(value, list) else (value, None)
                self.numbers.append(
                    Number(
                        work=self.name,
                        table=str(given["name"]),
                        row=label,
                        column=column,
                        value=self.value(f"{at}.{column}", evaluation.quantity, mean),
                        spread=spread,
                        seeds=row.get("seeds"),
                        source=str(given["source"]),
                        grade=grade,
                        trained=f"{self.name}/{row['training']}",
                        training=training,
                        evaluation=evaluation,
                        note=row.get("note"),
                    )
                )

    def named(self, place: str, known: Mapping[str, Any], name: str, what: str) -> Any:
        if name not in known:
            self.refuse(place, f": there is no {what} {name!r}{did_you_mean(name, known)}")
        return known[name]

    def value(self, place: str, quantity: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.refuse(place, f": expected a number, got {value!r}")
        if quantity.endswith("accuracy") and not 0 <= value <= 1:
            mend = f"; did you mean {value / 100:g}?"
            self.refuse(place, f": an accuracy is a fraction in [0, 1], got {value:g}{mend}")
        return float(value)


def _is_required(one: Any) -> bool:
    # A field without a default, of either kind.
    return type(one.default) is type(one.default_factory)


def _typed(hint: Any, value: Any) -> Any:
    """Check a value against the annotation of its field; numbers may be written as fractions.

    Raises:
        ValueError: naming what was expected.
    """
    union = typing.get_origin(hint) in (types.UnionType, typing.Union)
    kinds = typing.get_args(hint) if union else (hint,)
    if value is None and types.NoneType in kinds:
        return None
    kind = kinds[0]
    if typing.get_origin(kind) is Literal:
        known = typing.get_args(kind)
        if value not in known:
            raise ValueError(f"expected one of {', '.join(known)}, got {value!r}")
        return value
    if kind is float:
        return fraction(value)
    if typing.get_origin(kind) is tuple:
        texts = typing.get_args(kind)[0] is str
        if not isinstance(value, list) or (texts and not all(isinstance(v, str) for v in value)):
            raise ValueError(f"expected a list of {'names' if texts else 'numbers'}, got {value!r}")
        return tuple(value) if texts else tuple(fraction(one) for one in value)
    plain = Mapping if typing.get_origin(kind) is not None else kind
    if not isinstance(value, plain) or (plain is int and isinstance(value, bool)):
        raise ValueError(f"expected {_WORDS.get(plain, 'a mapping')}, got {value!r}")
    return value


_WORDS = {str: "a text", int: "a whole number", bool: "true or false"}
