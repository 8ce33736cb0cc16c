"""Claims: what sources say of orders, ratios and round numbers, and what was measured here."""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa

from advtrain.published.protocols import Departure, training_here
from advtrain.published.registry import Range, Training
from advtrain.reporting.budgets import at
from advtrain.reporting.columns import flag_texts, share_text, texts_column
from advtrain.reporting.flags import Flag, overfitting, step_gap
from advtrain.reporting.measure import Unit, robust_runs
from advtrain.reporting.results import ResultRow
from advtrain.reporting.statistics import (
    Difference,
    Estimate,
    Run,
    difference,
    estimate,
    mean_and_spread,
)
from advtrain.reporting.study import StudyInfo
from advtrain.reporting.verdicts import noise
from advtrain.reporting.wording import percent_words
from advtrain.results.names import epsilon_text

RATIO = 0.1
"""A ratio may lie by this share outside of what is claimed: claims are round numbers."""

LEARNED = ("averaging", "cutout", "extra_fraction", "label_smoothing", "policy")
"""What a recipe can add that changes what is learned, and not only how it is computed."""

EVERY_IMAGE = ("jax_tutorial/cost",)
"""Claims, by `work/name`, of a method that attacks every image and learns from the clean one too.
The mixed one here attacks a share of a minibatch, and learns from those images as attacked alone:
it is another protocol."""

COUNTED = "counted, not timed"
"""What every ratio of costs is."""

GROWTH = 3
"""How many numbers of replays show whether a growth ends."""

RULE = (
    "An accuracy, or a difference of two, agrees with a claimed number if it lies within the range "
    "or outside of it by no more than the noise: the largest of 1 point, two standard deviations "
    "over seeds and half the 95 % interval. A claim that one is higher holds, or does not, where "
    "the paired difference exceeds the noise; else the two cannot be told apart. A claim about a "
    "data set is shown for that data set, and not comparable where the study has fewer images, "
    "another network or another budget than it names; where the attack that it names was not run, "
    "it is not measured. Costs are forward and backward passes for each weight step over those of "
    "natural training, and agree within 10 %: they follow from the method and its steps, and not "
    "from a clock; the seconds are in the table of costs. "
    "Growth with the replays holds if the best of them exceeds the fewest beyond the noise and the "
    "last step does not grow beyond it. Overfitting to one step, which is claimed to happen, holds "
    "if a training of the method does so: the accuracy under one step exceeds that under several "
    "by more than 20 points and is more than twice that, on the same examples. Of a training that "
    "collapsed, nothing is concluded. A method speaks for a claim if its recipe adds nothing to "
    "what is learned but what the claim names."
)
"""How a verdict is reached, for the reader of the table."""

Says = Literal[
    "holds",
    "does not hold",
    "cannot be told apart",
    "not seen here",
    "not comparable",
    "not measured here",
]


@dataclass(frozen=True)
class Evidence:
    """What was measured for a claim.

    Attributes:
        value: a share, a difference of shares or a ratio.
        noise: up to which it may lie outside of the claim; of a ratio, as a share of the bound;
            None where the verdict does not rest on one.
        text: what else there is to know, with a place `{name}` for each of `values`.
        values: shares, and texts.
        says: the verdict where the numbers alone do not give it.
    """

    value: float
    noise: float | None
    text: str = ""
    values: Mapping[str, float | str] = field(default_factory=dict)
    says: Says | None = None

    def words(self, number: Callable[[float], str]) -> str:
        """Say it, with shares written by `number`."""
        return self.text.format(
            **{
                name: value if isinstance(value, str) else number(value)
                for name, value in self.values.items()
            }
        )


@dataclass(frozen=True)
class ClaimRow:
    """One claim, and what one method shows of it.

    Attributes:
        claim: as it was published.
        units: the cells that it is about: one unit, or one for each number of replays.
        epsilon: the evaluation budget; None where the claim has nothing to do with one.
        weights: that were evaluated.
        against: the unit that it is compared with.
        evidence: what was measured; None if it was not.
        departures: in what the study differs from what the claim is about.
        flags: of a training that collapsed.
    """

    claim: Range
    units: tuple[Unit, ...]
    epsilon: float | None
    weights: str
    against: Unit | None
    evidence: Evidence | None
    departures: tuple[Departure, ...]
    flags: tuple[Flag, ...]

    @property
    def says(self) -> Says:
        """The verdict; `RULE` says how."""
        if self.departures:
            return "not comparable"
        if self.evidence is None or self.flags:
            return "not measured here"
        return self.evidence.says or judge(self.claim, self.evidence)


def judge(claim: Range, found: Evidence) -> Says:
    """Compare a number with the range that is claimed."""
    low, high = claim.low, claim.high
    within = (found.noise or 0.0) + 1e-9  # the tolerance keeps a number at exactly the noise in it
    shares = claim.quantity != "cost_ratio"
    above = low is None or found.value >= low - within * (1 if shares else low)
    below = high is None or found.value <= high + within * (1 if shares else high)
    if (low, high) in ((0, None), (None, 0)):  # which of two is higher
        if abs(found.value) <= within:
            return "cannot be told apart"
        return "holds" if (found.value > 0) == (low == 0) else "does not hold"
    return "holds" if above and below else "does not hold"


def claim_rows(
    results: Sequence[ResultRow], cells: pa.Table, info: StudyInfo, claims: Sequence[Range]
) -> list[ClaimRow]:
    """Compute what a study shows of the claims that it has the methods for.

    Args:
        results: the rows of the results.
        cells: what the cells say of themselves, as collected.
        info: the study.
        claims: of the registry.

    Returns:
        By claim, in the order of the registry, then in the order of the results.
    """
    said = {row["cell"]: row for row in cells.to_pylist()}
    rows = [row for row in results if row.own_budget and row.cells]
    trained = {row.unit.name: _training(row.unit, said, info) for row in rows}
    return [found for claim in claims for found in _Claim(claim, rows, trained, said, info).found()]


class _Claim:
    """One claim among the rows of a study."""

    def __init__(
        self,
        claim: Range,
        rows: Sequence[ResultRow],
        trained: Mapping[str, Training],
        said: Mapping[str, Mapping[str, Any]],
        info: StudyInfo,
    ) -> None:
        self.claim = claim
        self.trained = trained
        self.said = said
        self.info = info
        self.rows = [row for row in rows if row.weights == (claim.weights or row.unit.weights[0])]

    def found(self) -> Iterator[ClaimRow]:
        subjects = [row for row in self.rows if self.speaks(row)]
        if self.claim.quantity == "robust_accuracy_growth":
            yield from self.growth(subjects)
            return
        seen: set[tuple[object, ...]] = set()
        for row in subjects:
            against = self.against(row)
            evidence = self.evidence(row, against)
            place = self.place(row, evidence)
            if place not in seen and (against or not self.claim.references):
                seen.add(place)
                yield self.row((row,), against, evidence)

    def place(self, row: ResultRow, evidence: Evidence | None) -> tuple[object, ...]:
        """Say what makes a row one of its own: what does not depend on the budget is shown once."""
        if self.claim.quantity == "clean_accuracy":
            return (row.unit.name,)
        if self.claim.quantity == "cost_ratio":
            return row.unit.method, evidence and round(evidence.value, 9)
        return row.unit.name, row.norm, row.epsilon

    def row(
        self, rows: Sequence[ResultRow], against: ResultRow | None, evidence: Evidence | None
    ) -> ClaimRow:
        """Put one together; a training that collapsed is no evidence, unless of that."""
        last = rows[-1]
        every = (*rows, against) if against else rows
        apart = self.claim.quantity in ("cost_ratio", "step_gap")
        flags = [
            flag for one in every for flag in one.flags if flag.kind == "collapsed" and not apart
        ]
        return ClaimRow(
            claim=self.claim,
            units=tuple(one.unit for one in rows),
            epsilon=None
            if self.claim.quantity in ("clean_accuracy", "cost_ratio")
            else last.epsilon,
            weights=last.weights,
            against=against.unit if against else None,
            evidence=evidence,
            departures=self.departures(last),
            flags=tuple(flags),
        )

    def speaks(self, row: ResultRow) -> bool:
        """Say whether a row is of a method that the claim is about, on its data set."""
        claim, training = self.claim, self.trained[row.unit.name]
        data = (training.dataset or "").partition(",")[0]
        wanted = [claim.addition] if claim.addition else []
        return (
            training.method in claim.methods
            and training.update == claim.update
            and claim.dataset in (None, data)
            and (training.steps or 0) >= (claim.least_steps or 0)
            and not any(self.info["method_upstream"].get(row.unit.method, {}).values())
            and self.added(row.unit.method) == wanted
        )

    def added(self, method: str) -> list[str]:
        """List what a recipe adds that changes what is learned."""
        names = [one.partition(" ")[0] for one in self.info["method_additions"].get(method, ())]
        return [name for name in names if name in LEARNED]

    def against(self, row: ResultRow) -> ResultRow | None:
        """Return the first row of the claim's references at the same budget."""
        for other in self.rows:
            training = self.trained[other.unit.name]
            if (
                training.method in self.claim.references
                and training.update == "plain"
                and not self.added(other.unit.method)
                and (other.norm, other.epsilon, other.weights)
                == (row.norm, row.epsilon, row.weights)
            ):
                return other
        return None

    def departures(self, row: ResultRow) -> tuple[Departure, ...]:
        """List in what a row differs from what the claim is about."""
        training = self.trained[row.unit.name]
        pairs: list[tuple[str, str | float | None, str | float | None]] = [
            ("dataset", self.claim.dataset, training.dataset),
            ("model", self.claim.model, training.model),
            ("norm", self.claim.norm, row.norm),
        ]
        found = [
            Departure(name, str(theirs), str(ours))
            for name, theirs, ours in pairs
            if theirs not in (None, ours)
        ]
        budget = self.claim.epsilon
        if budget is not None and not math.isclose(budget, row.epsilon or 0.0, rel_tol=1e-9):
            ours = epsilon_text(row.epsilon or 0.0)
            found.append(Departure("epsilon", epsilon_text(budget), ours))
        if f"{self.claim.work}/{self.claim.name}" in EVERY_IMAGE:
            attacked = percent_words(1 - training.parameters.get("clean_fraction", 0.0))
            ours = f"{attacked} of them, in place of the clean ones"
            found.append(Departure("attacked images", "all, beside the clean ones", ours))
        return tuple(found)

    def evidence(self, row: ResultRow, against: ResultRow | None) -> Evidence | None:
        """Measure what the claim is of; None if that is not known."""
        quantity = self.claim.quantity
        if quantity == "cost_ratio":
            return self.cost(row, against)
        if quantity == "step_gap":
            return self.overfits(row)
        if quantity == "clean_accuracy":
            return _mean(row.clean)
        if quantity == "robust_accuracy":
            return _mean(estimate(self.runs(row)))
        if quantity == "seed_deviation":
            return _deviation(estimate(self.runs(row)))
        if against is None:
            return None
        if quantity == "clean_accuracy_drop":
            return _mean(difference(against.clean_runs, row.clean_runs))
        ours, theirs = self.runs(row), self.runs(against)
        if quantity == "robust_accuracy_gain":
            return _mean(difference(ours, theirs))
        return _mean(difference(theirs, ours))

    def runs(self, row: ResultRow) -> tuple[Run, ...]:
        """Return who withstood the claim's attack, or the worst case of all."""
        if self.claim.attack is None:
            return row.worst_runs
        if row.norm is None or row.epsilon is None:
            return ()
        there = [
            next((one for one in found if one.module == self.claim.attack), None)
            for found in (at(cell, (row.norm, row.epsilon), row.weights) for cell in row.cells)
        ]
        return robust_runs(one for one in there if one)

    def cost(self, row: ResultRow, against: ResultRow | None) -> Evidence | None:
        """Compare the passes of two trainings, for each weight step."""
        ours, theirs = (self.passes(one) for one in (row, against))
        if ours is None or theirs is None:
            return None
        whole, each = (ours[k] / theirs[k] for k in (0, 1))
        text = "" if math.isclose(whole, each) else "; {whole} × for the whole training"
        return Evidence(each, RATIO, COUNTED + text, {"whole": f"{whole:.1f}"})

    def passes(self, row: ResultRow | None) -> tuple[float, float] | None:
        """Return the passes per training example: of the whole training, of each weight step."""
        if row is None or row.forward is None or row.backward is None:
            return None
        replays = self.trained[row.unit.name].parameters.get("replays", 1)
        epochs = [cell.epochs for cell in row.cells if cell.epochs]
        if not epochs:
            return None
        whole = row.forward + row.backward
        return whole, whole / (mean_and_spread(epochs)[0] * replays)

    def overfits(self, row: ResultRow) -> Evidence | None:
        """Count the trainings that are robust to one step and not to several."""
        if row.norm is None or row.epsilon is None:
            return None
        found = [at(cell, (row.norm, row.epsilon), row.weights) for cell in row.cells]
        gaps = [gap for one in found if (gap := step_gap(one))]
        if not gaps:
            return None
        count = sum(overfitting(one) is not None for one in found)
        fewest = min(gaps, key=lambda gap: gap.examples)
        return Evidence(
            mean_and_spread([gap.gap for gap in gaps])[0],
            None,
            f"{count} of {len(gaps)} trainings overfitted to one step" + fewest.on,
            {"examples": str(fewest.examples)},
            says="holds" if count else "not seen here",
        )

    def growth(self, subjects: Sequence[ResultRow]) -> Iterator[ClaimRow]:
        """Follow the robust accuracy over the numbers of replays, at each budget."""
        budgets = dict.fromkeys((row.norm, row.epsilon) for row in subjects)
        for budget in budgets:
            there = {
                self.trained[row.unit.name].parameters["replays"]: row
                for row in subjects
                if (row.norm, row.epsilon) == budget
            }
            if len(there) >= GROWTH:
                ordered = [there[replays] for replays in sorted(there)]
                yield self.row(ordered, None, _growth(ordered, sorted(there)))


def _training(unit: Unit, said: Mapping[str, Mapping[str, Any]], info: StudyInfo) -> Training:
    row = said[unit.cells[0].cell]
    return training_here(json.loads(row["params"]), info["data_set"], row["examples"])


def _mean(found: Estimate | Difference | None) -> Evidence | None:
    return Evidence(found.mean, noise(found)) if found else None


def _deviation(found: Estimate | None) -> Evidence | None:
    """Give a standard deviation with twice its own, which is large for few seeds."""
    if found is None or found.spread is None:
        return None
    return Evidence(found.spread, 2 * found.spread / math.sqrt(2 * (found.seeds - 1)))


def _growth(rows: Sequence[ResultRow], replays: Sequence[int]) -> Evidence | None:
    """Say whether accuracy grows with the replays, and whether the growth ends."""
    accuracies = [row.worst for row in rows]
    best = max(rows, key=lambda row: row.worst.mean if row.worst else 0.0)
    whole = difference(best.worst_runs, rows[0].worst_runs)
    last = difference(rows[-1].worst_runs, rows[-2].worst_runs)
    if whole is None or last is None or None in accuracies:
        return None
    says: Says = "cannot be told apart"
    if whole.mean > noise(whole):
        says = "holds" if last.mean <= noise(last) else "does not hold"
    elif best is rows[0]:
        says = "does not hold"
    text = ", ".join(f"{{m{m}}} with m = {m}" for m in replays)
    values = {f"m{m}": one.mean for m, one in zip(replays, accuracies, strict=True) if one}
    return Evidence(whole.mean, noise(whole), text, values, says)


def claims_data(rows: Sequence[ClaimRow]) -> pa.Table:
    """Write the rows as columns: accuracies and differences are shares."""
    found = [row.evidence for row in rows]
    return pa.table(
        {
            "work": pa.array([row.claim.work for row in rows], pa.string()),
            "claim": pa.array([row.claim.name for row in rows], pa.string()),
            "quantity": pa.array([row.claim.quantity for row in rows], pa.string()),
            "quote": pa.array([row.claim.quote for row in rows], pa.string()),
            "source": pa.array([row.claim.source for row in rows], pa.string()),
            "grade": pa.array([row.claim.grade for row in rows], pa.string()),
            "methods": texts_column([[unit.method for unit in row.units] for row in rows]),
            "training_epsilon": pa.array([row.units[-1].epsilon for row in rows], pa.float64()),
            "epsilon": pa.array([row.epsilon for row in rows], pa.float64()),
            "weights": pa.array([row.weights for row in rows], pa.string()),
            "against": pa.array(
                [row.against.method if row.against else None for row in rows], pa.string()
            ),
            "low": pa.array([row.claim.low for row in rows], pa.float64()),
            "high": pa.array([row.claim.high for row in rows], pa.float64()),
            "measured": pa.array([one.value if one else None for one in found], pa.float64()),
            "noise": pa.array([one.noise if one else None for one in found], pa.float64()),
            "evidence": pa.array(
                [one.words(share_text) if one else None for one in found], pa.string()
            ),
            "verdict": pa.array([row.says for row in rows], pa.string()),
            "differences": texts_column([[str(one) for one in row.departures] for row in rows]),
            "flags": texts_column([flag_texts(row.flags) for row in rows]),
        }
    )
