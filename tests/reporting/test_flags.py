from dataclasses import replace

import numpy as np
import pytest

from advtrain.reporting.flags import (
    Flag,
    collapse,
    merge,
    overfitting,
    robust_overfitting,
    step_gap,
    stopped,
    unsound,
)
from advtrain.reporting.statistics import Run
from advtrain.reporting.wording import percent_words
from tests.reporting.made import certified, evaluated, measured

CELL = "fgsm_mixed-linf-0.2-s0"


def test_a_training_that_ended_as_collapsed_is_flagged_with_its_cause() -> None:
    cell = measured(CELL, [], status="collapsed", cause="the loss was nan in epoch {3}")
    flag = collapse(cell, None, 10)
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
    flag = collapse(measured(CELL, [one]), one.clean, 10)
    assert (flag is not None) == flagged
    if flag:
        words = f"clean accuracy {100 * clean:.1f} % is not distinguishable from chance, 10.0 %"
        assert flag.words(percent_words) == f"collapsed: {words}"


def test_without_rows_nothing_is_said_of_chance() -> None:
    assert collapse(measured(CELL, []), None, 10) is None


@pytest.mark.parametrize(
    ("single", "iterative", "flagged"),
    [
        (0.9, 0.0, True),
        (0.61, 0.3, True),
        (0.6, 0.3, False),  # twice, not more
        (0.71, 0.5, False),  # over 20 points, and still robust to several
        (0.3, 0.1, False),  # 20 points, not more
        (0.4, 0.5, False),
    ],
)
def test_over_20_points_and_over_twice_as_much_under_one_step_are_flagged(
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


def test_attacks_are_compared_on_the_examples_that_both_met() -> None:
    # FGSM breaks 0 to 3 of 10 examples; the ensemble met 2, 3, 4 and 5, the last first, and breaks
    # 2 and 3: both leave 2 of the 4. Over all of their own, FGSM would leave 10 points more.
    easy = evaluated("fgsm-linf-0.2", 0.6, backwards=1, examples=10)
    same = replace(
        evaluated("autoattack-linf-0.2", 0.5, examples=4),
        example=np.array([5, 4, 3, 2]),
        robust=np.array([True, True, False, False]),
    )
    gap = step_gap([easy, same])
    assert gap is not None
    assert (gap.easy_accuracy, gap.hard_accuracy, gap.gap) == (0.5, 0.5, 0.0)
    assert (gap.examples, gap.met) == (4, 10)
    # Of 6, 7, 8 and 9 FGSM leaves all and the ensemble one: 75 points, and four times as much.
    fallen = replace(same, example=np.arange(6, 10), robust=np.array([False, False, False, True]))
    flag = overfitting([easy, fallen])
    assert flag is not None
    assert flag.words(percent_words) == (
        "catastrophic overfitting: robust accuracy 100.0 % under fgsm, 25.0 % under autoattack, "
        "on the 4 examples that met both"
    )
    # FGSM leaves the first 40 of 100, which the ensemble met, and of which that breaks 30. Over all
    # of its own FGSM leaves 40 %, 15 points more, which would hide it.
    hidden = evaluated("fgsm-linf-0.2", 0.0, backwards=1, broken=range(40, 110), examples=100)
    assert overfitting([hidden, evaluated("autoattack-linf-0.2", 0.25, examples=40)]) is not None


def test_attacks_without_a_common_example_are_not_compared() -> None:
    easy = evaluated("fgsm-linf-0.2", 1.0, backwards=1, examples=10)
    apart = evaluated("pgd_20-linf-0.2", 0.0, examples=10)
    assert step_gap([easy, replace(apart, example=np.arange(10, 20))]) is None


def test_the_gap_on_most_examples_is_told_of_equal_ones() -> None:
    easy = evaluated("fgsm-linf-0.2", 1.0, backwards=1)
    found = step_gap(
        [evaluated("autoattack-linf-0.2", 0.0, examples=20), easy, evaluated("pgd-linf-0.2", 0.0)]
    )
    assert found is not None
    assert (found.hard, found.examples, found.on) == ("pgd", 100, "")


def test_an_attack_without_gradients_is_neither() -> None:
    queries = evaluated("square-linf-0.2", 0.0, backwards=0)
    assert overfitting([evaluated("fgsm-linf-0.2", 0.9, backwards=1), queries]) is None
    assert overfitting([evaluated("pgd_20-linf-0.2", 0.1), queries]) is None


def test_a_training_that_its_method_ended_is_flagged_with_the_cause() -> None:
    cell = measured(CELL, [], status="stopped", cause="catastrophic overfitting in epoch 7")
    flag = stopped(cell)
    assert flag is not None
    assert flag.words(percent_words) == "stopped: catastrophic overfitting in epoch 7"
    assert stopped(measured(CELL, [])) is None
    assert collapse(cell, None, 10) is None


@pytest.mark.parametrize(
    ("best", "flagged"),
    [
        # Of 100 examples, c that the best alone has right: (c -+ 1.96 sqrt(c + 1 - c^2/102)) / 102.
        (60, True),  # 0.0980 -+ 0.0608
        (57, True),  # 0.0686 -+ 0.0527: low end 0.0160
        (56, False),  # 0.0588 -+ 0.0495: low end 0.0093, not over 1 point
        (50, False),
        (40, False),
    ],
)
def test_a_best_epoch_clearly_above_the_last_is_robust_overfitting(
    best: int, flagged: bool
) -> None:
    ids = np.arange(100)
    flag = robust_overfitting(Run(ids, ids < 50), Run(ids, ids < best))
    assert (flag is not None) == flagged
    if flag:
        assert flag.words(percent_words) == (
            f"robust overfitting: worst-case accuracy {best}.0 % at the best epoch, 50.0 % at "
            f"the last"
        )


def test_a_gap_that_is_lost_in_the_noise_is_none() -> None:
    # The same 10 points with 30 against 20 discordant examples: 0.0980 -+ 0.1346.
    ids = np.arange(100)
    last, best = Run(ids, ids < 50), Run(ids, (ids >= 20) & (ids < 80))
    assert robust_overfitting(last, best) is None


PROVEN = certified("ibp-linf-0.2", [0.0] * 6 + [0.2] * 4, wrong=[9])


@pytest.mark.parametrize(
    ("attack", "robust", "clean", "refuted"),
    [
        ("pgd_20-linf-0.2", 0.4, 1.0, 0),  # examples 4 and on withstand it
        ("pgd_20-linf-0.2", 0.1, 1.0, 3),  # 6, 7 and 8; the certificate is wrong about 9
        ("pgd_20-linf-0.1", 0.2, 1.0, 2),  # a smaller budget lies within
        ("pgd_20-linf-0.2", 0.4, 0.3, 1),  # a wrong clean image refutes it too
        ("pgd_20-linf-0.3", 0.0, 1.0, 0),
        ("pgd_20-l2-0.2", 0.0, 1.0, 0),
        ("pgd_20-linf-0.2-best", 0.0, 1.0, 0),
    ],
)
def test_a_certificate_that_an_attack_refutes_is_unsound(
    attack: str, robust: float, clean: float, refuted: int
) -> None:
    one = evaluated(attack, robust, clean=clean, examples=10)
    flag = unsound(measured(CELL, [one], [PROVEN]), PROVEN)
    assert (flag is not None) == (refuted > 0)
    if flag:
        words = f"unsound: certified examples were broken, {refuted} by {attack}: this is a bug"
        assert flag.words(percent_words) == words


def test_an_attack_on_the_model_says_nothing_of_the_smoothed_one() -> None:
    smoothed = certified("smoothing_025-l2", [1.0] * 10)
    one = evaluated("pgd_20-l2-0.2", 0.0, examples=10)
    assert unsound(measured(CELL, [one], [smoothed]), smoothed) is None


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
