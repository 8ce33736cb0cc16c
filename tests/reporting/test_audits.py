"""Each audit passes, fails and does not apply, on rows made for it; a good cell fails none."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from advtrain.reporting.audits import (
    AUDITS,
    AuditError,
    AuditRow,
    audit_rows,
    audits_data,
    failures,
)
from advtrain.reporting.findings import Finding, Left, at_most, left, stronger, worst
from advtrain.reporting.layout import audits_sheet
from advtrain.reporting.measure import Evaluated, Measured, Probe, units
from advtrain.reporting.statistics import Run
from advtrain.reporting.study import StudyInfo, check_info
from advtrain.reporting.tables import write_tables
from advtrain.reporting.wording import percent_words
from advtrain.results.schema import CLAIMS
from tests.reporting.made import certified, evaluated, measured, probe
from tests.results import synthetic

CELL = "pgd_at-linf-0.2-s0"
PGD = {"steps": 20, "restarts": 1, "step_size": 0.05}
AUTO = {"version": "standard"}


def info(**changes: Any) -> StudyInfo:
    return check_info(synthetic.study_info(attacks=["fgsm", "pgd_20", "autoattack"], **changes))


def rows_of(*cells: Measured, **changes: Any) -> list[AuditRow]:
    told = info(**changes)
    return audit_rows(units(cells, told), told)


def audited(audit: str, cell: Measured, **changes: Any) -> Finding:
    (row,) = rows_of(cell, **changes)
    return row.findings[audit]


def status(audit: str, *attacks: Evaluated, cell: str = CELL, **changes: Any) -> str:
    return audited(audit, measured(cell, attacks, **changes)).status


def pgd(budget: str, robust: float, name: str = "pgd_20", **changes: Any) -> Evaluated:
    parameters = {**PGD, **changes.pop("parameters", {})}
    return evaluated(f"{name}-linf-{budget}", robust, parameters=parameters, **changes)


def auto(robust: float, square: Sequence[int] = (), version: str = "standard") -> Evaluated:
    name, parameters = "autoattack-linf-0.2", {"version": version}
    return evaluated(name, robust, parameters=parameters, stages={"square": square})


GOOD = [
    evaluated("fgsm-linf-0.2", 0.6, backwards=1),
    *(pgd(*at, late=0.01) for at in (("0.1", 0.8), ("0.2", 0.52), ("1", 0.0))),
    pgd("0.2", 0.5, "pgd_50", parameters={"steps": 50}, late=0.0),
    pgd("0.2", 0.5, "pgd_20_x5", parameters={"restarts": 5}, late=0.01),
    auto(0.46),
    evaluated("square-linf-0.2", 0.6, backwards=0),
    evaluated("noise-linf-0.2", 0.9, backwards=0, module="random_noise"),
    evaluated("transfer-linf-0.2", 0.8, module="transfer"),
    pgd("0.2-best", 0.52, late=0.01),
]


def good() -> Measured:
    """Return a cell that every audit applies to and none speaks against."""
    proof = certified("ibp-linf-0.2", [0.0] * 60 + [0.2] * 40)
    return measured(CELL, GOOD, [proof], probe=probe())


def test_a_good_cell_passes_every_audit() -> None:
    (row,) = rows_of(good())
    assert {name: one.status for name, one in row.findings.items()} == dict.fromkeys(AUDITS, "pass")
    assert failures([row]) == []
    assert audits_sheet([row], info()).rows[0][-1].notes == ()


def test_without_attacks_or_probes_no_audit_applies_and_each_says_why() -> None:
    (row,) = rows_of(measured(CELL, []))
    assert {one.status for one in row.findings.values()} == {"not applicable"}
    assert all(one.words(percent_words) for one in row.findings.values())


# Of 100 examples, 4 that one attack alone breaks are within the noise, 5 are not: the lower end of
# the difference is (c - 1.96 sqrt(c + 1 - c^2 / 102)) / 102, -0.003 and 0.003.
WITHIN, BEYOND = 4, 5


@pytest.mark.parametrize(("won", "expected"), [(0, "pass"), (WITHIN, "pass"), (BEYOND, "fail")])
def test_a_comparison_fails_beyond_noise_alone(won: int, expected: str) -> None:
    strong, weak = (left(evaluated("pgd_20-linf-0.2", share)) for share in (0.5, 0.5 - won / 100))
    found = stronger(strong, weak)
    assert found is not None
    assert found.status == expected


def test_7_of_500_are_beyond_0_2_points_and_32_of_10000() -> None:
    def alone(count: int, examples: int) -> str:
        ids = np.arange(examples)
        found = stronger(Left("a", Run(ids, ids >= 0)), Left("b", Run(ids, ids >= count)))
        assert found is not None
        return found.status

    assert (alone(6, 500), alone(7, 500)) == ("pass", "fail")
    assert (alone(31, 10_000), alone(32, 10_000)) == ("pass", "fail")


def test_attacks_are_compared_on_the_examples_that_both_met() -> None:
    strong = Left("pgd", Run(np.arange(10), np.arange(10) < 5))
    weak = Left("square", Run(np.arange(5, 20), np.ones(15, dtype=bool)))
    found = stronger(strong, weak)
    assert found is not None
    assert (found.values["strong_accuracy"], found.values["weak_accuracy"]) == (0.0, 1.0)
    assert stronger(strong, Left("square", Run(np.arange(10, 20), np.ones(10, dtype=bool)))) is None


def test_a_share_fails_beyond_noise_alone() -> None:
    # Wilson (1927): of 100, 5 begin at 0.0215, 4 at 0.0157.
    bad = np.arange(100)
    assert at_most(0.02, bad < 4, "{share}").status == "pass"
    assert at_most(0.02, bad < 5, "{share}").status == "fail"


def test_of_several_findings_the_worst_is_told_and_how_many_fail() -> None:
    def at(value: float) -> Finding:
        return Finding(f"found {value}", {}, value, 1.0)

    otherwise = Finding("nothing")
    assert worst([at(0.1), None, at(0.7)], otherwise).text == "found 0.7"
    assert worst([at(2.0), at(3.0), at(0.7)], otherwise).text == "found 3.0 (and 1 more)"
    assert worst([at(2.0), at(0.7)], otherwise).text == "found 2.0"
    assert worst([None], otherwise) is otherwise
    assert Finding("", {}, float("nan"), 1.0).status == "fail"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ([("0.1", 0.7), ("0.2", 0.4), ("0.3", 0.4)], "pass"),
        ([("0.1", 0.7), ("0.2", 0.4), ("0.3", 0.44)], "pass"),
        ([("0.1", 0.7), ("0.2", 0.4), ("0.3", 0.45)], "fail"),
        ([("0.1", 0.7), ("0.2", 0.4), ("0.3", 0.5), ("1", 0.0)], "fail"),
        ([("0.1", 0.7), ("1", 0.04)], "pass"),  # 4 of 100: the interval begins below 2 %
        ([("0.1", 0.7), ("1", 0.05)], "fail"),
        ([("0.1", 0.96)], "fail"),  # more than without an attack
    ],
)
def test_budget(line: list[tuple[str, float]], expected: str) -> None:
    points = [pgd(epsilon, robust, clean=0.9) for epsilon, robust in line]
    assert status("budget", *reversed(points)) == expected


def test_the_budget_of_another_norm_or_of_other_weights_is_another_line() -> None:
    l2 = evaluated("pgd_20-l2-1", 0.5)
    assert status("budget", pgd("0.2", 0.3), l2) == "pass"
    assert status("budget", pgd("0.1", 0.3), pgd("0.2-best", 0.5)) == "pass"
    assert status("budget", evaluated("cw_20-linf-0.2", 0.5)) == "not applicable"
    cell = measured(CELL, [pgd("0.2", 0.5)])
    assert audited("budget", cell, curve_attack=None).status == "not applicable"


@pytest.mark.parametrize(("robust", "expected"), [(0.4, "pass"), (0.54, "pass"), (0.55, "fail")])
def test_steps(robust: float, expected: str) -> None:
    more = pgd("0.2", robust, "pgd_50", parameters={"steps": 50})
    assert status("steps", pgd("0.2", 0.5), more) == expected


def test_queries_are_the_steps_of_an_attack_without_gradients() -> None:
    def square(name: str, robust: float, queries: int) -> Evaluated:
        parameters = {"queries": queries}
        return evaluated(name, robust, backwards=0, module="square", parameters=parameters)

    few = square("square_100-linf-0.2", 0.5, 100)
    assert status("steps", few, square("square_1000-linf-0.2", 0.4, 1000)) == "pass"
    assert status("steps", few, square("square_1000-linf-0.2", 0.7, 1000)) == "fail"


@pytest.mark.parametrize(
    "other",
    [
        pgd("0.2", 0.7, "pgd_50", parameters={"steps": 50, "step_size": 0.02}),
        pgd("0.2", 0.7, "cw_50", parameters={"steps": 50}, module="cw"),
        pgd("0.1", 0.7, "pgd_50", parameters={"steps": 50}),
        pgd("0.2-best", 0.7, "pgd_50", parameters={"steps": 50}),
        replace(pgd("0.2", 0.7, "pgd_50", parameters={"steps": 50}), precision="bfloat16"),
    ],
    ids=["step size", "module", "budget", "weights", "precision"],
)
def test_attacks_that_differ_in_more_than_their_steps_are_no_ladder(other: Evaluated) -> None:
    assert status("steps", pgd("0.2", 0.5, module="pgd"), other) == "not applicable"


def test_the_steps_of_a_transferred_attack_may_not_help() -> None:
    def on_another(name: str, robust: float, steps: int) -> Evaluated:
        return evaluated(name, robust, module="transfer", parameters={"steps": steps})

    attacks = on_another("transfer-linf-0.2", 0.5, 20), on_another("transfer_50-linf-0.2", 0.7, 50)
    assert status("steps", *attacks) == "not applicable"


def test_restarts_hold_for_each_example() -> None:
    few = pgd("0.2", 0.0, broken=[1, 2, 3])

    def many(broken: list[int], **changes: Any) -> str:
        more = {"restarts": 5}
        attack = pgd("0.2", 0.0, "pgd_20_x5", broken=broken, parameters=more, **changes)
        return status("restarts", few, attack)

    assert many([1, 2, 3]) == "pass"
    assert many([0, 1, 2, 3]) == "pass"
    assert many([0, 1, 2]) == "fail"  # one less, though others are broken
    assert many([1, 2], claims={"not misclassified": [3]}) == "pass"
    assert status("restarts", few, pgd("0.2", 0.5, "pgd_50", parameters={"steps": 50})) == (
        "not applicable"
    )


def test_restarts_are_compared_on_the_examples_that_both_met() -> None:
    few = pgd("0.2", 0.0, broken=[1, 99])
    more = {"restarts": 5}
    many = pgd("0.2", 0.0, "pgd_20_x5", broken=[1], parameters=more, examples=50)
    assert status("restarts", few, many) == "pass"


@pytest.mark.parametrize(("single", "expected"), [(0.7, "pass"), (0.46, "pass"), (0.45, "fail")])
def test_iterative(single: float, expected: str) -> None:
    fgsm = evaluated("fgsm-linf-0.2", single, backwards=1)
    # The strongest counts: a weaker iterative attack beside it is no matter.
    assert status("iterative", fgsm, pgd("0.2", 0.5), pgd("0.2", 0.9, "cw_20")) == expected


def test_a_single_step_needs_an_iterative_attack_beside_it() -> None:
    fgsm = evaluated("fgsm-linf-0.2", 0.1, backwards=1)
    square = evaluated("square-linf-0.2", 0.9, backwards=0)
    transferred = evaluated("transfer-linf-0.2", 0.9, module="transfer")
    assert status("iterative", fgsm, pgd("0.1", 0.9), square, transferred) == "not applicable"


OTHERS = [
    ("black box", {"module": "square", "backwards": 0}),
    ("random noise", {"module": "random_noise", "backwards": 0}),
    ("transfer", {"module": "transfer"}),
]


@pytest.mark.parametrize(("audit", "made"), OTHERS)
def test_what_sees_no_gradients_does_not_beat_what_does(audit: str, made: dict[str, Any]) -> None:
    def against(robust: float, *white: Evaluated) -> str:
        return status(audit, evaluated("other-linf-0.2", robust, **made), *white)

    assert against(0.6, pgd("0.2", 0.5)) == "pass"
    assert against(0.46, pgd("0.2", 0.5)) == "pass"
    assert against(0.45, pgd("0.2", 0.5)) == "fail"
    # The worst case over the attacks with gradients is what it has to beat.
    assert against(0.44, pgd("0.2", 0.5), pgd("0.2", 0.0, "cw_20", broken=[*range(50, 100)])) == (
        "pass"
    )
    assert against(0.0) == "not applicable"
    assert against(0.0, pgd("0.1", 0.9)) == "not applicable"
    assert status(audit, pgd("0.2", 0.5)) == "not applicable"


@pytest.mark.parametrize(
    ("attacks", "expected"),
    [
        ([auto(0.5)], "pass"),
        ([auto(0.5, range(4))], "pass"),
        ([auto(0.5, range(5))], "fail"),
        # What another attack with gradients breaks, Square did not break alone.
        ([auto(0.5, range(5)), pgd("0.2", 0.0, broken=range(5))], "pass"),
        # In this version the stages after Square have not seen what it broke.
        ([auto(0.5, range(40), "plus")], "not applicable"),
    ],
)
def test_the_last_stage_of_autoattack(attacks: list[Evaluated], expected: str) -> None:
    assert status("black box", *attacks) == expected


@pytest.mark.parametrize(
    ("audit", "passes", "fails"),
    [
        # Of 100 images, 2 are within the noise of 1 %, 3 are not.
        ("gradients zero", {"gradient": [0] * 2, "margin_gradient": [0] * 2}, None),
        (
            "gradients zero",
            {"gradient": [0] * 9},
            {"gradient": [0] * 3, "margin_gradient": [0] * 3},
        ),
        ("gradients zero", {"zero_share": [0.9] * 50}, {"zero_share": [0.9] * 60}),
        ("gradients zero", {}, {"gradient": [np.nan] * 3, "margin_gradient": [np.nan] * 3}),
        ("gradients saturated", {"loss": [0] * 59}, {"loss": [0] * 61}),
        ("gradients saturated", {"gradient": [1e-6] * 99}, {"gradient": [1e-7] * 99}),
        ("gradients random", {"logit_change": [1e-4] * 99}, {"logit_change": [0.01] * 9}),
        ("gradients random", {"gradient_cosine": [0.999] * 99}, {"gradient_cosine": [0.9] * 9}),
        ("gradients random", {"logit_change": [0.01] * 2}, {"logit_change": [np.nan] * 3}),
        ("probabilities", {"probabilities": [True]}, {"probabilities": [True] * 100}),
    ],
)
def test_gradients(
    audit: str, passes: dict[str, list[float]], fails: dict[str, list[float]] | None
) -> None:
    assert audited(audit, measured(CELL, [], probe=probe(**passes))).status == "pass"
    if fails:
        assert audited(audit, measured(CELL, [], probe=probe(**fails))).status == "fail"


def test_what_is_saturated_is_not_also_zero() -> None:
    lost = {"loss": [0.0] * 100, "gradient": [0.0] * 100, "zero_share": [1.0] * 100}
    cell = measured(CELL, [], probe=probe(**lost))
    assert audited("gradients zero", cell).status == "pass"
    assert audited("gradients saturated", cell).status == "fail"


def test_images_that_are_classified_wrong_say_nothing_of_saturation() -> None:
    looked: Probe = probe(loss=[0.0] * 45)
    wrong = replace(looked, clean=np.arange(100) < 45)
    assert audited("gradients saturated", measured(CELL, [], probe=wrong)).status == "fail"
    nothing = replace(looked, clean=np.zeros(100, dtype=bool))
    assert audited("gradients saturated", measured(CELL, [], probe=nothing)).status == (
        "not applicable"
    )


@pytest.mark.parametrize(
    ("single", "several", "expected"),
    [(0.6, 0.5, "pass"), (0.6, 0.3, "pass"), (0.61, 0.3, "fail"), (0.9, 0.0, "fail")],
)
def test_catastrophic_overfitting(single: float, several: float, expected: str) -> None:
    attacks = evaluated("fgsm-linf-0.2", single, backwards=1), pgd("0.2", several)
    assert status("catastrophic overfitting", *attacks) == expected
    assert status("catastrophic overfitting", *attacks, cell="natural-s0") == "not applicable"
    assert status("catastrophic overfitting", *attacks[:1]) == "not applicable"


def test_catastrophic_overfitting_is_judged_on_the_examples_that_both_met() -> None:
    # FGSM breaks 60 of 100; of the first 50 it breaks all, as the iterative attack does.
    easy = evaluated("fgsm-linf-0.2", 0.4, backwards=1)
    hard = evaluated("pgd_20-linf-0.2", 0.0, examples=50)
    found = audited("catastrophic overfitting", measured(CELL, [easy, hard]))
    assert (found.status, found.value) == ("pass", 0.0)
    assert found.words(percent_words) == (
        "fgsm-linf-0.2 leaves 0.0 %, pgd_20-linf-0.2 0.0 %, on the 50 examples that met both"
    )


@pytest.mark.parametrize(("best", "expected"), [(0.4, "pass"), (0.56, "pass"), (0.57, "fail")])
def test_robust_overfitting(best: float, expected: str) -> None:
    attacks = pgd("0.2", 0.5), pgd("0.2-best", best)
    assert status("robust overfitting", *attacks) == expected
    assert status("robust overfitting", *attacks, cell="natural-s0") == "not applicable"
    assert status("robust overfitting", *attacks[:1]) == "not applicable"


@pytest.mark.parametrize(("late", "expected"), [(0.0, "pass"), (0.05, "pass"), (0.06, "fail")])
def test_converged(late: float, expected: str) -> None:
    assert status("converged", pgd("0.2", 0.5, late=late)) == expected


def test_the_strongest_ascent_is_judged_where_the_results_are() -> None:
    done, rising = pgd("0.2", 0.5, late=0.0), pgd("0.2", 0.6, "pgd_5", late=0.25)
    assert status("converged", done, rising) == "pass"
    # The curve's own budgets are not the results'.
    assert status("converged", done, pgd("0.3", 0.3, late=0.25)) == "pass"
    assert status("converged", done, pgd("0.2-best", 0.3, late=0.25)) == "fail"
    single = evaluated("fgsm-linf-0.2", 0.5, backwards=1, late=1.0)
    assert status("converged", single) == "not applicable"
    assert status("converged", pgd("0.2", 0.5)) == "not applicable"


def test_few_robust_examples_say_nothing_of_convergence() -> None:
    assert status("converged", pgd("0.2", 0.1, late=0.25)) == "fail"
    assert status("converged", pgd("0.2", 0.09, late=0.25)) == "not applicable"


def test_examples_that_fell_say_nothing_of_convergence() -> None:
    attack = pgd("0.2", 0.5, late=0.0)
    late = np.where(attack.robust, 0.0, attack.gain)
    assert status("converged", replace(attack, late_gain=late)) == "pass"
    late = np.where(attack.robust, attack.gain, 0.0)
    assert status("converged", replace(attack, late_gain=late)) == "fail"


def test_late_gains_that_differ_between_examples_are_noise() -> None:
    attack = pgd("0.2", 0.5, late=0.0)
    spread = np.where(np.arange(100) % 2, 0.5, -0.26) * attack.gain  # 0.12 +- 0.38 / 50 ** 0.5
    finding = audited("converged", measured(CELL, [replace(attack, late_gain=spread)]))
    assert finding.values["share"] == pytest.approx(0.12)
    assert finding.value == pytest.approx(0.12 - 1.96 * 0.38 / 50**0.5)
    assert finding.status == "pass"


def test_an_ascent_that_gained_nothing_had_not_begun() -> None:
    attack = pgd("0.2", 0.5, late=0.0)
    assert status("converged", replace(attack, gain=0 * attack.gain)) == "fail"


@pytest.mark.parametrize(
    ("claims", "examples", "expected"),
    [
        ({}, 100, "pass"),
        ({"not misclassified": [0]}, 100, "pass"),
        ({"not misclassified": [0, 1]}, 100, "fail"),
        ({"not misclassified": [0, 1, 2]}, 6000, "pass"),  # of 3000 claims
        ({"not misclassified": [0, 1, 2, 3]}, 6000, "fail"),
        ({"outside the set": [0]}, 6000, "fail"),
    ],
)
def test_claims(claims: dict[str, list[int]], examples: int, expected: str) -> None:
    assert set(claims) <= set(CLAIMS)
    assert status("claims", pgd("0.2", 0.5, claims=claims, examples=examples)) == expected


def test_without_a_claim_there_is_nothing_to_confirm() -> None:
    assert status("claims", pgd("0.2", 1.0)) == "not applicable"


def test_claims_are_counted_for_each_attack_also_without_a_budget() -> None:
    refuted = {"not misclassified": [0]}
    both = pgd("0.2", 0.5, claims=refuted), pgd("0.1", 0.5, claims=refuted)
    assert status("claims", *both) == "pass"
    outside = evaluated("grid-spatial", 0.5, claims={"outside the set": [3]})
    assert status("claims", *both, outside) == "fail"


def test_soundness() -> None:
    proof = certified("ibp-linf-0.2", [0.0] * 60 + [0.2] * 40)

    def attacked(robust: float, *certificates: Any) -> str:
        cell = measured(CELL, [pgd("0.2", robust)], certificates)
        return audited("soundness", cell).status

    assert attacked(0.4, proof) == "pass"
    assert attacked(0.39, proof) == "fail"
    assert attacked(0.0) == "not applicable"
    assert attacked(0.0, certified("smoothing_025-l2", [1.0] * 100)) == "not applicable"
    assert attacked(0.0, certified("ibp-linf-0.1", [0.1] * 100)) == "not applicable"


def test_collapsed_weights_are_not_audited_but_their_claims_are() -> None:
    cell = measured(CELL, GOOD, status="collapsed", cause="the loss was nan", probe=probe())
    (row,) = rows_of(cell)
    # The best weights, which have not collapsed, have the curve's attack alone.
    applies = {name for name, one in row.findings.items() if one.status != "not applicable"}
    always = {"finite", "gradients used", "claims"}
    assert applies == {"budget", "robust overfitting", "converged", *always}
    assert row.findings["probabilities"].words(percent_words) == "the weights collapsed"
    constant = measured(CELL, [pgd("0.2", 0.25, clean=0.25), pgd("1", 0.25, clean=0.25)])
    assert audited("budget", constant).status == "not applicable"
    assert "collapsed" in audited("budget", constant).text


def test_every_entry_is_a_row_of_the_data_and_fails_above_its_bound() -> None:
    bad = measured(CELL, [pgd("0.2", 0.5), pgd("0.2", 0.7, "pgd_50", parameters={"steps": 50})])
    data = audits_data(rows_of(good(), bad)).to_pylist()
    assert [row["audit"] for row in data] == [*AUDITS] * 2
    assert {row["cell"] for row in data} == {CELL}
    for row in data:
        if row["status"] == "not applicable":
            assert row["value"] is None
            assert row["bound"] is None
        else:
            assert (row["status"] == "fail") == (row["value"] > row["bound"] + 1e-9)
    (failed,) = (row for row in data if row["status"] == "fail")
    assert failed["audit"] == "steps"
    assert (failed["method"], failed["training_epsilon"], failed["seed"]) == ("pgd_at", 0.2, 0)
    assert failed["evidence"].startswith("pgd_50-linf-0.2 leaves 0.7000, pgd_20-linf-0.2 0.5000")
    assert audits_data([]).num_rows == 0


def test_a_failure_is_said_with_cell_audit_and_evidence() -> None:
    # (20 - 1.96 sqrt(21 - 400 / 102)) / 102 is 0.117
    bad = measured(CELL, [pgd("0.2", 0.5), pgd("0.2", 0.7, "pgd_50", parameters={"steps": 50})])
    assert failures(rows_of(good(), bad)) == [
        f"{CELL}: steps: pgd_50-linf-0.2 leaves 70.0 %, pgd_20-linf-0.2 50.0 %; the difference is "
        f"20.0 %, at least 11.7 %"
    ]


def test_the_seeds_of_a_unit_are_one_row_of_the_sheet() -> None:
    def seed(number: int, more: float) -> Measured:
        attacks = pgd("0.2", 0.5), pgd("0.2", more, "pgd_50", parameters={"steps": 50})
        return measured(f"pgd_at-linf-0.2-s{number}", attacks)

    rows = rows_of(seed(0, 0.4), seed(1, 0.7), seed(2, 0.4))
    sheet = audits_sheet(rows, info())
    assert [column.title for column in sheet.columns][2:-2] == [*AUDITS]
    (row,) = sheet.rows
    cells = dict(zip((column.title for column in sheet.columns), row, strict=True))
    assert (cells["steps"].text, cells["steps"].detail) == ("fail", "1 of 3")
    assert cells["steps"].title.startswith("seeds 0, 2: pgd_50-linf-0.2 leaves 40.0 %")
    assert "; seed 1: pgd_50-linf-0.2 leaves 70.0 %" in cells["steps"].title
    assert "−" in cells["steps"].title
    assert (cells["budget"].text, cells["restarts"].text, cells["seeds"].text) == ("pass", "–", "3")
    assert cells["restarts"].title == "no two attacks differ in their restarts alone"
    (note,) = cells["flags"].notes
    assert note.startswith("audit failed: steps, pgd_50-linf-0.2 leaves 70.0 %")
    assert note.endswith("(seed 1)")
    assert sheet.data.num_rows == 3 * len(AUDITS)


def test_the_reading_tells_every_rule_with_its_threshold() -> None:
    reading = audits_sheet(rows_of(good()), info()).reading
    for name, audit in AUDITS.items():
        assert f"{name}: " in reading.lower()
        assert audit.rule in reading
    for threshold in ("0.2 points", "2 %", "1 %", "half", "0.001", "0.99", "20 points", "5 %"):
        assert threshold in reading
    assert audits_sheet([], info()).reading == "This study has no cell to audit."


def test_a_strict_study_has_no_tables_if_an_audit_fails(
    rich_folder: Path, folder: Path, tmp_path: Path
) -> None:
    # tests/results/synthetic.py: one seed of fgsm_mixed at 0.2 is overfitted to one step.
    expected = "^fgsm_mixed-linf-0.2-s1: catastrophic overfitting: fgsm-linf-0.2 leaves 90.0 %"
    with pytest.raises(AuditError, match=expected):
        write_tables(folder, synthetic.study_info(strict=True), tmp_path / "a")
    assert not (tmp_path / "a").exists()
    with pytest.raises(AuditError) as caught:
        write_tables(rich_folder, synthetic.study_info(strict=True), tmp_path / "a")
    assert [line.split(": ")[:2] for line in str(caught.value).splitlines()] == [
        ["pgd_at-linf-0.1-s0", "robust overfitting"],
        ["pgd_at-linf-0.1-s1", "robust overfitting"],
        ["fgsm_mixed-linf-0.2-s1", "catastrophic overfitting"],
    ]


def test_logits_that_are_not_finite_are_named() -> None:
    lost = probe(loss=[np.nan, np.inf], gradient=[np.nan, 0.5], gradient_cosine=[np.nan, 1.0])
    (row,) = rows_of(measured(CELL, GOOD, probe=lost))
    assert row.findings["finite"].status == "fail"
    assert row.findings["finite"].words(percent_words).startswith("the loss of 2 of 100")
    assert row.findings["gradients random"].status == "pass"
    (row,) = rows_of(measured(CELL, GOOD, probe=probe()))
    assert row.findings["finite"].status == "pass"


def test_attacks_without_gradients_alone_show_nothing() -> None:
    noise = evaluated("noise-linf-0.2", 0.9, backwards=0, module="random_noise")
    (row,) = rows_of(measured(CELL, [noise]))
    assert row.findings["gradients used"].status == "fail"
    (row,) = rows_of(measured(CELL, GOOD))
    assert row.findings["gradients used"].status == "pass"
