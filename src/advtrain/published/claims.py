"""The survey's claims: for each variant of adversarial training, what it costs and what it gains.

They are words (`High`, `Medium` ...), so that all they can say is which variant has more.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

CLAIMS = Path(__file__).with_name("claims.yaml")

Quantity = Literal["cost", "gain"]
"""The accuracy that a variant costs on clean images, the robustness that it gains."""

QUANTITIES: tuple[Quantity, ...] = ("cost", "gain")


@dataclass(frozen=True)
class Variant:
    """What the survey says of one variant.

    Attributes:
        name: the survey's.
        module: of the method that it is.
        update: of the weights, `plain` or `awp`.
        cost: the word for what it costs.
        gain: the word for what it gains.
    """

    name: str
    module: str
    update: str
    cost: str
    gain: str

    def word(self, quantity: Quantity) -> str:
        """Return the word for one of the two."""
        return self.cost if quantity == "cost" else self.gain


@dataclass(frozen=True)
class Claims:
    """What the survey says.

    Attributes:
        source: where it says so.
        scales: the words for each quantity, from little to much.
        variants: in the survey's order.
    """

    source: str
    scales: Mapping[Quantity, tuple[str, ...]]
    variants: tuple[Variant, ...]

    def order(self, quantity: Quantity, one: Variant, other: Variant) -> int:
        """Compare two variants by their words: 1 if `one` is to have more, -1 less, 0 neither."""
        scale = self.scales[quantity]
        ours, theirs = (scale.index(variant.word(quantity)) for variant in (one, other))
        return (ours > theirs) - (ours < theirs)


def read_claims(path: Path = CLAIMS) -> Claims:
    """Read the claims.

    Raises:
        ValueError: naming the variant and what is missing, unknown or said twice.
    """
    found = yaml.safe_load(path.read_text(encoding="utf-8"))
    _same_keys(path, "the file", found, ("source", "scales", "variants"))
    _same_keys(path, "scales", found["scales"], QUANTITIES)
    scales: dict[Quantity, tuple[str, ...]] = {
        quantity: tuple(found["scales"][quantity]) for quantity in QUANTITIES
    }
    variants: list[Variant] = []
    for number, row in enumerate(found["variants"], start=1):
        place = f"variant {number}"
        _same_keys(path, place, row, tuple(Variant.__annotations__))
        variant = Variant(**row)
        for quantity, scale in scales.items():
            if variant.word(quantity) not in scale:
                raise ValueError(
                    f"{path}: {place}, {variant.name}: the {quantity} is "
                    f"{variant.word(quantity)!r}, expected one of {', '.join(scale)}"
                )
        for other in variants:
            if variant.name == other.name or (
                (variant.module, variant.update) == (other.module, other.update)
            ):
                raise ValueError(
                    f"{path}: {place}, {variant.name}: has the name or the module and update of "
                    f"{other.name}; a method of a study is one variant or none"
                )
        variants.append(variant)
    return Claims(found["source"], scales, tuple(variants))


def _same_keys(path: Path, place: str, found: Any, expected: tuple[str, ...]) -> None:
    keys = set(found) if isinstance(found, dict) else set()
    if keys != set(expected):
        raise ValueError(
            f"{path}: {place}: expected {', '.join(expected)}; "
            f"missing {sorted(set(expected) - keys)}, unknown {sorted(keys - set(expected))}"
        )
