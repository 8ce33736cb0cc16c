from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from advtrain.reporting.certified import CertifiedRow, certified_data, certified_rows, radii
from advtrain.reporting.layout import certified_sheet
from advtrain.reporting.measure import Measured, measure, units
from advtrain.reporting.statistics import wilson
from advtrain.reporting.study import StudyInfo, check_info
from advtrain.reporting.wording import percent_words
from advtrain.results.collect import Collected
from tests.reporting.made import certified, evaluated, measured
from tests.results import synthetic


def info(**changes: Any) -> StudyInfo:
    return check_info(synthetic.study_info(**{"certificates": ["ibp", "smoothing_025"], **changes}))


def rows_of(cells: list[Measured], **changes: Any) -> list[CertifiedRow]:
    told = info(**changes)
    return certified_rows(units(cells, told), told)


def words(row: CertifiedRow) -> list[str]:
    return [flag.words(percent_words) for flag in row.flags]


def means(row: CertifiedRow) -> list[float | None]:
    found = (row.clean, row.certified, row.abstained, row.robust)
    return [one and round(one.mean, 6) for one in found]


def test_certified_accuracies_are_those_counted_by_hand(rich: Collected) -> None:
    rows = rows_of(measure(rich))
    assert [(row.certificate, row.norm, row.epsilon, row.radius) for row in rows] == [
        ("ibp", "linf", 0.1, 0.1),
        ("smoothing_025", "l2", None, 0.0),
        ("smoothing_025", "l2", None, 0.25),
        ("smoothing_025", "l2", None, 0.5),
        ("smoothing_025", "l2", None, 0.75),
    ]
    # ibp: 2 and 4 of 20 clean images are wrong, 7 and 6 are verified; the attacks leave 11 and 9.
    assert means(rows[0]) == [0.85, 0.325, 0.0, 0.5]
    # Smoothing: the first is wrong, the second abstains; the radius of the k-th is 0.05 k.
    assert [means(row) for row in rows[1:]] == [
        [0.9, 0.9, 0.05, None],
        [0.9, 0.75, 0.05, None],
        [0.9, 0.5, 0.05, None],
        [0.9, 0.25, 0.05, None],
    ]
    assert all(words(row) == [] for row in rows)
    found = rows[2].certified
    assert found is not None
    assert (found.low, found.high) == wilson(0.75, 20)
    assert (found.seeds, found.examples, found.spread) == (2, 20, 0.0)


def test_a_wrong_prediction_is_not_certified_however_far_it_stays() -> None:
    one = certified("smoothing_025-l2", [2.0, 2.0, 2.0, 0.1], wrong=[0], abstains=[1])
    rows = rows_of([measured("natural-s0", [], [one])])
    by_radius = {row.radius: means(row) for row in rows}
    assert by_radius[0.0] == [0.5, 0.5, 0.25, None]
    assert by_radius[2.0] == [0.5, 0.25, 0.25, None]


@pytest.mark.parametrize(
    ("largest", "expected"),
    [
        ([0.96], (0.0, 0.25, 0.5, 0.75)),  # sigma 0.25 of 100,000 samples
        ([0.5], (0.0, 0.25, 0.5)),
        ([0.49], (0.0, 0.1, 0.2, 0.3, 0.4)),
        ([0.15], (0.0, 0.05, 0.1, 0.15)),
        ([3.8], (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5)),
        ([0.3, 0.96], (0.0, 0.25, 0.5, 0.75)),  # the largest of all cells
        ([0.0], (0.0,)),
        ([0.005], (0.0,)),
    ],
)
def test_the_radii_are_those_of_the_literature_or_fit_the_largest(
    largest: Sequence[float], expected: tuple[float, ...]
) -> None:
    found = [certified("smoothing_025-l2", [0.0, one]) for one in largest]
    assert radii(found) == {("smoothing_025", "l2"): expected}
    assert radii([certified("ibp-linf-0.1", [0.1])]) == {}


def test_a_radius_of_a_wrong_image_does_not_widen_the_grid() -> None:
    one = certified("smoothing_025-l2", [3.0, 0.5], wrong=[0])
    assert radii([one]) == {("smoothing_025", "l2"): (0.0, 0.25, 0.5)}


def test_the_attacks_beside_a_certificate_are_on_its_examples_and_weights() -> None:
    # Of ten attacked examples the first six are wrong; four were certified, of which two are.
    attacks = [
        evaluated("pgd_20-linf-0.2", 0.4, examples=10),
        evaluated("pgd_20-linf-0.2-best", 1.0, examples=10),
    ]
    one = certified("ibp-linf-0.2", [0.0] * 3 + [0.2])
    shifted = type(one)(
        **{**{name: getattr(one, name) for name in one.__annotations__}, "example": np.arange(4, 8)}
    )
    (row,) = rows_of([measured("pgd_at-linf-0.2-s0", attacks, [shifted])])
    assert row.robust is not None
    assert (row.robust.mean, row.robust.examples) == (0.5, 4)
    assert means(row)[1] == 0.25


def test_a_certificate_that_an_attack_refutes_is_flagged_in_its_row() -> None:
    attacks = [evaluated("pgd_20-linf-0.2", 0.5, examples=10)]
    unsound = certified("ibp-linf-0.2", [0.0] * 3 + [0.2] * 7)
    fine = certified("crown-linf-0.2", [0.0] * 5 + [0.2] * 5)
    rows = rows_of([measured("pgd_at-linf-0.2-s0", attacks, [unsound, fine])])
    assert {row.certificate: words(row) for row in rows} == {
        "ibp": ["unsound: certified examples were broken, 2 by pgd_20-linf-0.2: this is a bug"],
        "crown": [],
    }


def test_a_collapsed_or_stopped_training_is_flagged_here_too() -> None:
    chance = certified("ibp-linf-0.2", [0.2] * 20, wrong=range(15))
    stopped = certified("ibp-linf-0.2", [0.2] * 20)
    (row,) = rows_of(
        [
            measured("pgd_at-linf-0.2-s0", [], [chance]),
            measured("pgd_at-linf-0.2-s1", [], [stopped], status="stopped", cause="epoch 3"),
        ]
    )
    assert words(row) == [
        "collapsed: clean accuracy 25.0 % is not distinguishable from chance, 25.0 % (seed 0)",
        "stopped: epoch 3 (seed 1)",
    ]


def test_a_failed_certificate_is_a_row_with_its_cause_and_no_attack_is_missed() -> None:
    failures = [
        {
            "cell": f"pgd_at-linf-0.2-s0/{name}",
            "stage": "certify",
            "state": "failed",
            "cause": "no memory",
        }
        for name in ("ibp-linf-0.2", "smoothing_025-l2")
    ]
    cells = [measured("pgd_at-linf-0.2-s0", [evaluated("pgd_20-linf-0.2", 0.5)])]
    rows = rows_of(cells, failures=failures)
    assert [(row.certificate, row.radius, means(row)) for row in rows] == [
        ("ibp", None, [None] * 4),
        ("smoothing_025", None, [None] * 4),
    ]
    assert words(rows[0]) == ["failed: no memory"]
    sheet = certified_sheet(rows, info())
    assert [row[4].text for row in sheet.rows] == ["0.2", "–"]


def test_the_order_is_the_studys_then_the_budgets() -> None:
    cells = [
        measured(
            "natural-s0",
            [],
            [
                certified("zonotope-linf-0.1", [0.1]),
                certified("ibp-linf-0.2", [0.2]),
                certified("ibp-linf-0.1", [0.1]),
                certified("crown-linf-0.1", [0.1]),
            ],
        )
    ]
    rows = rows_of(cells, certificates=["crown", "ibp"])
    assert [(row.certificate, row.epsilon) for row in rows] == [
        ("crown", 0.1),
        ("ibp", 0.1),
        ("ibp", 0.2),
        ("zonotope", 0.1),
    ]


def test_without_certificates_the_table_is_empty_and_has_its_columns(collected: Collected) -> None:
    assert rows_of(measure(collected)) == []
    data = certified_data([])
    assert data.num_rows == 0
    assert {"certificate", "radius", "certified_accuracy", "abstained"} <= set(data.column_names)
