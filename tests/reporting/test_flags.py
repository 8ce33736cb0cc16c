import pytest

from advtrain.reporting.flags import Flag, collapse, merge, overfitting
from advtrain.reporting.wording import percent_words
from tests.reporting.made import evaluated, measured

CELL = "fgsm_mixed-linf-0.2-s0"


def test_a_training_that_ended_as_collapsed_is_flagged_with_its_cause() -> None:
    cell = measured(CELL, [], status="collapsed", cause="the loss was nan in epoch {3}")
    flag = collapse(cell, [], 10)
    assert flag is not None
    assert flag.words(percent_words) == "collapsed: the loss was nan in epoch {3}"


@pytest.mark.parametrize(
    ("clean", "flagged"),
    [
        (0.05, True),  # below chance
        (0.10, True),
        (0.15, True),  # 100 examples: the interval 0.093 to 0.233 contains 0.1
        (0.19, False),  # 0.125 to 0.278 does not
        (0.90, False),
    ],
)
def test_a_clean_accuracy_no_better_than_chance_is_flagged(clean: float, flagged: bool) -> None:
    one = evaluated("pgd_20-linf-0.2", 0.0, clean=clean)
    flag = collapse(measured(CELL, [one]), [one], 10)
    assert (flag is not None) == flagged
    if flag:
        words = f"collapsed: clean accuracy {100 * clean:.1f} % is not above chance, 10.0 %"
        assert flag.words(percent_words) == words


def test_without_rows_nothing_is_said_of_chance() -> None:
    assert collapse(measured(CELL, []), [], 10) is None


@pytest.mark.parametrize(
    ("single", "iterative", "flagged"),
    [(0.9, 0.0, True), (0.71, 0.5, True), (0.7, 0.5, False), (0.3, 0.1, False), (0.4, 0.5, False)],
)
def test_more_than_20_points_between_one_step_and_several_are_flagged(
    single: float, iterative: float, flagged: bool
) -> None:
    found = overfitting(
        [
            evaluated("fgsm-linf-0.2", single, backwards=1),
            evaluated("pgd_20-linf-0.2", iterative + 0.05),
            evaluated("cw_20-linf-0.2", iterative),
        ]
    )
    assert (found is not None) == flagged


def test_both_numbers_are_stated() -> None:
    flag = overfitting(
        [
            evaluated("fgsm-linf-0.2", 0.92, backwards=1),
            evaluated("pgd_20-linf-0.2", 0.03),
            evaluated("cw_20-linf-0.2", 0.01),
        ]
    )
    assert flag is not None
    expected = "catastrophic overfitting: robust accuracy 92.0 % under fgsm, 1.0 % under cw_20"
    assert flag.words(percent_words) == expected
    assert "0.9200 under fgsm, 0.0100 under cw_20" in flag.words(lambda share: f"{share:.4f}")


def test_an_attack_without_gradients_is_neither() -> None:
    queries = evaluated("square-linf-0.2", 0.0, backwards=0)
    assert overfitting([evaluated("fgsm-linf-0.2", 0.9, backwards=1), queries]) is None
    assert overfitting([evaluated("pgd_20-linf-0.2", 0.1), queries]) is None


def test_what_holds_for_several_seeds_is_said_once() -> None:
    same = Flag("failed", "{cause}", {"cause": "out of memory"})
    other = Flag("failed", "{cause}", {"cause": "killed"})
    found = merge([(same, 2), (other, 1), (same, 0)], (0, 1, 2))
    assert [flag.words(percent_words) for flag in found] == [
        "failed: out of memory (seeds 0, 2)",
        "failed: killed (seed 1)",
    ]
    (alone,) = merge([(same, 0)], (0,))
    assert alone.words(percent_words) == "failed: out of memory"
