"""Audits: whether a cell's robust accuracies can be believed, rule by rule.

A robust accuracy is what the attacks have left, so a weak attack, or a model that hides its
gradients from a strong one, looks like a robust model. Athalye, Carlini and Wagner (2018, section
3.1), Carlini et al. (2019) and Croce and Hein (2020) name the signs of it. Each audit looks for one
of them in a cell's rows, and says with which numbers it passes, fails, or does not apply.

Attacks are compared on the same examples, norm, epsilon and weights. A comparison counts against a
cell beyond noise: if the lower end of the 95 % interval of the paired difference exceeds
`TOLERANCE`. So does a share of single examples, by the lower end of its 95 % Wilson interval. What
holds exactly (`finite`, `restarts`, `claims`, `soundness` ...) is counted.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from advtrain.reporting.budgets import last_and_best
from advtrain.reporting.cases import (
    TRANSFERRED,
    Case,
    Kind,
    cases,
    kind,
    ladders,
    white_box,
    with_square,
)
from advtrain.reporting.columns import share_text
from advtrain.reporting.findings import Finding, Left, at_most, left, stronger, worst
from advtrain.reporting.flags import ROBUST_OVERFITTING_GAP, attacks_within, refuted, step_gap
from advtrain.reporting.measure import Evaluated, Measured, Probe, Unit
from advtrain.reporting.statistics import Correct, Run, difference
from advtrain.reporting.study import StudyInfo
from advtrain.reporting.wording import percent_words

NOTHING_LEFT = 0.02
"""What may stay right at a linf budget of 1, where every image is allowed. On the digits and
CIFAR-10 networks of the bundled studies, 20 steps of PGD leave nothing from 0.5 on."""

RARE = 0.01
"""Of how many examples the gradient may be missing, or change when it is computed again."""

MAJORITY = 0.5
"""The share of examples that speaks for the model. Of networks that were trained without attacks on
easy images, a quarter of the clean losses round to 0, and attacks break them all the same; of a
network that was distilled to hide its gradients, nearly all do."""

ROUNDING = 2.0**-24
"""The distance from 1 to the next smaller float32: where the softmax of the label is closer to 1 it
is rounded to 1, the loss to 0, and the gradient loses the part of that class."""

LOGIT_NOISE, COSINE_NOISE = 1e-3, 0.99
"""What rounding can do to a second evaluation: float32 keeps logits of up to 100 to five digits
behind the point. A randomised defence moves them by tenths."""

STILL_RISING = 0.05
"""The share of an ascent's gain that may come in the last quarter of its steps. A steady climb has
0.25 there; one that approaches its end exponentially has 0.05 with 4 % of the way to go. Of the
digits and CIFAR-10 networks of the bundled studies, 20 steps of PGD have at most 0.02; 10 steps
have up to 0.09, and leave up to 2 points more than 20 do."""

FEWEST = 10
"""How many examples have to stay robust for their ascents to be judged."""

UNCONFIRMED = 0.001
"""The share of an attack's claims that may not be confirmed, ties of two logits that another batch
size rounds otherwise; one example is always allowed."""


class AuditError(ValueError):
    """Audits that failed in a study that is strict; one line for each."""


def budget(case: Case) -> Finding:
    """The accuracy falls as epsilon grows, to nothing where every image is allowed.

    Every two budgets of the curve's attack are compared, and each with no attack. At a linf budget
    of 1 the threat set is the whole box and holds images of the other classes: what stays right is
    not robust, its gradients have hidden it. That is so for every model that is not constant, and a
    constant one has collapsed.
    """
    lines: dict[tuple[str, str], list[Evaluated]] = {}
    for one in (one for attacks in case.balls for one in attacks if one.attack == case.curve):
        lines.setdefault((one.norm, one.weights), []).append(one)
    found: list[Finding | None] = []
    for line in lines.values():
        line.sort(key=lambda one: one.epsilon or 0.0)
        points = [Left("no attack", Run(line[0].example, line[0].clean))]
        points += [Left(one.name, Run(one.example, one.robust)) for one in line]
        found += [stronger(more, less) for less, more in itertools.combinations(points, 2)]
        found += [
            at_most(NOTHING_LEFT, one.robust, f"{one.name} leaves {{share}}, all being allowed")
            for one in line
            if one.norm == "linf" and (one.epsilon or 0.0) >= 1
        ]
    return worst(found, case.without("the curve's attack was not run"))


def finite(case: Case) -> Finding:
    """The logits are numbers: of an image whose logits are not, every attack makes an error."""
    probe = case.cell.probe
    if probe is None:
        return Finding("the gradients were not probed")
    lost = int(np.sum(~np.isfinite(probe.loss)))
    text = "the loss of {lost} of {count} clean images is not a finite number"
    return Finding(text, {"lost": str(lost), "count": str(len(probe.loss))}, lost)


def gradients_used(case: Case) -> Finding:
    """At each budget of the results, an attack with gradients was run."""
    met = [
        attacks
        for attacks in case.balls
        if attacks and (attacks[0].norm, attacks[0].epsilon) in case.threats
    ]
    without = [attacks for attacks in met if all(kind(one) != "white box" for one in attacks)]
    if not met:
        return case.without("no attack was run within a budget")
    text = "{without} of {count} budgets and weights met no attack with gradients"
    values = {"without": str(len(without)), "count": str(len(met))}
    return Finding(text, values, len(without))


def steps(case: Case) -> Finding:
    """More steps, or queries, never help the defender: attacks that differ in them alone.

    The steps of a transferred attack are on another model, and may serve that one alone.
    """
    pairs = [pair for name in ("steps", "queries") for pair in ladders(case, name)]
    found = [stronger(left(more), left(less)) for less, more in pairs if less.module != TRANSFERRED]
    return worst(found, case.without("no two attacks differ in their steps alone"))


def restarts(case: Case) -> Finding:
    """More restarts never help the defender: attacks that differ in them alone.

    The k-th start of an example is the same whatever their number, so that this holds example by
    example. An image that the second look took back does not count.
    """
    found = []
    for less, more in ladders(case, "restarts"):
        common, ours, theirs = np.intersect1d(more.example, less.example, return_indices=True)
        kept = more.clean & more.robust & np.isin(more.claim, ("none", "confirmed"))
        lost = int(np.sum(kept[ours] & ~(less.clean & less.robust)[theirs]))
        text = "{lost} of {common} examples withstand {more} and not {less}"
        values = {"lost": str(lost), "common": str(len(common))}
        found.append(Finding(text, {**values, "more": more.name, "less": less.name}, lost))
    return worst(found, case.without("no two attacks differ in their restarts alone"))


def iterative(case: Case) -> Finding:
    """The strongest iterative attack is at least as strong as the strongest single-step attack."""
    found = []
    for attacks in case.balls:
        white = [one for one in attacks if kind(one) == "white box"]
        single = [left(one) for one in white if one.backwards == 1]
        several = [left(one) for one in white if one.backwards > 1]
        if single and several:
            strongest = [min(some, key=lambda one: one.accuracy) for some in (several, single)]
            found.append(stronger(*strongest))
    return worst(found, case.without("no single-step attack beside an iterative one"))


def black_box(case: Case) -> Finding:
    """An attack by queries alone does not beat those with gradients.

    It is compared with the worst case over them, to which AutoAttack belongs without its last
    stage, Square; and that worst case with what Square leaves of it.
    """
    found = _against_white_box(case, "black box")
    for attacks in case.balls:
        both = with_square(attacks)
        white = white_box(attacks) if both else None
        if white and both:
            found.append(stronger(white, both))
    return worst(found, case.without("no attack by queries alone beside one with gradients"))


def random_noise(case: Case) -> Finding:
    """Random noise within the budget does not beat the attacks with gradients."""
    found = _against_white_box(case, "random noise")
    return worst(found, case.without("no random noise beside an attack with gradients"))


def transfer(case: Case) -> Finding:
    """Images crafted on another model do not beat the attacks with gradients.

    An attack that never saw the model's gradients wins where these mislead.
    """
    found = _against_white_box(case, "transfer")
    return worst(found, case.without("no transferred attack beside one with gradients"))


def gradients_zero(case: Case) -> Finding:
    """The input gradients are there.

    An example has none if neither cross-entropy nor margin have a gradient longer than 0 (a
    rounding, or another step without a derivative). Of the others, at least half of the entries
    differ from 0, or most pixels are hidden from the attack.
    """
    if case.probe is None:
        return case.unprobed()
    probe = case.probe
    # Stated so that a NaN, of which no comparison holds, is no gradient.
    seen = (probe.gradient > 0) | (probe.margin_gradient > 0)
    found = [at_most(RARE, ~seen, "{share} of {count} images have no input gradient")]
    steep = seen & ~_saturated(probe)
    if steep.any():
        zero = float(np.mean(probe.zero_share[steep]))
        text = "{share} of the entries of the input gradients are 0"
        found.append(Finding(text, {"share": zero}, zero, MAJORITY))
    return worst(found, case.unprobed())


def gradients_saturated(case: Case) -> Finding:
    """The cross-entropy's gradient does not vanish where the margin's does not.

    At an image that is classified right it has if the loss is exactly 0, or the gradient is
    shorter than 2^-24 times the margin's: the softmax is rounded to 1 there.
    """
    if case.probe is None:
        return case.unprobed()
    if not case.probe.clean.any():
        return Finding("no probed image is classified right")
    lost = _saturated(case.probe)[case.probe.clean]
    return at_most(MAJORITY, lost, "the loss of {share} of {count} images is rounded to 0")


def gradients_random(case: Case) -> Finding:
    """The same image has the same logits and the same gradient when it is evaluated again."""
    if case.probe is None:
        return case.unprobed()
    probe = case.probe
    seen = np.isfinite(probe.loss)
    if not seen.any():
        return Finding("no probed image has finite logits")
    same = (probe.logit_change <= LOGIT_NOISE) & (probe.gradient_cosine >= COSINE_NOISE)
    return at_most(RARE, ~same[seen], "{share} of {count} images changed when evaluated again")


def probabilities(case: Case) -> Finding:
    """The model ends with logits: the losses of the attacks take them, and a softmax hides them."""
    if case.probe is None:
        return case.unprobed()
    share = float(np.mean(case.probe.probabilities))
    text = "the outputs at {share} of the images are probabilities"
    return Finding(text, {"share": share}, share, MAJORITY)


def catastrophic_overfitting(case: Case) -> Finding:
    """What withstands one step withstands several: the rule of `flags.overfitting`.

    The gap may be as large as 20 points, or as the accuracy under the iterative attack.
    """
    if not case.trained:
        return Finding("not trained at a budget")
    found = []
    for attacks in case.balls:
        if gap := step_gap(attacks):
            names = {one.attack: one.name for one in attacks}
            values = gap.values | {"easy": names[gap.easy], "hard": names[gap.hard]}
            text = "{easy} leaves {easy_accuracy}, {hard} {hard_accuracy}" + gap.on
            found.append(Finding(text, values, gap.gap, gap.allowed))
    return worst(found, case.without("no single-step attack beside an iterative one"))


def robust_overfitting(case: Case) -> Finding:
    """The best epoch withstands no more than the last: the rule of `flags.robust_overfitting`."""
    if not case.trained:
        return Finding("not trained at a budget")
    found = []
    for threat in case.threats:
        if pair := last_and_best(case.cell, threat, case.expected):
            last, best = (Left(threat[0], run) for run in pair)
            gap = difference([best.run], [last.run])
            text = (
                "worst case {best} at the best epoch, {last} at the last; the difference is at "
                "least {low}"
            )
            if gap:
                values = {"best": best.accuracy, "last": last.accuracy, "low": gap.low}
                found.append(Finding(text, values, gap.low, ROBUST_OVERFITTING_GAP))
    return worst(found, Finding("the best and the last weights did not meet the same attacks"))


def converged(case: Case) -> Finding:
    """The attack had come to its end: its loss no longer rose in the last quarter of its steps.

    At each budget of the results, of the attacks that tell their gain the one that leaves least is
    judged, by the late gain of all examples that stay robust over their whole gain; what counts is
    the lower end of that ratio's 95 % interval. An attack that gained nothing had not begun.
    """
    found: list[Finding | None] = []
    few = False
    for attacks in case.balls:
        ascents = [
            one
            for one in attacks
            if (one.norm, one.epsilon) in case.threats
            and one.backwards > 1
            and np.isfinite(one.gain).any()
        ]
        if ascents:
            one = min(ascents, key=lambda one: (left(one).accuracy, one.name))
            some = one.clean & one.robust & np.isfinite(one.gain) & np.isfinite(one.late_gain)
            if np.sum(some) >= FEWEST:
                found.append(_rising(one, some))
            else:
                few = True
    what = f"fewer than {FEWEST} examples stay robust" if few else "no attack tells its gain"
    return worst(found, case.without(what))


def claims(case: Case) -> Finding:
    """Every adversarial image that an attack claimed was confirmed.

    The second look is in float32, at another batch size. None may be outside the set; up to 0.1 %
    of an attack's claims, and one in any case, may turn out not to be misclassified.
    """
    found = []
    for one in case.cell.evaluations:
        total = int(np.sum(one.claim != "none"))
        if total:
            wrong = int(np.sum(one.claim == "not misclassified"))
            outside = int(np.sum(one.claim == "outside the set"))
            text = (
                "of {total} claims of {attack}, {wrong} ({share}) not misclassified, "
                "{outside} outside the set"
            )
            values: dict[str, float | str] = {"attack": one.name, "share": wrong / total}
            values |= {"total": str(total), "wrong": str(wrong), "outside": str(outside)}
            value, bound = (outside, 0.0) if outside else (wrong, max(1.0, UNCONFIRMED * total))
            found.append(Finding(text, values, value, bound))
    return worst(found, Finding("no attack claimed an adversarial image"))


def soundness(case: Case) -> Finding:
    """No attack broke what was certified: the rule of `flags.unsound`."""
    found = []
    for one in case.cell.certificates:
        if one.epsilon is not None and attacks_within(case.cell, one):
            broken = refuted(case.cell, one)
            proven = int(np.sum(one.certified(one.epsilon)))
            said = ", ".join(f"{count} by {attack}" for attack, count in broken.items()) or "none"
            text = f"of {proven} examples certified by {one.name}, broken: {said}"
            found.append(Finding(text, {}, sum(broken.values())))
    return worst(found, Finding("no attack within a certified budget"))


class Audit(NamedTuple):
    """A rule: who judges by it, and what it says to the reader of the table."""

    judge: Callable[[Case], Finding]
    rule: str


AUDITS: Mapping[str, Audit] = {
    "finite": Audit(finite, "the loss of every clean image is a finite number"),
    "gradients used": Audit(gradients_used, "an attack with gradients was run at each budget"),
    "budget": Audit(
        budget,
        "under the curve's attack, accuracy does not rise with ε, and at a linf ε of 1 it is at "
        "most 2 %",
    ),
    "steps": Audit(steps, "more steps or queries of one attack do not help the defender"),
    "restarts": Audit(restarts, "no example falls to fewer restarts of one attack and not to more"),
    "iterative": Audit(
        iterative, "the strongest iterative attack is as strong as the strongest single step"
    ),
    "black box": Audit(
        black_box,
        "attacks by queries alone do not beat the worst case over attacks with gradients, and "
        "AutoAttack's Square breaks nothing more",
    ),
    "random noise": Audit(
        random_noise, "within the budget, it does not beat that worst case either"
    ),
    "transfer": Audit(transfer, "images crafted on another model do not beat it either"),
    "gradients zero": Audit(
        gradients_zero,
        "at most 1 % of the clean images have no input gradient, and at most half of the entries "
        "of the others are 0",
    ),
    "gradients saturated": Audit(
        gradients_saturated,
        "of at most half of the images that are classified right, the loss is rounded to 0, or "
        "its gradient is shorter than 2^-24 times the margin's",
    ),
    "gradients random": Audit(
        gradients_random,
        "at most 1 % of the images change when evaluated again, a logit by more than 0.001 or the "
        "gradient to a cosine below 0.99",
    ),
    "probabilities": Audit(probabilities, "the outputs are not probabilities"),
    "catastrophic overfitting": Audit(
        catastrophic_overfitting,
        "a single step leaves at most 20 points more than the strongest iterative attack, or at "
        "most twice as much",
    ),
    "robust overfitting": Audit(
        robust_overfitting,
        "the best epoch's weights withstand at most 1 point more than the last's",
    ),
    "converged": Audit(
        converged,
        "of the gain of the strongest attack with fixed steps, on the examples that stay robust "
        "(10 or more), at most 5 % came in the last quarter",
    ),
    "claims": Audit(
        claims,
        "of an attack's adversarial examples, none was outside the set, and at most 0.1 % or one "
        "not misclassified, in a second look in float32 at another batch size",
    ),
    "soundness": Audit(soundness, "no attack broke a certified example"),
}
"""The audits by name, in the order of the table."""

NOISE = (
    "Attacks are compared on the same examples, norm, ε and weights; a comparison fails where the "
    "lower end of the 95 % interval of the paired difference exceeds 0.2 points, a share where the "
    "lower end of its 95 % interval exceeds what is allowed. Restarts, claims and soundness are "
    "counted."
)
"""What is noise, for the reader of the table."""


@dataclass(frozen=True)
class AuditRow:
    """One cell and what the audits found of it, by their names."""

    unit: Unit
    cell: Measured
    findings: Mapping[str, Finding]


def audit_rows(units: Sequence[Unit], info: StudyInfo) -> list[AuditRow]:
    """Audit every cell with results.

    Args:
        units: the study's cells, grouped.
        info: the study.

    Returns:
        One row per cell, in the order of the units, then by seed.
    """
    return [
        AuditRow(unit, case.cell, {name: audit.judge(case) for name, audit in AUDITS.items()})
        for unit, case in cases(units, info)
    ]


def audits_data(rows: Sequence[AuditRow]) -> pa.Table:
    """Write one row per cell and audit; an audit fails where its value exceeds its bound."""
    found = [(row, name, finding) for row in rows for name, finding in row.findings.items()]
    applies = [one.value is not None for _, _, one in found]
    return pa.table(
        {
            "cell": pa.array([row.cell.cell for row, _, _ in found], pa.string()),
            "method": pa.array([row.unit.method for row, _, _ in found], pa.string()),
            "training_norm": pa.array([row.unit.norm for row, _, _ in found], pa.string()),
            "training_epsilon": pa.array([row.unit.epsilon for row, _, _ in found], pa.float64()),
            "seed": pa.array([row.cell.name.seed for row, _, _ in found], pa.int64()),
            "audit": pa.array([name for _, name, _ in found], pa.string()),
            "status": pa.array([one.status for _, _, one in found], pa.string()),
            "evidence": pa.array([one.words(share_text) for _, _, one in found], pa.string()),
            "value": pa.array([one.value for _, _, one in found], pa.float64()),
            "bound": pa.array(
                [
                    one.bound if there else None
                    for (_, _, one), there in zip(found, applies, strict=True)
                ],
                pa.float64(),
            ),
        }
    )


def failures(rows: Sequence[AuditRow]) -> list[str]:
    """Say each audit that failed: the cell, the audit and its evidence."""
    return [
        f"{row.cell.cell}: {name}: {finding.words(percent_words)}"
        for row in rows
        for name, finding in row.findings.items()
        if finding.status == "fail"
    ]


def _against_white_box(case: Case, which: Kind) -> list[Finding | None]:
    """Compare each attack of a kind with the worst case over those with gradients."""
    found = []
    for attacks in case.balls:
        others = [left(one) for one in attacks if kind(one) == which]
        white = white_box(attacks) if others else None
        found += [stronger(white, one) for one in others if white]
    return found


def _saturated(probe: Probe) -> Correct:
    found: Correct = (probe.loss == 0) | (probe.gradient < ROUNDING * probe.margin_gradient)
    return found


def _rising(one: Evaluated, some: Correct) -> Finding:
    """Judge what one attack still gained late on some examples."""
    gain, late = one.gain[some], one.late_gain[some]
    values = {"attack": one.name, "count": str(len(gain))}
    if gain.sum() <= 0:
        text = "{attack} gained nothing on the {count} examples that stay robust"
        return Finding(text, values, 1.0, STILL_RISING)
    share = float(late.sum() / gain.sum())
    error = float(np.sqrt(np.sum((late - share * gain) ** 2)) / gain.sum())
    text = "of the gain of {attack} on the {count} examples that stay robust, {share} came late"
    return Finding(text, {**values, "share": share}, share - 1.96 * error, STILL_RISING)
