import pytest

from advtrain.reporting import wording
from advtrain.reporting.statistics import Difference, Estimate


@pytest.mark.parametrize(
    ("share", "examples", "text"),
    [(0.8134, 360, "81.3"), (0.8134, 10_000, "81.34"), (1.0, 20, "100.0"), (0.0, 20, "0.0")],
)
def test_percent_are_as_fine_as_the_examples_allow(share: float, examples: int, text: str) -> None:
    assert wording.percent(share, examples) == text


def test_an_accuracy_shows_its_spread_where_it_has_one() -> None:
    several = Estimate(0.8, 0.7, 0.9, 0.05, 3, 100)
    assert wording.accuracy(several) == "80.0 ± 5.0"
    assert wording.interval(several) == "[70.0, 90.0]"
    assert wording.accuracy(Estimate(0.8, 0.7, 0.9, None, 1, 100)) == "80.0"
    assert wording.accuracy(None) == "–"
    assert wording.interval(None) == ""


@pytest.mark.parametrize(
    ("found", "planned", "text"), [(3, 3, "3"), (2, 3, "2 of 3"), (0, 1, "0 of 1")]
)
def test_missing_seeds_are_said(found: int, planned: int, text: str) -> None:
    assert wording.seeds(found, planned) == text


@pytest.mark.parametrize(
    ("count", "spread", "text"),
    [
        (1.234, None, "1.23"),
        (12.34, 0.5, "12.3 ± 0.5"),
        (1234.5, 10.0, "1234 ± 10"),
        (None, None, "–"),
    ],
)
def test_times_have_three_digits(count: float | None, spread: float | None, text: str) -> None:
    assert wording.seconds(count, spread) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.0314, "3.1"), (-0.0314, "−3.1"), (0.0, "0.0"), (-0.0001, "0.0"), (-1.0, "−100.0")],
)
def test_a_difference_is_in_points_with_a_minus_that_is_one(share: float, text: str) -> None:
    assert wording.points(share) == text


def test_a_difference_shows_its_spread_and_its_interval() -> None:
    found = Difference(-0.031, -0.05, 0.01, 0.004, 100)
    assert wording.gap(found) == "−3.1 ± 0.4"
    assert wording.gap_interval(found) == "[−5.0, 1.0]"
    assert wording.gap(Difference(0.03123, 0.0, 0.1, None, 10_000)) == "3.12"
    assert (wording.gap(None), wording.gap_interval(None)) == ("–", "")


@pytest.mark.parametrize(
    ("best", "all_of_them", "text"),
    [
        ([31], [50], "31 of 50"),
        ([31, 28], [50, 50], "31, 28 of 50"),
        ([31, 12], [50, 14], "31 of 50, 12 of 14"),
        ([None], [50], "– of 50"),
        ([], [], "–"),
    ],
)
def test_the_best_epochs_stand_beside_all(
    best: list[int | None], all_of_them: list[int | None], text: str
) -> None:
    assert wording.epochs(best, all_of_them) == text


def test_other_numbers() -> None:
    assert [wording.passes(x) for x in (30.0, 312.5, None)] == ["30", "312.5", "–"]
    assert [wording.budget(x) for x in (8 / 255, None)] == ["8/255", "–"]
    assert [wording.ratio(x) for x in (3.44, None)] == ["3.4", "–"]
