import math

import pytest

from advtrain.training.schedules import cosine, cyclic, multiplier, piecewise


def test_piecewise_drops_at_its_milestones() -> None:
    shares = [piecewise(step / 100, (0.5, 0.75), 0.1) for step in (0, 49, 50, 74, 75, 99)]
    assert shares == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_piecewise_drops_at_a_milestone_that_is_no_binary_fraction() -> None:
    for steps in (10, 70, 700):
        assert piecewise(7 * steps // 10 / steps, (0.7,), 0.1) == 0.1


def test_cosine_at_known_points() -> None:
    shares = [cosine(progress) for progress in (0, 1 / 3, 1 / 2, 2 / 3, 1)]
    assert shares == pytest.approx([1, 0.75, 0.5, 0.25, 0], abs=1e-12)


def test_cyclic_at_known_points() -> None:
    shares = [cyclic(progress, 0.5) for progress in (0, 0.25, 0.5, 0.75, 1)]
    assert shares == pytest.approx([0, 0.5, 1, 0.5, 0])
    shares = [cyclic(progress, 0.2) for progress in (0, 0.1, 0.2, 0.6, 1)]
    assert shares == pytest.approx([0, 0.5, 1, 0.5, 0])


def test_cyclic_may_peak_at_either_end() -> None:
    assert [cyclic(progress, 0.0) for progress in (0, 0.5)] == [1, 0.5]
    assert [cyclic(progress, 1.0) for progress in (0, 0.5)] == [0, 0.5]


@pytest.mark.parametrize("schedule", ["constant", "piecewise", "cosine", "cyclic"])
def test_every_schedule_is_a_share_of_the_peak(schedule: str) -> None:
    for step in range(100):
        share = multiplier(schedule, step / 100, milestones=(0.5,), factor=0.1, peak_share=0.3)
        assert 0 <= share <= 1
        assert math.isfinite(share)


def test_a_schedule_is_found_by_its_name() -> None:
    given = {"milestones": (0.2,), "factor": 0.5, "peak_share": 0.5}
    assert multiplier("constant", 0.25, **given) == 1
    assert multiplier("piecewise", 0.25, **given) == 0.5
    assert multiplier("cosine", 0.25, **given) == cosine(0.25)
    assert multiplier("cyclic", 0.25, **given) == 0.5
    with pytest.raises(ValueError, match="schedule 'linear' is unknown; expected constant"):
        multiplier("linear", 0.25, **given)
