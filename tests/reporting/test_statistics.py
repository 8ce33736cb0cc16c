import numpy as np
import pytest
from scipy.stats import binomtest

from advtrain.reporting.statistics import (
    Run,
    common_places,
    difference,
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
    found = estimate([Run(ids, ids < 8), Run(ids, ids < 6)])
    assert found is not None
    assert found.mean == pytest.approx(0.7)
    assert found.spread == pytest.approx(0.1 * 2**0.5)
    assert (found.seeds, found.examples) == (2, 10)
    assert (found.low, found.high) == wilson(found.mean, 10)


def test_no_seed_has_no_estimate() -> None:
    assert estimate([]) is None


def runs(*right: list[int], examples: int = 10) -> list[Run]:
    """Make a run for each list of right examples."""
    ids = np.arange(examples)
    return [Run(ids, np.isin(ids, one)) for one in right]


def test_a_difference_is_that_of_agresti_and_min() -> None:
    # 100 examples, c = 10 that ours alone has right, b = 3 that theirs alone has.
    ours, theirs = (
        runs([*range(50), *range(50, 60)], [], examples=100)[:1],
        runs([*range(50), *range(60, 63)], examples=100),
    )
    found = difference(ours, theirs)
    assert found is not None
    assert found.mean == pytest.approx(0.07)
    # 7/102 ± 1.959964 sqrt(14 - 49/102) / 102, on paper.
    assert found.low == pytest.approx(0.068627 - 0.070652, abs=1e-5)
    assert found.high == pytest.approx(0.068627 + 0.070652, abs=1e-5)
    assert (found.spread, found.examples) == (None, 100)
    back = difference(theirs, ours)
    assert back is not None
    assert (back.mean, back.low, back.high) == (-found.mean, -found.high, -found.low)


def test_without_a_discordant_example_a_difference_still_has_an_interval() -> None:
    same = runs([1, 2, 3])
    found = difference(same, same)
    assert found is not None
    assert found.mean == 0
    # ± 1.96 sqrt(1) / 12
    assert (round(found.low, 4), round(found.high, 4)) == (-0.1633, 0.1633)


def test_a_difference_over_seeds_is_of_the_means_of_each_example() -> None:
    # Ours has example 0 right in both seeds and 1 in one; theirs has neither.
    found = difference(runs([0, 1], [0]), runs([], []))
    assert found is not None
    assert found.mean == pytest.approx(0.15)
    # Sums of 1 + 0.5 and 1 + 0.25 over 10 examples: 1.5/12 ± 1.96 sqrt(2.25 - 2.25/12) / 12.
    assert found.low == pytest.approx(0.125 - 0.234565, abs=1e-5)


def test_the_spread_of_a_difference_is_that_of_the_pairs_or_of_both_groups() -> None:
    ours, theirs = runs([0, 1, 2, 3], [0, 1]), runs([0, 1], [])
    paired = difference(ours, theirs, same_runs=True)
    assert paired is not None
    assert paired.spread == 0
    apart = difference(ours, theirs)
    assert apart is not None
    # Both have 0.2 / sqrt(2) over their seeds.
    assert apart.spread == pytest.approx(0.2)
    # One seed has no spread, so that of the other side alone would be too small.
    for one in (difference(ours, theirs[:1]), difference(ours[:1], theirs)):
        assert one is not None
        assert one.spread is None


def test_a_difference_is_over_the_examples_that_both_have() -> None:
    ours = [Run(np.array([4, 2, 9]), np.array([True, False, True]))]
    theirs = [Run(np.array([9, 4, 7]), np.array([False, True, True]))]
    found = difference(ours, theirs)
    assert found is not None
    assert (found.mean, found.examples) == (0.5, 2)
    assert difference(ours, [Run(np.array([1]), np.array([True]))]) is None
    assert difference([], theirs) is None


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_order_of_the_examples_is_of_no_matter(seeds: int) -> None:
    drawn = np.random.default_rng(0)
    ids = np.arange(50)
    ours, theirs = (
        [Run(ids, drawn.random(50) < share) for _ in range(seeds)] for share in (0.4, 0.7)
    )
    mixed = drawn.permutation(50)
    shuffled = [Run(run.example[mixed], run.correct[mixed]) for run in theirs]
    assert difference(ours, shuffled) == difference(ours, theirs)
    assert difference(shuffled, theirs) == difference(theirs, theirs)
    assert estimate(shuffled) == estimate(theirs)
    assert [estimate([one]) for one in shuffled] == [estimate([one]) for one in theirs]


def test_common_places_pair_the_examples_that_both_have() -> None:
    one, other = np.array([7, 3, 5]), np.array([5, 9, 7])
    ours, theirs = common_places(one, other)
    assert sorted(one[ours].tolist()) == [5, 7]
    assert one[ours].tolist() == other[theirs].tolist()
