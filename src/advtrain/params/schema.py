"""What `params.yaml` holds, as frozen dataclasses that have been checked."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from advtrain.params.signatures import Value


@dataclass(frozen=True)
class Entry:
    """A named choice of parameters for a module: a method, an attack, a model, a data set."""

    name: str
    module: str
    parameters: Mapping[str, Value]


@dataclass(frozen=True)
class Epsilon:
    """A perturbation budget in [0, 1] pixel units, with the text it was written as."""

    text: str
    value: float

    @property
    def slug(self) -> str:
        """The budget as part of a file name: `8/255` -> `8_255`."""
        return self.text.replace("/", "_")


@dataclass(frozen=True)
class Curve:
    """The attack and the budgets of a study's figure of accuracy against epsilon."""

    attack: str
    epsilons: tuple[Epsilon, ...]


@dataclass(frozen=True)
class Study:
    """A table of a paper: what is trained, at which budgets, and what attacks it."""

    name: str
    title: str
    description: str
    dataset: str
    model: str
    recipes: Mapping[str, str]
    norm: str
    epsilons: tuple[Epsilon, ...]
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    attacks: tuple[str, ...]
    curve: Curve | None
    weights: tuple[str, ...]
    attack_examples: int | None
    attack_batch_size: int


@dataclass(frozen=True)
class Params:
    """All of `params.yaml`."""

    run: tuple[str, ...]
    raw_data: str
    device: str
    store_gib: float
    datasets: Mapping[str, Entry]
    models: Mapping[str, Entry]
    recipes: Mapping[str, Entry]
    methods: Mapping[str, Entry]
    attacks: Mapping[str, Entry]
    studies: Mapping[str, Study]
    source: Mapping[str, Any]
