import math
from typing import get_args

import pytest
import torch

from advtrain.training.schedules import (
    Schedule,
    cosine,
    cyclic,
    multiplier,
    one_cycle,
    piecewise,
)


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


def test_one_cycle_at_known_points() -> None:
    shares = [one_cycle(progress, 0.4) for progress in (0, 0.2, 0.4, 0.7, 1)]
    assert shares == pytest.approx([0.04, 0.52, 1, (1 + 4e-6) / 2, 4e-6], abs=1e-12)
    assert [one_cycle(progress, 0.0) for progress in (0, 0.5)] == pytest.approx(
        [1, (1 + 4e-6) / 2], abs=1e-12
    )
    assert one_cycle(0.5, 1.0) == pytest.approx(0.52)


@pytest.mark.parametrize(("steps", "peak_share"), [(10, 0.3), (97, 0.5), (1000, 0.25)])
def test_one_cycle_is_that_of_torch(steps: int, peak_share: float) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=0.7, total_steps=steps, pct_start=peak_share, cycle_momentum=False
    )
    # torch counts from its first step to its last one, and peaks a step before the share.
    peak = (peak_share * steps - 1) / (steps - 1)
    for step in range(steps):
        expected = optimizer.param_groups[0]["lr"]
        assert 0.7 * one_cycle(step / (steps - 1), peak) == pytest.approx(expected, abs=1e-12)
        if step < steps - 1:
            optimizer.step()
            scheduler.step()


@pytest.mark.parametrize("schedule", get_args(Schedule))
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5, 1.0])
def test_a_warm_up_scales_the_schedule_linearly(schedule: str, warmup: float) -> None:
    given = {"milestones": (0.2, 0.6), "factor": 0.3, "peak_share": 0.3}
    for step in range(100):
        progress = step / 100
        full = multiplier(schedule, progress, **given)
        share = multiplier(schedule, progress, warmup=warmup, **given)
        if progress >= warmup:
            assert share == full
        else:
            assert share == pytest.approx(full * progress / warmup, rel=1e-12)


@pytest.mark.parametrize("schedule", get_args(Schedule))
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
    assert multiplier("one_cycle", 0.25, **given) == one_cycle(0.25, 0.5)
    with pytest.raises(ValueError, match="schedule 'linear' is unknown; expected constant"):
        multiplier("linear", 0.25, **given)
