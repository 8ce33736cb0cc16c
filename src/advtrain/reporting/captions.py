"""What each figure shows, in words: the caption, and the same for those who do not see it."""

from collections.abc import Iterable
from dataclasses import dataclass

from advtrain.reporting import wording
from advtrain.reporting.certified import CertifiedRow
from advtrain.reporting.measure import Measured, Unit
from advtrain.reporting.results import ResultRow
from advtrain.reporting.shown import Shown

MARKED = ("collapsed", "catastrophic overfitting", "unsound")
"""The flags that a figure shows: such a row is not what its method can do."""

DAGGER = "†"

Budget = tuple[str, float]
"""The norm and the epsilon of an evaluation."""


@dataclass(frozen=True)
class Caption:
    """A figure in words.

    Attributes:
        text: what it shows and how to read it.
        alt: the same with the main numbers.
        empty: there is nothing to draw; the figure is this text.
    """

    text: str
    alt: str
    empty: bool = False

    @classmethod
    def of_nothing(cls, text: str) -> "Caption":
        """Say why there is nothing to draw."""
        return cls(text, text, empty=True)


def unit_text(unit: Unit) -> str:
    """Name a unit as a figure does: `trades, ε = 0.2`."""
    if unit.epsilon is None:
        return unit.method
    return f"{unit.method}, ε = {wording.budget(unit.epsilon)}"


def cell_text(unit: Unit, cell: Measured) -> str:
    """Name a unit of which one cell is shown, and say how that one ended if it did not finish."""
    return unit_text(unit) + ("" if cell.status == "finished" else f", {cell.status}")


def budget_text(budget: Budget) -> str:
    """Write a budget as the head of a panel: `linf, ε = 8/255`."""
    return f"{budget[0]}, ε = {wording.budget(budget[1])}"


def flag_words(rows: Iterable[ResultRow | CertifiedRow], mark: str = DAGGER) -> str:
    """Say what is wrong with the rows that a figure marks; nothing if it marks none."""
    said = [
        f"{unit_text(row.unit)}, at {wording.budget(row.epsilon)}: "
        f"{flag.words(wording.percent_words)}"
        for row in rows
        for flag in row.flags
        if flag.kind in MARKED
    ]
    return f" {mark} {'; '.join(dict.fromkeys(said))}." if said else ""


def flagged(row: ResultRow | CertifiedRow) -> bool:
    """Say whether a row carries a flag that a figure shows."""
    return any(flag.kind in MARKED for flag in row.flags)


def weights_words(shown: Shown) -> str:
    """Say which weights are shown, where the study has others too."""
    return " Shown are the weights of the last epoch." if shown.several_weights else ""
