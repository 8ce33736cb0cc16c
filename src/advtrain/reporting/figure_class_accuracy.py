"""Accuracy by class under attack, and what the classes are taken for."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from advtrain.reporting import wording
from advtrain.reporting.budgets import at
from advtrain.reporting.captions import (
    DAGGER,
    Budget,
    Caption,
    budget_text,
    flag_words,
    flagged,
    unit_text,
    weights_words,
)
from advtrain.reporting.panels import WIDTHS, heat_map
from advtrain.reporting.results import ResultRow
from advtrain.reporting.shown import Shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_CLASSES = 20
"""How many classes can be read beside one another."""

MOST_ROWS = 30
"""How many methods can be read below one another."""


@dataclass(frozen=True)
class Confusion:
    """What one method takes the classes for.

    Attributes:
        row: of the results.
        attack: that it is attacked by: the one that leaves least.
        shares: (classes, classes + 1) of the examples of a class, the share that is predicted as
            each class, and in the last column as one that is not shown. NaN without examples.
    """

    row: ResultRow
    attack: str
    shares: NDArray[np.float64]


@dataclass(frozen=True)
class Classes:
    """The accuracy by class at one budget.

    Attributes:
        norm: of the attacks.
        epsilon: their budget.
        labels: the classes that are shown, ascending.
        counts: how many examples each has.
        all: how many classes have examples.
        rows: the methods, those trained at the budget and those without one.
        shares: (methods, classes) worst-case accuracies, the mean over seeds.
        confusions: of the method that withstood most and of the one that withstood least, of those
            trained at the budget.
    """

    norm: str
    epsilon: float
    labels: NDArray[np.int64]
    counts: NDArray[np.int64]
    all: int
    rows: tuple[ResultRow, ...]
    shares: NDArray[np.float64]
    confusions: tuple[Confusion, ...]

    @property
    def other(self) -> bool:
        """Some examples are taken for what is not shown."""
        return any(np.nansum(one.shares[:, -1]) > 0 for one in self.confusions)


def caption(shown: Shown) -> Caption:
    """Say what the figure shows, and its main numbers."""
    found = _classes(shown)
    if found is None:
        return Caption.of_nothing("No cell of this study has a worst-case accuracy.")
    few, many = int(found.counts.min()), int(found.counts.max())
    of = f"{few}" if few == many else f"{few} to {many}"
    some = ""
    if found.all > len(found.labels):
        some = (
            f" Of the {found.all} classes, the {len(found.labels)} with the lowest mean accuracy "
            f"are shown."
        )
    if found.other:
        some += " “Other” is a class that is not shown, or none."
    if len(found.rows) > MOST_ROWS:
        some += f" Of the {len(found.rows)} methods, the first {MOST_ROWS} are shown."
    said = [
        f"{unit_text(row.unit)}: lowest {wording.percent_words(float(np.nanmin(shares)))} (class "
        f"{found.labels[int(np.nanargmin(shares))]}), highest "
        f"{wording.percent_words(float(np.nanmax(shares)))} (class "
        f"{found.labels[int(np.nanargmax(shares))]})."
        for row, shares in zip(found.rows, found.shares, strict=True)
        if np.isfinite(shares).any()
    ]
    best, worst = found.confusions[0], found.confusions[-1]
    which = f"of the method that withstood most ({_title(best)})"
    if worst is not best:
        which = f"on the left {which}, on the right of the one that withstood least "
        which += f"({_title(worst)}), of those trained at this budget"
    return Caption(
        f"Above, the accuracy of each class in the worst case over all attacks "
        f"({budget_text((found.norm, found.epsilon))}; {of} examples of a class), in percent, the "
        f"mean over seeds. Below, what the images of each class (rows) are taken for (columns) "
        f"under the attack that leaves least, {which}. Classes are numbered as in the data set."
        f"{_ends_words(found)} {_confused_words(found)}{some}"
        + flag_words(found.rows)
        + weights_words(shown),
        f"Tables of shares in colours. {' '.join(said)} {_confused_words(found)}",
    )


def draw(shown: Shown) -> "Figure":
    """Draw the figure."""
    from matplotlib.figure import Figure

    found = _classes(shown)
    if found is None:
        raise ValueError("no cell has a worst-case accuracy; draw the caption instead")
    rows, count = found.rows[:MOST_ROWS], len(found.labels)
    names = [str(label) for label in found.labels.tolist()]
    high, low = 0.7 + 0.19 * len(rows), 0.9 + min(2.7, 0.26 * count)
    figure = Figure(figsize=(WIDTHS[3], high + low), layout="constrained")
    grid = figure.add_gridspec(2, 2, height_ratios=(high, low))
    above = figure.add_subplot(grid[0, :])
    heat_map(
        *(above, found.shares[: len(rows)], [_name(row) for row in rows], names),
        numbers=True,
    )
    above.set_title(f"worst-case accuracy by class, %: {budget_text((found.norm, found.epsilon))}")
    other = ["other"] if found.other else []
    for place, one in enumerate(found.confusions):
        panel = figure.add_subplot(grid[1, place])
        shares = one.shares if other else one.shares[:, :-1]
        # Nobody is an empty square.
        shares = np.where(shares > 0, shares, np.nan)
        heat_map(panel, shares, names, [*names, *other], numbers=count <= 12)
        panel.set_title(_title(one))
        panel.set_xlabel("predicted under attack")
        panel.set_ylabel("class")
        if count > 12:
            panel.tick_params(axis="both", labelsize=6)
            panel.tick_params(axis="x", labelrotation=90)
    return figure


def _classes(shown: Shown) -> Classes | None:
    budget = _budget(shown)
    if budget is None:
        return None
    rows = tuple(r for r in shown.rows if (r.norm, r.epsilon) == budget)
    own = [place for place, row in enumerate(rows) if row.unit.epsilon is not None]
    own = own or list(range(len(rows)))
    labelled = _labels(shown)
    labels = np.unique(labelled[1])
    shares = np.stack([_shares(row, labelled, labels) for row in rows])
    seen = np.isfinite(shares[own]).any(0)
    means = np.nanmean(shares[own][:, seen], axis=0)
    hardest = np.argsort(means, kind="stable")[:MOST_CLASSES]
    chosen = np.sort(np.flatnonzero(seen)[hardest])
    met = np.unique(np.concatenate([run.example for row in rows for run in row.worst_runs]))
    counts = np.bincount(np.searchsorted(labels, _label_of(met, labelled)), minlength=len(labels))
    order = sorted(own, key=lambda place: -(w.mean if (w := rows[place].worst) else 0.0))
    ends = dict.fromkeys((order[0], order[-1]))
    return Classes(
        *budget,
        labels=labels[chosen],
        counts=counts[chosen],
        all=int(seen.sum()),
        rows=rows,
        shares=shares[:, chosen],
        confusions=tuple(_confusion(shown, rows[place], labels[chosen]) for place in ends),
    )


def _budget(shown: Shown) -> Budget | None:
    """Choose the largest training budget; where nothing was trained at one, the smallest."""
    trained = [row for row in shown.rows if row.unit.epsilon is not None]
    found = sorted(
        {(row.norm or "", row.epsilon or 0.0) for row in trained or shown.rows},
        key=lambda one: one[1],
    )
    return (found[-1] if trained else found[0]) if found else None


def _labels(shown: Shown) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the ids of the attacked examples, ascending, and the label of each."""
    rows = shown.collected.outcomes
    ids, first = np.unique(rows["example"].to_numpy(), return_index=True)
    return ids, rows["label"].to_numpy()[first].astype(np.int64)


def _label_of(
    examples: NDArray[np.int64], labelled: tuple[NDArray[np.int64], NDArray[np.int64]]
) -> NDArray[np.int64]:
    ids, labels = labelled
    found: NDArray[np.int64] = labels[np.searchsorted(ids, examples)]
    return found


def _shares(
    row: ResultRow,
    labelled: tuple[NDArray[np.int64], NDArray[np.int64]],
    labels: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Return the worst-case accuracy of each class, the mean over seeds."""
    of_seeds = []
    for run in row.worst_runs:
        place = np.searchsorted(labels, _label_of(run.example, labelled))
        right = np.bincount(place, weights=run.correct, minlength=len(labels))
        total = np.bincount(place, minlength=len(labels))
        of_seeds.append(np.where(total, right / np.maximum(total, 1), np.nan))
    return np.asarray(np.mean(of_seeds, axis=0))


def _confusion(shown: Shown, row: ResultRow, labels: NDArray[np.int64]) -> Confusion:
    """Count what a method's cells predict under the attack that leaves least."""
    left = {name: found.mean for name, found in row.robust.items() if found}
    attack = min(left, key=lambda name: left[name])
    threat = (row.norm or "", row.epsilon or 0.0)
    names = {
        one.name
        for cell in row.cells
        for one in at(cell, threat, row.weights)
        if one.attack == attack
    }
    rows = shown.collected.outcomes
    there = _among(rows["cell"], {cell.cell for cell in row.cells}) & _among(rows["attack"], names)
    true, said = (
        _place(rows[name].to_numpy()[there].astype(np.int64), labels)
        for name in ("label", "adversarial_prediction")
    )
    counts = np.zeros((len(labels), len(labels) + 1))
    seen = true < len(labels)
    np.add.at(counts, (true[seen], said[seen]), 1)
    total = counts.sum(1, keepdims=True)
    return Confusion(row, attack, np.where(total, counts / np.maximum(total, 1), np.nan))


def _among(column: pa.ChunkedArray, texts: set[str]) -> NDArray[np.bool_]:
    """Say which entries of a column of coded texts are among some texts."""
    coded = column.combine_chunks()
    codes = [code for code, text in enumerate(coded.dictionary.to_pylist()) if text in texts]
    return np.isin(coded.indices.to_numpy(), codes)


def _place(values: NDArray[np.int64], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the place of each value among the labels; one past the end for others."""
    place = np.searchsorted(labels, values)
    known = labels[np.minimum(place, len(labels) - 1)] == values
    return np.asarray(np.where(known, place, len(labels)))


def _name(row: ResultRow) -> str:
    return unit_text(row.unit) + DAGGER * flagged(row)


def _title(one: Confusion) -> str:
    return f"{unit_text(one.row.unit)}, under {one.attack}"


def _ends_words(found: Classes) -> str:
    """Name the classes that are hardest and easiest to defend, over the methods with a budget."""
    own = [place for place, row in enumerate(found.rows) if row.unit.epsilon is not None]
    means = np.nanmean(found.shares[own] if own else found.shares, axis=0)
    low, high = int(np.argmin(means)), int(np.argmax(means))
    over = " of the methods trained at this budget" if own else ""
    return (
        f" The mean{over} is lowest for class {found.labels[low]} "
        f"({wording.percent_words(float(means[low]))}) and highest for class {found.labels[high]} "
        f"({wording.percent_words(float(means[high]))})."
    )


def _confused_words(found: Classes) -> str:
    """Name what is taken for what most often."""
    said = []
    for one in found.confusions:
        wrong = np.nan_to_num(one.shares[:, :-1]) * (1 - np.eye(len(found.labels)))
        true, taken = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
        if wrong[true, taken] > 0:
            said.append(
                f"{_title(one)}, takes {wording.percent_words(float(wrong[true, taken]))} of class "
                f"{found.labels[true]} for {found.labels[taken]}."
            )
    return " ".join(said)
