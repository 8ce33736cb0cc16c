"""Learning-rate schedules: functions of the share of the training that is done."""

import math
from collections.abc import Sequence
from typing import Literal

Schedule = Literal["constant", "piecewise", "cosine", "cyclic", "one_cycle"]


def piecewise(progress: float, milestones: Sequence[float], factor: float) -> float:
    """Multiply by `factor` at every milestone that is reached (Rice et al. 2020, sec. 3).

    Args:
        progress: share of the weight steps done before this one, in [0, 1).
        milestones: shares of the training, in [0, 1].
        factor: what the learning rate is multiplied by at each.

    Returns:
        The share of the peak learning rate.
    """
    return float(factor ** sum(progress >= milestone for milestone in milestones))


def cosine(progress: float) -> float:
    """Fall along half a cosine from 1 to 0 (Loshchilov and Hutter 2017, eq. 5, no restart).

    Args:
        progress: share of the weight steps done before this one, in [0, 1).

    Returns:
        The share of the peak learning rate.
    """
    return (1 + math.cos(math.pi * progress)) / 2


def cyclic(progress: float, peak_share: float) -> float:
    """Rise linearly from 0 to the peak and fall back to 0 (Wong et al. 2020, sec. 5.1).

    Args:
        progress: share of the weight steps done before this one, in [0, 1).
        peak_share: share of the training at which the peak is reached, in [0, 1].

    Returns:
        The share of the peak learning rate; 0 at the first step, as in the official code.
    """
    if progress < peak_share:
        return progress / peak_share
    return (1 - progress) / (1 - peak_share)


def one_cycle(progress: float, peak_share: float) -> float:
    """Rise from a small rate to the peak and fall far below it (Smith and Topin 2018).

    Along half a cosine each, from 1/25 to 1 and on to 1/250000: torch's `OneCycleLR`, which reaches
    the peak and the end one step earlier; the momentum stays.

    Args:
        progress: share of the weight steps done before this one, in [0, 1).
        peak_share: share of the training at which the peak is reached, in [0, 1].

    Returns:
        The share of the peak learning rate.
    """
    first, last = 1 / 25, 1 / 25 / 1e4
    if progress < peak_share:
        return 1 + (first - 1) * cosine(progress / peak_share)
    return last + (1 - last) * cosine((progress - peak_share) / (1 - peak_share))


def multiplier(
    schedule: Schedule,
    progress: float,
    *,
    milestones: Sequence[float],
    factor: float,
    peak_share: float,
    warmup: float = 0.0,
) -> float:
    """Evaluate the schedule that a recipe names, after a linear warm-up (Goyal et al. 2017).

    It depends on the position alone, so that a resumed run needs no scheduler state.

    Args:
        schedule: its name.
        progress: share of the weight steps done before this one, in [0, 1).
        milestones: of `piecewise`.
        factor: of `piecewise`.
        peak_share: of `cyclic` and `one_cycle`.
        warmup: share of the training over which the schedule is scaled linearly from 0 to 1.

    Returns:
        The share of the peak learning rate, in [0, 1].

    Raises:
        ValueError: if there is no such schedule.
    """
    share = _share(schedule, progress, milestones, factor, peak_share)
    return share * progress / warmup if progress < warmup else share


def _share(
    schedule: Schedule,
    progress: float,
    milestones: Sequence[float],
    factor: float,
    peak_share: float,
) -> float:
    if schedule == "constant":
        return 1.0
    if schedule == "piecewise":
        return piecewise(progress, milestones, factor)
    if schedule == "cosine":
        return cosine(progress)
    if schedule == "cyclic":
        return cyclic(progress, peak_share)
    if schedule == "one_cycle":
        return one_cycle(progress, peak_share)
    raise ValueError(
        f"schedule {schedule!r} is unknown; expected constant, piecewise, cosine, cyclic or "
        "one_cycle"
    )
