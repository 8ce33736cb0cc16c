"""Verdicts: whether what the survey says of a variant holds for what was measured."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from advtrain.published.claims import Claims, Quantity, Variant
from advtrain.reporting.statistics import Difference, Estimate

POINT = 0.01
"""Differences up to one point are never called one."""

RULE = (
    "The survey's words order its variants (Low < Medium < High, Moderate < High). Each is "
    "compared with every other of another word at the same budget; a difference counts if it "
    "exceeds the noise: the largest of 1 point, two standard deviations over seeds (where both "
    "have several), and half the 95 % interval of the paired difference. A word does not hold if "
    "one difference goes against it; it holds if none does, and of each other word one variant "
    "differs as it says; else it is not decided. Nor does a word for the gain hold beside no gain: "
    "where the 95 % interval of the variant's own gain over natural training contains 0 or lies "
    "below, and nothing goes against the word, it is not decided. The differences named are those "
    "of the variant minus the other, in points. Variants that collapsed are not compared."
)
"""How a verdict is reached, for the reader of the table."""

NO_GAIN = "No gain over natural beyond the noise"
"""Why a word for the gain is not decided, whatever the comparisons say for it."""

Says = Literal["holds", "does not hold", "not decided"]


@dataclass(frozen=True)
class Comparison:
    """Two variants, measured.

    Attributes:
        other: the name of the other variant.
        word: the survey's for the other.
        claimed: 1 if the variant is to have more than the other, -1 if less.
        measured: how much more it has.
        noise: up to which a difference is none.
    """

    other: str
    word: str
    claimed: int
    measured: float
    noise: float

    @property
    def outcome(self) -> int:
        """1 if it is as claimed, -1 if the other way round, 0 within the noise."""
        # The tolerance keeps a difference of exactly the noise within it.
        if abs(self.measured) <= self.noise + 1e-9:
            return 0
        return self.claimed if self.measured > 0 else -self.claimed


@dataclass(frozen=True)
class Verdict:
    """Whether the survey's word for a variant holds.

    Attributes:
        quantity: what the word is for.
        word: the survey's.
        says: the verdict.
        comparisons: with the variants of another word that were measured.
        absent: the names of those that were not.
        notes: what else it rests on, in words.
    """

    quantity: Quantity
    word: str
    says: Says
    comparisons: tuple[Comparison, ...]
    absent: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def evidence(self, number: Callable[[float], str]) -> str:
        """Say what the verdict rests on, with differences and noise written by `number`."""
        parts = [*self.notes]
        for outcome, text in ((-1, "Against it"), (1, "For it"), (0, "Within the noise")):
            found = [
                f"{one.other} {'+' * (one.measured > 0)}{number(one.measured)} "
                f"(noise {number(one.noise)})"
                for one in self.comparisons
                if one.outcome == outcome
            ]
            if found:
                parts.append(f"{text}: {', '.join(found)}")
        if self.absent:
            parts.append(f"Not compared: {', '.join(self.absent)}")
        return ". ".join(parts)

    def words(self, number: Callable[[float], str]) -> str:
        """Say the verdict and what it rests on."""
        evidence = self.evidence(number)
        return f"{self.quantity} {self.word}: {self.says}" + f". {evidence}" * bool(evidence)


def judge(
    claims: Claims,
    variant: Variant,
    quantity: Quantity,
    more: Callable[[Variant], Difference | None],
    *,
    own: Difference | None = None,
    notes: Sequence[str] = (),
) -> Verdict:
    """Compare a variant with those of another word; `RULE` says how.

    Args:
        claims: the survey's.
        variant: the one that is judged.
        quantity: of which it is judged.
        more: returns how much more of it the variant has than another; None if unknown.
        own: for the gain, the variant's own over natural training; None if unknown.
        notes: what else a reader has to know of the variant, in words.
    """
    said = [*notes]
    comparisons, absent = [], []
    for other in claims.variants:
        claimed = claims.order(quantity, variant, other)
        if claimed:
            found = more(other)
            if found is None:
                absent.append(other.name)
            else:
                comparisons.append(
                    Comparison(other.name, other.word(quantity), claimed, found.mean, noise(found))
                )
    words = {v.word(quantity) for v in claims.variants} - {variant.word(quantity)}
    says: Says = "not decided"
    if any(one.outcome < 0 for one in comparisons):
        says = "does not hold"
    elif quantity == "gain" and own is not None and own.low <= 0:
        said.append(NO_GAIN)
    elif words and {one.word for one in comparisons if one.outcome > 0} == words:
        says = "holds"
    return Verdict(
        quantity, variant.word(quantity), says, tuple(comparisons), tuple(absent), tuple(said)
    )


def noise(found: Difference | Estimate) -> float:
    """Say up to which a difference, or an accuracy's from a number that is claimed, is none."""
    return max(POINT, 2 * (found.spread or 0.0), (found.high - found.low) / 2)
