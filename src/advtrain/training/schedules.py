"""Learning-rate schedules: functions of the share of the training that is done."""

import math
from collections.abc import Sequence
from typing import Literal

Schedule = Literal["constant", "piecewise", "cosine", "cyclic"]


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


def multiplier(
    schedule: Schedule,
    progress: float,
    *,
    milestones: Sequence[float],
    factor: float,
    peak_share: float,
) -> float:
    """Evaluate the schedule that a recipe names.

    It depends on the position alone, so that a resumed run needs no scheduler state.

    Args:
        schedule: its name.
        progress: share of the weight steps done before this one, in [0, 1).
        milestones: of `piecewise`.
        factor: of `piecewise`.
        peak_share: of `cyclic`.

    Returns:
        The share of the peak learning rate, in [0, 1].

    Raises:
        ValueError: if there is no such schedule.
    """
    if schedule == "constant":
        return 1.0
    if schedule == "piecewise":
        return piecewise(progress, milestones, factor)
    if schedule == "cosine":
        return cosine(progress)
    if schedule == "cyclic":
        return cyclic(progress, peak_share)
    raise ValueError(
        f"schedule {schedule!r} is unknown; expected constant, piecewise, cosine or cyclic"
    )
