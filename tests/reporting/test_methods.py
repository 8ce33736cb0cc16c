from dataclasses import replace
from typing import Any

import pytest

from advtrain.published.claims import read_claims
from advtrain.reporting.layout import methods_sheet
from advtrain.reporting.measure import Measured, measure, units
from advtrain.reporting.methods import MethodRow, method_rows, methods_data
from advtrain.reporting.results import result_rows
from advtrain.reporting.study import StudyInfo, check_info
from advtrain.results.collect import Collected
from tests.reporting.made import evaluated, measured
from tests.results import synthetic

CLAIMS = read_claims()
SIX = {
    "natural": "natural",
    "pgd_at": "pgd_at",
    "trades": "trades",
    "mart": "mart",
    "fast": "fgsm_rs",
    "awp": "pgd_at",
    "consistency": "consistency",
}


def survey_info(modules: dict[str, str] = SIX, **changes: Any) -> StudyInfo:
    told: dict[str, Any] = {
        "methods": list(modules),
        "method_modules": modules,
        "method_updates": {m: "awp" if m == "awp" else "plain" for m in modules},
        "method_upstream": {},
        "method_additions": {},
        "attacks": ["pgd_20"],
        **changes,
    }
    return check_info(synthetic.study_info(**told))


def cell(
    method: str, clean: float, robust: float, *, seed: int = 0, epsilon: str = "0.2", **given: Any
) -> Measured:
    """Make a cell of which the first examples of 1000 are wrong."""
    name = f"{method}-s{seed}" if method == "natural" else f"{method}-linf-{epsilon}-s{seed}"
    one = evaluated(f"pgd_20-linf-{epsilon}", robust, clean=clean, examples=1000)
    return measured(name, [one], **given)


def rows_of(cells: list[Measured], told: StudyInfo) -> dict[str, MethodRow]:
    rows = method_rows(result_rows(units(cells, told), told), told, CLAIMS)
    assert len({row.unit.name for row in rows}) == len(rows)
    return {row.unit.name.removesuffix("-linf-0.2"): row for row in rows}


def says(row: MethodRow) -> dict[str, str]:
    return {verdict.quantity: verdict.says for verdict in row.verdicts}


def test_cost_and_gain_are_those_counted_by_hand(collected: Collected) -> None:
    told = check_info(synthetic.study_info())
    rows = method_rows(result_rows(units(measure(collected), told), told), told, CLAIMS)
    assert [row.unit.name for row in rows] == [
        *("pgd_at-linf-0.1", "pgd_at-linf-0.2", "fgsm_mixed-linf-0.1", "fgsm_mixed-linf-0.2")
    ]
    # Clean: natural 1.0 in both seeds, pgd_at 0.9 and 0.8. Worst case: natural 0.05 at 0.1 and 0 at
    # 0.2, pgd_at 0.5 and 0.4 on average, fgsm_mixed 0.65 and 0.225.
    cost = [row.cost.mean for row in rows if row.cost]
    gain = [row.gain.mean for row in rows if row.gain]
    assert cost == pytest.approx([0.15, 0.15, 0.0, 0.0])
    assert gain == pytest.approx([0.45, 0.4, 0.6, 0.225])
    first = rows[0].cost
    assert first is not None
    assert first.spread == pytest.approx(0.1 / 2**0.5)
    # 11 and 2 passes of each kind against 1.
    assert [row.relative for row in rows] == pytest.approx([11, 11, 2, 2])


def test_the_verdicts_can_be_each_of_the_three() -> None:
    # By clean accuracy: awp 95.0 costs least of all, which the survey says of Fast-AT and
    # Consistency AT. By robust accuracy all are within a point.
    accuracies = {
        "natural": (0.99, 0.0),
        "pgd_at": (0.80, 0.50),
        "trades": (0.85, 0.505),
        "mart": (0.85, 0.50),
        "fast": (0.90, 0.502),
        "awp": (0.95, 0.50),
        "consistency": (0.901, 0.497),
    }
    cells = [cell(method, *found) for method, found in accuracies.items()]
    rows = rows_of(cells, survey_info())
    assert list(rows) == ["pgd_at", "trades", "mart", "fast", "awp", "consistency"]
    assert {method: says(row)["cost"] for method, row in rows.items()} == {
        "pgd_at": "holds",
        "trades": "holds",
        "mart": "holds",
        "fast": "does not hold",
        "awp": "does not hold",
        "consistency": "does not hold",
    }
    assert {says(row)["gain"] for row in rows.values()} == {"not decided"}
    assert [row.variant.name for row in rows.values() if row.variant] == [
        *("PGD-AT", "TRADES", "MART", "Fast-AT", "AWP", "Consistency AT")
    ]
    # 50 of 1000 examples: half of the interval is 1.96 sqrt(51 - 2500/1002) / 1002 = 0.0136.
    data = {row["method"]: row for row in methods_data(list(rows.values())).to_pylist()}
    assert data["fast"]["cost_evidence"] == (
        "Against it: AWP +0.0500 (noise 0.0136). "
        "For it: PGD-AT -0.1000 (noise 0.0187), TRADES -0.0500 (noise 0.0136), "
        "MART -0.0500 (noise 0.0136)"
    )
    assert (data["fast"]["survey_variant"], data["fast"]["survey_cost"]) == ("Fast-AT", "Low")


def test_a_gain_that_is_larger_the_other_way_round_does_not_hold() -> None:
    cells = [
        cell("natural", 0.99, 0.0),
        cell("pgd_at", 0.8, 0.4),
        cell("trades", 0.8, 0.5),
        cell("fast", 0.9, 0.45),
    ]
    rows = rows_of(cells, survey_info())
    # Fast-AT (Moderate) has 5 points more than PGD-AT (High), and 5 fewer than TRADES (High).
    assert {method: says(row)["gain"] for method, row in rows.items()} == {
        "pgd_at": "does not hold",
        "trades": "holds",
        "fast": "does not hold",
    }
    assert says(rows["pgd_at"])["cost"] == "not decided"


def test_seeds_that_scatter_leave_it_open() -> None:
    def two(method: str, first: float, second: float) -> list[Measured]:
        return [cell(method, first, 0.5), cell(method, second, 0.5, seed=1)]

    calm = [*two("trades", 0.80, 0.80), *two("fast", 0.90, 0.90), *two("pgd_at", 0.70, 0.70)]
    assert says(rows_of(calm, survey_info())["trades"])["cost"] == "holds"
    # The means stay; two spreads of 0.0707 are more than the 10 points between them.
    wild = [*two("trades", 0.75, 0.85), *two("fast", 0.90, 0.90), *two("pgd_at", 0.70, 0.70)]
    assert says(rows_of(wild, survey_info())["trades"])["cost"] == "not decided"


def test_a_collapsed_variant_is_evidence_for_nothing() -> None:
    cells = [
        cell("pgd_at", 0.9, 0.5),
        cell("trades", 0.95, 0.5),
        cell("fast", 0.25, 0.2, status="collapsed", cause="the loss was nan"),
    ]
    rows = rows_of(cells, survey_info())
    assert says(rows["pgd_at"]) == {"cost": "not decided", "gain": "not decided"}
    assert "Fast-AT" in rows["trades"].verdicts[0].absent
    assert says(rows["fast"]) == {"cost": "not decided", "gain": "not decided"}


def test_only_the_first_method_of_a_kind_that_was_trained_alone_speaks_for_a_variant() -> None:
    modules = {"pgd_taught": "pgd_at", "pgd_at": "pgd_at", "pgd_long": "pgd_at"}
    told = survey_info(
        modules, method_upstream={"pgd_taught": {"teacher": "pgd_at", "start": None}}
    )
    rows = rows_of([cell(method, 0.8, 0.5) for method in modules], told)
    speaking = [method for method, row in rows.items() if row.variant]
    assert speaking == ["pgd_at"]
    assert rows["pgd_long"].verdicts == ()


def test_the_first_whose_recipe_adds_nothing_speaks_for_a_variant() -> None:
    modules = {"pgd_ema": "pgd_at", "pgd_at": "pgd_at", "pgd_long": "pgd_at", "fast": "fgsm_rs"}
    told = survey_info(modules, method_additions={"pgd_ema": ["averaging ema"], "pgd_at": []})
    rows = rows_of([cell(method, 0.8, 0.5) for method in modules], told)
    assert [method for method, row in rows.items() if row.variant] == ["pgd_at", "fast"]
    assert "recipe" not in rows["pgd_at"].verdicts[0].evidence(str)
    # The comparison is with the one that speaks, too.
    cells = [cell("pgd_ema", 0.95, 0.5), cell("pgd_at", 0.7, 0.5), cell("fast", 0.9, 0.5)]
    assert rows_of(cells, told)["fast"].verdicts[0].comparisons[0].measured == pytest.approx(-0.2)


def test_where_each_recipe_adds_something_the_first_speaks_and_says_what() -> None:
    modules = {"pgd_views": "pgd_at", "pgd_ema": "pgd_at", "fast": "fgsm_rs"}
    additions = {"pgd_views": ["cutout 2", "policy trivial"], "pgd_ema": ["averaging ema"]}
    told = survey_info(modules, method_additions=additions)
    rows = rows_of([cell(method, 0.8, 0.5) for method in modules], told)
    assert [method for method, row in rows.items() if row.variant] == ["pgd_views", "fast"]
    cost, gain = rows["pgd_views"].verdicts
    assert cost.evidence(str).startswith("Its recipe adds cutout 2, policy trivial. Within the")
    assert gain.evidence(str).startswith("Its recipe adds cutout 2, policy trivial. Within the")
    assert "recipe" not in rows["fast"].verdicts[0].evidence(str)
    sheet = methods_sheet(list(rows.values()), told, CLAIMS.source)
    assert "the first whose recipe adds nothing speaks for it" in sheet.reading


def test_what_moves_rounding_alone_is_no_addition() -> None:
    modules = {"pgd_ema": "pgd_at", "pgd_at": "pgd_at", "fast": "fgsm_rs"}
    rounding = [
        *("determinism strict", "channels_last True", "compile_mode default", "micro_batch 32"),
        "halve_on_out_of_memory True",
    ]
    additions = {
        "pgd_ema": ["averaging ema", *rounding],
        "pgd_at": rounding,
        "fast": ["precision bfloat16", *rounding],
    }
    told = survey_info(modules, method_additions=additions)
    rows = rows_of([cell(method, 0.8, 0.5) for method in modules], told)
    assert [method for method, row in rows.items() if row.variant] == ["pgd_at", "fast"]
    assert "recipe" not in rows["pgd_at"].verdicts[0].evidence(str)
    assert rows["fast"].verdicts[0].evidence(str).startswith("Its recipe adds precision bfloat16. ")


def test_a_gain_does_not_hold_beside_no_gain_over_natural() -> None:
    def gain_of(robust: float) -> tuple[str, str]:
        cells = [
            cell("natural", 0.9, 0.40),
            cell("pgd_at", 0.9, robust),
            cell("fast", 0.9, 0.30),
            cell("consistency", 0.9, 0.30),
        ]
        verdict = rows_of(cells, survey_info())["pgd_at"].verdicts[1]
        return verdict.says, verdict.evidence(lambda share: f"{share:.2f}")

    # Of 1000 examples, c more than natural training's: (c -+ 1.96 sqrt(c + 1 - c^2/1002)) / 1002.
    for robust in (0.35, 0.40, 0.403):  # the last: 3 -+ 3.9
        says, evidence = gain_of(robust)
        assert says == "not decided"
        assert evidence.startswith("No gain over natural beyond the noise. For it: Fast-AT +0.")
    says, evidence = gain_of(0.41)  # 10 -+ 6.5
    assert says == "holds"
    assert "No gain" not in evidence


def test_budgets_are_judged_apart() -> None:
    cells = [
        cell("pgd_at", 0.80, 0.5),
        cell("trades", 0.85, 0.5),
        cell("fast", 0.90, 0.5),
        cell("pgd_at", 0.90, 0.5, epsilon="0.1"),
        cell("fast", 0.80, 0.5, epsilon="0.1"),
    ]
    rows = rows_of(cells, survey_info())
    assert says(rows["pgd_at"])["cost"] == "holds"
    assert says(rows["pgd_at-linf-0.1"])["cost"] == "does not hold"


def test_without_natural_training_there_is_no_cost_and_the_verdicts_stand() -> None:
    cells = [cell("pgd_at", 0.80, 0.5), cell("trades", 0.85, 0.5), cell("fast", 0.90, 0.5)]
    rows = rows_of(cells, survey_info())
    row = rows["pgd_at"]
    assert (row.cost, row.gain, row.relative) == (None, None, None)
    assert says(row)["cost"] == "holds"
    (data, *_) = methods_data([row]).to_pylist()
    assert (data["accuracy_cost"], data["robustness_gain"]) == (None, None)


def test_a_method_without_a_budget_is_measured_at_each_and_is_no_reference() -> None:
    modules = {"natural": "natural", "noisy": "gaussian", "pgd_at": "pgd_at"}
    natural = cell("natural", 0.99, 0.1)
    noisy = measured("noisy-s0", [evaluated("pgd_20-linf-0.2", 0.3, clean=0.9, examples=1000)])
    rows = rows_of([natural, noisy, cell("pgd_at", 0.8, 0.5)], survey_info(modules))
    assert list(rows) == ["noisy", "pgd_at"]
    gain, cost = rows["noisy"].gain, rows["noisy"].cost
    assert gain is not None
    assert cost is not None
    assert (gain.mean, cost.mean) == (pytest.approx(0.2), pytest.approx(0.09))


def test_a_failed_method_is_a_row_without_numbers() -> None:
    failure = {"cell": "trades-linf-0.2-s0", "stage": "train", "state": "failed", "cause": "killed"}
    told = survey_info(failures=[failure])
    rows = rows_of([cell("natural", 0.99, 0.0), cell("pgd_at", 0.8, 0.5)], told)
    row = rows["trades"]
    assert (row.cost, row.gain, row.relative, row.verdicts) == (None, None, None, ())
    sheet = methods_sheet(list(rows.values()), told, CLAIMS.source)
    assert sheet.rows[-1][-1].notes == ("failed: killed",)


def test_the_table_says_claim_verdict_and_evidence_in_words() -> None:
    told = survey_info()
    cells = [cell("natural", 0.99, 0.1), cell("pgd_at", 0.8, 0.5), cell("fast", 0.9, 0.4)]
    rows = list(rows_of(cells, told).values())
    sheet = methods_sheet(rows, told, CLAIMS.source)
    heads = [column.title for column in sheet.columns]
    row = dict(zip(heads, sheet.rows[0], strict=True))
    assert (row["accuracy cost, points"].text, row["robustness gain, points"].text) == (
        *("19.0", "40.0"),
    )
    assert row["survey: name"].text == "PGD-AT"
    assert (row["survey: gain"].text, row["survey: gain"].detail) == ("High", "(holds)")
    assert row["survey: cost"].detail == "(not decided)"
    assert row["flags"].notes[1] == "gain High: holds. For it: Fast-AT +10.0 (noise 1.9). " + (
        "Not compared: Consistency AT"
    )
    assert "Rice" not in sheet.reading
    assert "holds if none does" in sheet.reading


def test_a_study_of_none_of_the_variants_has_no_columns_for_them() -> None:
    modules = {"natural": "natural", "fgsm_mixed": "fgsm_mixed"}
    told = survey_info(modules)
    rows = rows_of([cell("natural", 0.99, 0.0), cell("fgsm_mixed", 0.9, 0.3)], told)
    sheet = methods_sheet(list(rows.values()), told, CLAIMS.source)
    assert not any("survey" in column.title for column in sheet.columns)
    assert "survey" not in sheet.reading.lower()


def test_only_the_weights_that_are_shown_are_compared() -> None:
    best = evaluated("pgd_20-linf-0.2-best", 0.9, clean=1.0, examples=1000)
    one = cell("pgd_at", 0.8, 0.5)
    cells = [cell("natural", 0.99, 0.0), replace(one, evaluations=(*one.evaluations, best))]
    (row,) = rows_of(cells, survey_info()).values()
    assert row.gain is not None
    assert row.gain.mean == pytest.approx(0.5)
