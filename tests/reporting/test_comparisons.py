"""Which method withstood more: the test, its correction, and what the table says."""

from collections.abc import Sequence

import numpy as np
import pytest
from scipy.stats import binomtest, false_discovery_control

from advtrain.reporting.comparisons import (
    comparison_rows,
    comparisons_data,
    holm,
    mcnemar,
    pairs,
)
from advtrain.reporting.layout import results_sheet
from advtrain.reporting.measure import units
from advtrain.reporting.overlap import overlap_data, overlap_rows
from advtrain.reporting.results import result_rows
from advtrain.reporting.statistics import Run
from advtrain.reporting.study import StudyInfo
from advtrain.reporting.transformed import transformed_data, transformed_rows
from tests.reporting.made import evaluated, measured


def run(right: Sequence[int], examples: int = 100) -> Run:
    index = np.arange(examples)
    return Run(index, np.isin(index, right))


@pytest.mark.parametrize(("only", "lonely"), [(0, 0), (5, 0), (3, 9), (40, 55), (300, 210)])
def test_mcnemar_is_the_binomial_test_of_the_discordant_examples(only: int, lonely: int) -> None:
    one = run(range(only), 1000)
    other = run(range(only, only + lonely), 1000)
    first, second, p = mcnemar(one, other)
    assert (first, second) == (only, lonely)
    expected = binomtest(only, only + lonely).pvalue if only + lonely else 1.0
    assert p == pytest.approx(expected, rel=1e-9)


def test_mcnemar_is_of_the_common_examples() -> None:
    one = Run(np.array([1, 2, 3, 4]), np.array([True, True, True, True]))
    other = Run(np.array([3, 4, 9]), np.array([False, True, False]))
    assert mcnemar(one, other)[:2] == (1, 0)


def test_holm_by_hand() -> None:
    # 4 * .01 = .04; 3 * .02 = .06; 2 * .04 = .08; and .03 ranks third: 2 * .03 = .06.
    assert holm([0.02, 0.01, 0.04, 0.03]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
    p = np.random.default_rng(0).uniform(size=20) ** 3
    assert (np.array(holm(p.tolist())) >= false_discovery_control(p) - 1e-12).all()


def study(attacks: Sequence[str], methods: Sequence[str]) -> StudyInfo:
    return {
        "name": "made",
        "title": "made",
        "description": "",
        "dataset": "digits",
        "model": "small_cnn",
        "norm": "linf",
        "epsilons": [{"text": "0.1", "value": 0.1}],
        "methods": list(methods),
        "attacks": list(attacks),
        "curve_attack": None,
        "classes": 10,
        "failures": [],
        "method_modules": {method: method for method in methods},
        "method_updates": dict.fromkeys(methods, "plain"),
        "method_additions": {method: [] for method in methods},
        "method_upstream": {method: {"teacher": None, "start": None} for method in methods},
        "certificates": [],
        "attack_sources": {},
        "strict": False,
        "data_set": {"module": "digits", "parameters": {}, "split": {}},
        "published": {},
    }


def compared(broken: dict[str, Sequence[Sequence[int]]]):  # type: ignore[no-untyped-def]
    """Compare methods of which each seed has some broken examples."""
    cells = [
        measured(f"{method}-linf-0.1-s{seed}", [evaluated("pgd_20-linf-0.1", 1, broken=places)])
        for method, seeds in broken.items()
        for seed, places in enumerate(seeds)
    ]
    info = study(["pgd_20"], list(broken))
    grouped = units(cells, info)
    results = result_rows(grouped, info)
    found = pairs(grouped, results, info)
    return found, comparison_rows(results, found)


def names(found) -> list[str]:  # type: ignore[no-untyped-def]
    return [unit.method for unit in found]


def test_better_is_said_where_it_is_and_not_elsewhere() -> None:
    found, rows = compared(
        {"weak": [range(50)], "strong": [range(10)], "alike": [[*range(9), 99, 98]]}
    )
    by_name = {row.unit.method: row for row in rows}
    assert names(by_name["strong"].better) == ["weak"]
    assert names(by_name["strong"].same) == ["alike"]
    assert names(by_name["weak"].worse) == ["strong", "alike"]
    assert names(by_name["weak"].better) == []
    table = comparisons_data(found).to_pylist()
    assert [(row["one_alone"], row["other_alone"]) for row in table] == [(0, 40), (2, 41), (2, 1)]
    assert [row["better"] for row in table] == ["other", "other", None]
    assert all(row["adjusted_p"] >= row["p"] for row in table)


def test_a_difference_in_one_seed_alone_is_not_said() -> None:
    alone, _ = compared({"one": [range(40)], "other": [range(5)]})
    both, _ = compared({"one": [range(40), range(5)], "other": [range(5), range(5)]})
    assert alone[0].better is not None
    assert both[0].better is None


def test_seeds_that_disagree_are_not_told_apart() -> None:
    found, _ = compared({"one": [range(40), range(5)], "other": [range(5), range(40)]})
    assert found[0].p == 1.0
    assert found[0].better is None


def test_many_pairs_ask_for_more() -> None:
    """7 of 7 is p = 0.016, enough for one pair and not for the 45 of ten methods."""
    two, _ = compared({"one": [range(7)], "other": [[]]})
    assert two[0].better is not None
    ten, _ = compared({f"m{k}": [range(7) if k == 0 else []] for k in range(10)})
    assert all(pair.better is None for pair in ten)


def test_the_overlap_counts_what_each_attack_breaks_alone() -> None:
    made = [
        evaluated("fgsm-linf-0.1", 1, broken=[0, 1], backwards=1),
        evaluated("pgd_20-linf-0.1", 1, broken=[0, 1, 2, 3]),
        evaluated(
            "autoattack-linf-0.1",
            1,
            broken=[0, 1, 2, 4],
            stages={"apgd-ce": [0, 1], "square": [2, 4]},
            examples=50,
        ),
    ]
    info = study(["fgsm", "pgd_20", "autoattack"], ["pgd_at"])
    grouped = units([measured("pgd_at-linf-0.1-s0", made)], info)
    (row,) = overlap_rows(result_rows(grouped, info), info["attacks"])
    assert row.examples == 50
    assert row.any == pytest.approx(5 / 50)
    assert [(one.attack, round(one.share * 50), one.alone) for one in row.broken] == [
        ("fgsm", 2, 0),
        ("pgd_20", 4, 1),
        ("autoattack", 4, 1),
        ("autoattack: apgd-ce", 2, None),
        ("autoattack: square", 2, None),
    ]
    assert overlap_data([row]).num_rows == 5


def test_transformed_images_are_a_table_of_their_own() -> None:
    made = [
        evaluated("pgd_20-linf-0.1", 0.5),
        evaluated("rotations-spatial", 0.75),
        evaluated("fog_3-corruption", 0.9),
    ]
    info = study(["pgd_20", "rotations", "fog_3"], ["pgd_at"])
    grouped = units([measured("pgd_at-linf-0.1-s0", made)], info)
    (row,) = transformed_rows(grouped)
    found = {name: one.mean if one else None for name, one in row.accuracy.items()}
    assert found == {"rotations": 0.75, "fog_3": 0.9}
    assert transformed_data([row])["rotations_accuracy"].to_pylist() == [0.75]
    (result,) = result_rows(grouped, info)
    assert result.worst is not None
    assert result.worst.mean == 0.5
    assert result.robust["rotations"] is None


def test_an_attack_on_fewer_examples_does_not_narrow_the_others() -> None:
    made = [
        evaluated("autoattack-linf-0.1", 0.2, examples=40),
        evaluated("pgd_20-linf-0.1", 0.5, clean=0.9),
    ]
    info = study(["pgd_20", "autoattack"], ["pgd_at"])
    (row,) = result_rows(units([measured("pgd_at-linf-0.1-s0", made)], info), info)
    counts = {name: one.examples for name, one in row.robust.items() if one}
    assert counts == {"pgd_20": 100, "autoattack": 40}
    assert row.clean is not None
    assert row.worst is not None
    assert (row.clean.mean, row.clean.examples) == (0.9, 100)
    assert row.worst.examples == 40
    sheet = results_sheet([row], info)
    details = {c.title: cell.detail for c, cell in zip(sheet.columns, sheet.rows[0], strict=True)}
    assert details["autoattack, %"].endswith("n = 40")
    assert details["worst case, %"].endswith("n = 40")
    assert "n =" not in details["pgd_20, %"]
