import pytest

from advtrain.reporting.measure import units
from advtrain.reporting.study import check_info
from advtrain.tracking.columns import cell_columns
from tests.reporting.made import evaluated, measured
from tests.results import synthetic

ATTACKS = ("fgsm-linf-0.1", "pgd_20-linf-0.1", "cw_20-linf-0.1")


def columns(*cells, **changes):
    info = check_info(synthetic.study_info(**changes))
    return cell_columns(units(list(cells), info), info)


def test_at_its_own_budget_a_cell_has_the_plain_names():
    cell = measured(
        "pgd_at-linf-0.1-s0",
        [evaluated(name, 0.6, clean=0.9) for name in ATTACKS] + [evaluated("pgd_20-linf-0.3", 0.1)],
    )
    assert columns(cell)["pgd_at-linf-0.1-s0"] == {
        "clean_accuracy": 0.9,
        "worst_case_accuracy": 0.6,
    }


def test_the_worst_case_is_over_the_examples_that_no_attack_breaks():
    cell = measured(
        "pgd_at-linf-0.1-s0",
        [evaluated(name, 0, examples=10, broken=[place]) for place, name in enumerate(ATTACKS)],
    )
    assert columns(cell)["pgd_at-linf-0.1-s0"]["worst_case_accuracy"] == 0.7


def test_a_cell_that_missed_an_attack_has_no_worst_case():
    whole = measured("pgd_at-linf-0.1-s0", [evaluated(name, 0.6) for name in ATTACKS])
    part = measured("pgd_at-linf-0.1-s1", [evaluated(name, 0.6) for name in ATTACKS[:2]])
    found = columns(whole, part)
    assert found["pgd_at-linf-0.1-s0"]["worst_case_accuracy"] == 0.6
    assert found["pgd_at-linf-0.1-s1"] == {"clean_accuracy": 1.0}


def test_the_best_weights_have_a_column_of_their_own():
    last = [evaluated(name, 0.5, clean=0.7) for name in ATTACKS]
    best = [evaluated(f"{name}-best", 0.6, clean=0.8) for name in ATTACKS]
    assert columns(measured("pgd_at-linf-0.1-s0", [*best, *last]))["pgd_at-linf-0.1-s0"] == {
        "clean_accuracy": 0.7,
        "worst_case_accuracy": 0.5,
        "worst_case_accuracy-best": 0.6,
    }


def test_without_a_budget_each_one_has_its_column():
    names = [*ATTACKS, *(name.replace("0.1", "0.2") for name in ATTACKS)]
    cell = measured("natural-s0", [evaluated(name, float(name[-3:])) for name in names])
    assert columns(cell)["natural-s0"] == {
        "clean_accuracy": 1.0,
        "worst_case_accuracy/linf-0.1": 0.1,
        "worst_case_accuracy/linf-0.2": 0.2,
        "passes_over_natural": 1.0,
    }


def test_without_a_budget_the_only_one_is_its_own():
    names = [name.replace("0.1", "8_255") for name in ATTACKS]
    cells = [
        measured(cell, [evaluated(name, 0.25) for name in [*names, "pgd_20-linf-0.5"]])
        for cell in ("natural-s0", "pgd_at-linf-8_255-s0")
    ]
    assert columns(*cells)["natural-s0"] == {
        "clean_accuracy": 1.0,
        "worst_case_accuracy": 0.25,
        "robust_accuracy/fgsm": 0.25,
        "robust_accuracy/pgd_20": 0.25,
        "robust_accuracy/cw_20": 0.25,
        "passes_over_natural": 1.0,
    }


def test_the_cost_is_over_the_mean_of_natural_trainings_seeds():
    found = columns(
        measured("natural-s0", [evaluated(ATTACKS[0], 0.0)], passes=2.0),
        measured("natural-s1", [evaluated(ATTACKS[0], 0.0)], passes=4.0),
        measured("pgd_at-linf-0.1-s0", [evaluated(ATTACKS[0], 0.5)], passes=10.0),
    )
    assert found["pgd_at-linf-0.1-s0"]["passes_over_natural"] == pytest.approx(10 / 3, abs=1e-6)
    assert found["natural-s0"]["passes_over_natural"] == pytest.approx(2 / 3, abs=1e-6)


def test_without_natural_training_there_is_no_cost():
    cell = measured("pgd_at-linf-0.1-s0", [evaluated(ATTACKS[0], 0.5)])
    assert "passes_over_natural" not in columns(cell)["pgd_at-linf-0.1-s0"]


def test_a_cell_that_nothing_attacked_has_no_accuracy():
    assert columns(measured("pgd_at-linf-0.1-s0", [])) == {"pgd_at-linf-0.1-s0": {}}
