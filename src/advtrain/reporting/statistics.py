"""Accuracies and how far to trust them, from rows of single examples."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Correct = NDArray[np.bool_]


@dataclass(frozen=True)
class Estimate:
    """An accuracy over seeds, in [0, 1].

    Attributes:
        mean: the mean of the seeds' accuracies.
        low: the lower end of the 95 % Wilson interval.
        high: its upper end.
        spread: the sample standard deviation over seeds; None for one seed.
        seeds: how many seeds the mean is over.
        examples: how many distinct examples it is over.
    """

    mean: float
    low: float
    high: float
    spread: float | None
    seeds: int
    examples: int


def wilson(accuracy: float, examples: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the score interval of a binomial share, as in Wilson (1927).

    Args:
        accuracy: the observed share, in [0, 1].
        examples: the number of trials, 1 or more.
        confidence: the two-sided coverage, in (0, 1).

    Returns:
        The lower and the upper end, in [0, 1].

    Raises:
        ValueError: if there are no trials or the share is outside [0, 1].
    """
    if examples < 1 or not 0 <= accuracy <= 1:
        raise ValueError(
            f"an interval needs a share in [0, 1] of 1 example or more, "
            f"got {accuracy} of {examples}"
        )
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    scale = 1 + z * z / examples
    centre = (accuracy + z * z / (2 * examples)) / scale
    variance = accuracy * (1 - accuracy) / examples + z * z / (4 * examples * examples)
    half = z * math.sqrt(variance) / scale
    # At the ends the formula gives 0 and 1 exactly; rounding must not move them.
    low = 0.0 if accuracy == 0 else max(0.0, centre - half)
    high = 1.0 if accuracy == 1 else min(1.0, centre + half)
    return low, high


def mean_and_spread(values: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean and the sample standard deviation (divisor n - 1); None for one value."""
    if not values:
        raise ValueError("a mean needs one value or more, got none")
    mean = float(np.mean(values))
    return mean, float(np.std(values, ddof=1)) if len(values) > 1 else None


def mean_of_all(values: Sequence[float | None]) -> float | None:
    """Return the mean; None if one value is not known, or there is none."""
    known = [value for value in values if value is not None]
    return mean_and_spread(known)[0] if known and len(known) == len(values) else None


def worst_case(clean: Correct, robust: Sequence[Correct]) -> Correct:
    """Say per example whether it withstood everything.

    For one attack, the point that the attack returned is its claim: an example is robust to it if
    the prediction at that point is the label. For the worst case the clean image is one more such
    point: an example counts if its clean prediction and that of every attack are the label.

    Args:
        clean: (N,) the clean prediction is the label.
        robust: for each attack, (N,) the prediction at its point is the label.

    Returns:
        (N,) booleans, true where nothing succeeded.
    """
    every: Correct = np.logical_and.reduce([clean, *robust])
    return every


def estimate(correct: Sequence[Correct], examples: Sequence[NDArray[np.int64]]) -> Estimate | None:
    """Estimate an accuracy over seeds.

    The interval is Wilson's for the mean accuracy with as many trials as there are *distinct*
    examples: seeds share their test examples, so counting an example once per seed would claim
    more trials than there were. It is therefore conservative about the seeds (it does not narrow
    with them) and says nothing of the variation between them, which the spread does.

    Args:
        correct: for each seed, (N,) booleans.
        examples: for each seed, the (N,) ids of those examples.

    Returns:
        The estimate; None if there is no seed.
    """
    if not correct:
        return None
    mean, spread = mean_and_spread([float(np.mean(one)) for one in correct])
    distinct = len(np.unique(np.concatenate(examples)))
    low, high = wilson(mean, distinct)
    return Estimate(mean, low, high, spread, len(correct), distinct)
