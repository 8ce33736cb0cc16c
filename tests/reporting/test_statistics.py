import numpy as np
import pytest
from scipy.stats import binomtest

from advtrain.reporting.statistics import (
    estimate,
    mean_and_spread,
    mean_of_all,
    wilson,
    worst_case,
)


@pytest.mark.parametrize("examples", [1, 7, 360, 10_000])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.93, 1.0])
def test_the_interval_is_scipys(share: float, examples: int) -> None:
    right = round(share * examples)
    expected = binomtest(right, examples).proportion_ci(method="wilson")
    low, high = wilson(right / examples, examples)
    assert low == pytest.approx(expected.low, abs=1e-12)
    assert high == pytest.approx(expected.high, abs=1e-12)


def test_the_interval_is_the_textbooks() -> None:
    # Newcombe (1998), table I, method 3: 81 of 263.
    low, high = wilson(81 / 263, 263)
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)


def test_nothing_and_everything_are_ends_of_the_interval() -> None:
    assert wilson(0.0, 10)[0] == 0.0
    assert wilson(1.0, 10)[1] == 1.0


@pytest.mark.parametrize(("share", "examples"), [(0.5, 0), (1.1, 10), (-0.1, 10)])
def test_an_impossible_share_is_refused(share: float, examples: int) -> None:
    with pytest.raises(ValueError, match=r"an interval needs a share in \[0, 1\]"):
        wilson(share, examples)


def test_the_spread_is_the_samples() -> None:
    mean, spread = mean_and_spread([0.8, 0.9, 1.0])
    assert mean == pytest.approx(0.9)
    assert spread == pytest.approx(0.1)
    assert mean_and_spread([0.7]) == (0.7, None)
    with pytest.raises(ValueError, match="one value or more"):
        mean_and_spread([])


def test_a_mean_of_all_needs_all() -> None:
    assert mean_of_all([1.0, 3.0]) == 2.0
    assert mean_of_all([1.0, None]) is None
    assert mean_of_all([]) is None


def test_the_worst_case_needs_the_clean_image_and_every_attack() -> None:
    clean = np.array([True, True, True, False])
    # The last example is wrong on the clean image, and an attack moved it to its label.
    first = np.array([True, False, True, True])
    second = np.array([True, True, False, True])
    assert worst_case(clean, [first, second]).tolist() == [True, False, False, False]
    assert worst_case(clean, []).tolist() == clean.tolist()


def test_seeds_do_not_count_as_examples() -> None:
    ids = np.arange(10)
    found = estimate([ids < 8, ids < 6], [ids, ids])
    assert found is not None
    assert found.mean == pytest.approx(0.7)
    assert found.spread == pytest.approx(0.1 * 2**0.5)
    assert (found.seeds, found.examples) == (2, 10)
    assert (found.low, found.high) == wilson(found.mean, 10)


def test_no_seed_has_no_estimate() -> None:
    assert estimate([], []) is None
