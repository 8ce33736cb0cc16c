from typing import Any

import pytest

from advtrain.reporting.measure import Measured, Unit, measure, units
from advtrain.reporting.results import ResultRow, result_rows, results_data
from advtrain.reporting.statistics import Estimate
from advtrain.reporting.study import StudyInfo, check_info
from advtrain.reporting.wording import percent_words
from advtrain.results.collect import Collected
from tests.reporting.made import evaluated, measured
from tests.results import synthetic

Place = tuple[str, float | None, float | None]


def info(**changes: Any) -> StudyInfo:
    return check_info(synthetic.study_info(**changes))


def by_place(rows: list[ResultRow]) -> dict[Place, ResultRow]:
    found = {(row.unit.method, row.unit.epsilon, row.epsilon): row for row in rows}
    assert len(found) == len(rows)
    return found


def rows_of(cells: list[Measured], **changes: Any) -> dict[Place, ResultRow]:
    told = info(**changes)
    return by_place(result_rows(units(cells, told), told))


def mean(found: Estimate | None) -> float:
    assert found is not None
    return round(found.mean, 12)


@pytest.fixture(scope="module")
def rows(grouped: list[Unit]) -> dict[Place, ResultRow]:
    return by_place(result_rows(grouped, info()))


def words(row: ResultRow) -> list[str]:
    return [flag.words(percent_words) for flag in row.flags]


def test_there_is_a_row_per_method_training_and_evaluation_budget(
    rows: dict[Place, ResultRow],
) -> None:
    assert list(rows) == [
        ("natural", None, 0.1),
        ("natural", None, 0.2),
        ("pgd_at", 0.1, 0.1),
        ("pgd_at", 0.2, 0.2),
        ("fgsm_mixed", 0.1, 0.1),
        ("fgsm_mixed", 0.2, 0.2),
    ]


# Counted by hand from the tables of tests/results/synthetic.py: the mean of the two seeds.
@pytest.mark.parametrize(
    ("place", "clean", "fgsm", "pgd", "cw", "worst"),
    [
        (("natural", None, 0.1), 1.0, 0.5, 0.1, 0.1, 0.05),
        (("natural", None, 0.2), 1.0, 0.1, 0.0, 0.0, 0.0),
        (("pgd_at", 0.1, 0.1), 0.85, 0.65, 0.55, 0.55, 0.5),
        (("pgd_at", 0.2, 0.2), 0.85, 0.55, 0.45, 0.45, 0.4),
        (("fgsm_mixed", 0.1, 0.1), 1.0, 0.8, 0.7, 0.7, 0.65),
        (("fgsm_mixed", 0.2, 0.2), 1.0, 0.775, 0.275, 0.25, 0.225),
    ],
)
def test_accuracies_are_those_counted_by_hand(
    rows: dict[Place, ResultRow],
    place: Place,
    clean: float,
    fgsm: float,
    pgd: float,
    cw: float,
    worst: float,
) -> None:
    row = rows[place]
    assert clean == mean(row.clean)
    assert fgsm == mean(row.robust["fgsm"])
    assert pgd == mean(row.robust["pgd_20"])
    assert cw == mean(row.robust["cw_20"])
    assert worst == mean(row.worst)


def test_a_row_says_over_what_it_is(rows: dict[Place, ResultRow]) -> None:
    row = rows["pgd_at", 0.2, 0.2]
    assert row.clean is not None
    # Seeds at 0.9 and 0.8; 17 of 20: scipy's interval, rounded.
    assert row.clean.spread == pytest.approx(0.1 / 2**0.5)
    assert (round(row.clean.low, 4), round(row.clean.high, 4)) == (0.6396, 0.9476)
    assert (row.examples, row.clean.seeds) == (20, 2)
    assert [cell.cell for cell in row.cells] == ["pgd_at-linf-0.2-s0", "pgd_at-linf-0.2-s1"]
    assert (row.forward, row.backward) == (33.0, 33.0)


def test_only_the_seed_that_overfitted_is_flagged(rows: dict[Place, ResultRow]) -> None:
    flagged = {place: words(row) for place, row in rows.items() if row.flags}
    assert flagged == {
        ("fgsm_mixed", 0.2, 0.2): [
            "catastrophic overfitting: robust accuracy 90.0 % under fgsm, 0.0 % under cw_20 "
            "(seed 1)"
        ]
    }


def test_a_failed_seed_is_named_and_not_averaged_away(collected: Collected) -> None:
    failure = {"cell": "pgd_at-linf-0.2-s2", "stage": "train", "state": "failed", "cause": "killed"}
    row = rows_of(measure(collected), failures=[failure])["pgd_at", 0.2, 0.2]
    assert (len(row.cells), row.unit.seeds) == (2, (0, 1, 2))
    assert words(row) == ["failed: killed (seed 2)"]
    assert mean(row.clean) == 0.85


def test_a_unit_without_results_is_a_row_without_numbers(collected: Collected) -> None:
    failures = [
        {"cell": f"trades-linf-{e}-s0", "stage": "train", "state": "missing", "cause": "not run"}
        for e in (0.1, 0.2)
    ]
    found = rows_of(measure(collected), failures=failures)
    row = found["trades", 0.2, 0.2]
    assert (row.clean, row.worst, row.examples, row.forward, row.cells) == (None,) * 4 + ((),)
    assert row.robust == {"fgsm": None, "pgd_20": None, "cw_20": None}
    assert words(row) == ["missing: not run"]
    assert ("trades", 0.1, 0.1) in found


def test_when_all_failed_every_method_has_its_row() -> None:
    failures = [
        {"cell": cell, "stage": "train", "state": "failed", "cause": "no disk"}
        for cell in ("natural-s0", "pgd_at-linf-0.1-s0", "pgd_at-linf-0.2-s0")
    ]
    assert list(rows_of([], failures=failures)) == [
        ("natural", None, 0.1),
        ("natural", None, 0.2),
        ("pgd_at", 0.1, 0.1),
        ("pgd_at", 0.2, 0.2),
    ]
    assert list(rows_of([], failures=failures[:1])) == [("natural", None, None)]


def test_without_one_of_its_attacks_a_row_has_no_worst_case() -> None:
    whole = measured(
        "pgd_at-linf-0.2-s0",
        [evaluated("fgsm-linf-0.2", 0.6, backwards=1), evaluated("pgd_20-linf-0.2", 0.5)],
    )
    short = measured("pgd_at-linf-0.2-s1", [evaluated("fgsm-linf-0.2", 0.8, backwards=1)])
    row = rows_of([whole, short])["pgd_at", 0.2, 0.2]
    assert mean(row.robust["fgsm"]) == 0.7
    assert mean(row.worst) == 0.5
    assert row.worst is not None
    assert row.worst.seeds == 1
    assert words(row) == ["incomplete: no pgd_20, so no worst case (seed 1)"]
    failure = {
        "cell": "pgd_at-linf-0.2-s1/pgd_20-linf-0.2",
        "stage": "attack",
        "state": "failed",
        "cause": "out of memory",
    }
    row = rows_of([whole, short], failures=[failure])["pgd_at", 0.2, 0.2]
    assert words(row) == ["failed: pgd_20, out of memory (seed 1)"]
    assert len(row.unit.seeds) == 2


def test_an_attack_that_failed_everywhere_leaves_no_worst_case() -> None:
    cell = measured("pgd_at-linf-0.2-s0", [evaluated("fgsm-linf-0.2", 0.6, backwards=1)])
    failure = {
        "cell": "pgd_at-linf-0.2-s0/cw_20-linf-0.2",
        "stage": "attack",
        "state": "missing",
        "cause": "not run",
    }
    row = rows_of([cell], failures=[failure])["pgd_at", 0.2, 0.2]
    assert row.worst is None
    assert words(row) == ["missing: cw_20, not run"]


def test_a_failed_training_is_said_once_and_not_for_each_attack() -> None:
    failures = [
        {"cell": "pgd_at-linf-0.2-s0", "stage": "train", "state": "failed", "cause": "killed"},
        {
            "cell": "pgd_at-linf-0.2-s0/pgd_20-linf-0.2",
            "stage": "attack",
            "state": "missing",
            "cause": "its training failed",
        },
    ]
    assert words(rows_of([], failures=failures)["pgd_at", 0.2, 0.2]) == ["failed: killed"]


def test_natural_training_is_not_overfitted_to_a_step_it_never_took() -> None:
    natural = measured(
        "natural-s0",
        [evaluated("fgsm-linf-0.2", 0.6, backwards=1), evaluated("pgd_20-linf-0.2", 0.0)],
    )
    assert words(rows_of([natural])["natural", None, 0.2]) == []


def test_a_collapsed_seed_is_flagged_with_its_number() -> None:
    cells = [
        measured("pgd_at-linf-0.2-s0", [evaluated("pgd_20-linf-0.2", 0.5, clean=0.9)]),
        measured("pgd_at-linf-0.2-s1", [evaluated("pgd_20-linf-0.2", 0.1, clean=0.25)]),
    ]
    row = rows_of(cells)["pgd_at", 0.2, 0.2]
    expected = (
        "collapsed: clean accuracy 25.0 % is not distinguishable from chance, 25.0 % (seed 1)"
    )
    assert words(row) == [expected]


def test_both_weights_have_their_row() -> None:
    cell = measured(
        "pgd_at-linf-0.2-s0",
        [evaluated("pgd_20-linf-0.2", 0.5), evaluated("pgd_20-linf-0.2-best", 0.6)],
    )
    told = info()
    found = result_rows(units([cell], told), told)
    assert [(row.weights, row.worst.mean) for row in found if row.worst] == [
        ("last", 0.5),
        ("best", 0.6),
    ]


def test_a_study_with_the_curves_attack_alone_keeps_to_its_training_budgets() -> None:
    trained = measured(
        "pgd_at-linf-0.2-s0",
        [evaluated("pgd_20-linf-0.1", 0.8), evaluated("pgd_20-linf-0.2", 0.5)],
    )
    natural = measured(
        "natural-s0", [evaluated("pgd_20-linf-0.1", 0.1), evaluated("pgd_20-linf-0.2", 0.0)]
    )
    assert list(rows_of([trained, natural], attacks=["pgd_20"])) == [
        ("natural", None, 0.2),
        ("pgd_at", 0.2, 0.2),
    ]
    assert list(rows_of([natural], attacks=["pgd_20"])) == [
        ("natural", None, 0.1),
        ("natural", None, 0.2),
    ]


def test_the_data_hold_shares_and_lists(grouped: list[Unit]) -> None:
    table = results_data(result_rows(grouped, info()), synthetic.ATTACKS)
    row = table.to_pylist()[-1]
    assert (row["method"], row["norm"], row["training_epsilon"], row["epsilon"]) == (
        *("fgsm_mixed", "linf", 0.2, 0.2),
    )
    assert row["pgd_20_robust_accuracy"] == pytest.approx(0.275)
    assert (row["seeds"], row["seeds_planned"], row["examples"]) == (2, 2, 20)
    assert row["flags"] == [
        "catastrophic overfitting: robust accuracy 0.9000 under fgsm, 0.0000 under cw_20 (seed 1)"
    ]
    assert table.to_pylist()[0]["training_epsilon"] is None
