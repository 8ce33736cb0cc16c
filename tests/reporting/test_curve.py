from typing import Any

import pytest

from advtrain.reporting.curve import CurvePoint, curve_data, curve_points
from advtrain.reporting.measure import Unit, measure, units
from advtrain.reporting.study import StudyInfo, check_info
from advtrain.results.collect import Collected
from tests.reporting.made import evaluated, measured
from tests.results import synthetic


def info(**changes: Any) -> StudyInfo:
    return check_info(synthetic.study_info(**changes))


def line(points: list[CurvePoint], name: str) -> list[tuple[float | None, float | None]]:
    return [
        (point.epsilon, point.accuracy.mean if point.accuracy else None)
        for point in points
        if point.unit.name == name
    ]


def test_the_curve_is_that_counted_by_hand(grouped: list[Unit]) -> None:
    points = curve_points(grouped, info())
    assert line(points, "pgd_at-linf-0.1") == [
        (0.0, pytest.approx(0.85)),
        (0.05, pytest.approx(0.775)),
        (0.1, pytest.approx(0.55)),
        (0.2, pytest.approx(0.15)),
        (0.3, 0.0),
    ]
    assert line(points, "natural") == [
        (0.0, 1.0),
        (0.05, pytest.approx(0.55)),
        (0.1, pytest.approx(0.1)),
        (0.2, 0.0),
        (0.3, 0.0),
    ]
    assert len(points) == 5 * 5
    assert {point.accuracy.seeds for point in points if point.accuracy} == {2}


def test_a_budget_of_0_is_the_clean_accuracy_once() -> None:
    cell = measured(
        "natural-s0",
        [evaluated("pgd_20-linf-0", 0.9, clean=0.9), evaluated("pgd_20-linf-0.1", 0.2, clean=0.9)],
    )
    points = curve_points(units([cell], info()), info())
    assert line(points, "natural") == [(0.0, 0.9), (0.1, 0.2)]


def test_without_an_attack_there_is_no_curve(grouped: list[Unit]) -> None:
    assert curve_points(grouped, info(curve_attack=None)) == []
    assert curve_data([], None).num_rows == 0


def test_a_failed_unit_is_a_row_without_numbers(collected: Collected) -> None:
    failure = {"cell": "trades-linf-0.1-s0", "stage": "train", "state": "failed", "cause": "killed"}
    told = info(failures=[failure])
    points = curve_points(units(measure(collected), told), told)
    (row,) = (row for row in curve_data(points, "pgd_20").to_pylist() if row["method"] == "trades")
    assert (row["epsilon"], row["accuracy"], row["seeds"], row["seeds_planned"]) == (
        *(None, None, 0, 1),
    )
    assert row["flags"] == ["failed: killed"]
