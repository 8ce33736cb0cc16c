import pytest

from advtrain.reporting import wording
from advtrain.reporting.statistics import Estimate


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


def test_other_numbers() -> None:
    assert [wording.passes(x) for x in (30.0, 312.5, None)] == ["30", "312.5", "–"]
    assert [wording.budget(x) for x in (8 / 255, None)] == ["8/255", "–"]
    assert [wording.ratio(x) for x in (3.44, None)] == ["3.4", "–"]
