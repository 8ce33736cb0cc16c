"""What `params.yaml` holds, as frozen dataclasses that have been checked."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from advtrain.params.signatures import Value

PUBLISHED = "torchvision:"
"""What the name of weights begins with that torchvision publishes."""


@dataclass(frozen=True)
class Entry:
    """A named choice of parameters for a module: a method, an attack, a model, a data set.

    Attributes:
        upstream: of a method, whose weights it uses for what: `teacher` and `start` -> the label
            of another method, or (`start`) `torchvision:<model>/<weights>`. Of an attack: `source`
            -> the label of the method whose network it is crafted on.
    """

    name: str
    module: str
    parameters: Mapping[str, Value]
    upstream: Mapping[str, str] = field(default_factory=dict)

    @property
    def upstream_methods(self) -> Mapping[str, str]:
        """The upstream that is trained here: `teacher` and `start` -> the label of a method."""
        return {role: of for role, of in self.upstream.items() if not of.startswith(PUBLISHED)}


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
    """A table of a paper: what is trained, at which budgets, and what attacks it.

    Attributes:
        seeds: those of each budget (its value).
        certificates: the methods whose cells each of them certifies.
        weights: which of a cell's weights are attacked: last, best.
        attack_weights: of each attack, which of them.
        attack_examples: of each attack, how many test examples it is run on; None for all.
        attack_precision: of the attacks' passes: float32, tf32 or bfloat16.
        adversarial: the attacks whose images are kept, as float32 or float16.
        strict: a failed audit fails the build.
        published: of a method, the trainings in the registry of published numbers that its cells
            stand beside; the first is the one that its recipe follows.
    """

    name: str
    title: str
    description: str
    dataset: str
    model: str
    recipes: Mapping[str, str]
    norm: str
    epsilons: tuple[Epsilon, ...]
    methods: tuple[str, ...]
    seeds: Mapping[float, tuple[int, ...]]
    attacks: tuple[str, ...]
    curve: Curve | None
    weights: tuple[str, ...]
    attack_weights: Mapping[str, tuple[str, ...]]
    attack_examples: Mapping[str, int | None]
    attack_precision: str
    adversarial: Mapping[str, str]
    strict: bool
    attack_batch_size: int
    certificates: Mapping[str, tuple[str, ...]]
    certify_examples: int | None
    published: Mapping[str, tuple[str, ...]]

    def seeds_at(self, epsilon: Epsilon | None) -> tuple[int, ...]:
        """Return the seeds of a budget; without one, those of all budgets."""
        if epsilon is not None:
            return self.seeds[epsilon.value]
        return tuple(sorted({seed for seeds in self.seeds.values() for seed in seeds}))


@dataclass(frozen=True)
class Params:
    """All of `params.yaml`."""

    run: tuple[str, ...]
    raw_data: str
    device: str
    cells_per_gpu: int
    store_gib: float
    datasets: Mapping[str, Entry]
    models: Mapping[str, Entry]
    recipes: Mapping[str, Entry]
    methods: Mapping[str, Entry]
    attacks: Mapping[str, Entry]
    certificates: Mapping[str, Entry]
    studies: Mapping[str, Study]
    source: Mapping[str, Any]
