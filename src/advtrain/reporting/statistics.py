"""Accuracies, their differences, and how far to trust them, from rows of single examples."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Correct = NDArray[np.bool_]


class Run(NamedTuple):
    """What came out of one seed.

    Attributes:
        example: (N,) ids.
        correct: (N,) the example counts as right.
    """

    example: NDArray[np.int64]
    correct: Correct


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


@dataclass(frozen=True)
class Difference:
    """How much more accurate one of two is, in [-1, 1], on the same examples.

    Attributes:
        mean: the mean over examples, of the means over seeds.
        low: the lower end of the 95 % interval.
        high: its upper end.
        spread: the sample standard deviation over seeds; None where it is not known.
        examples: how many examples both were tried on.
    """

    mean: float
    low: float
    high: float
    spread: float | None
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
    if len(values) == 1:
        return float(values[0]), None
    return float(np.mean(values)), float(np.std(values, ddof=1))


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


def estimate(runs: Sequence[Run]) -> Estimate | None:
    """Estimate an accuracy over seeds.

    The interval is Wilson's for the mean accuracy with as many trials as there are *distinct*
    examples: seeds share their test examples, so counting an example once per seed would claim
    more trials than there were. It is therefore conservative about the seeds (it does not narrow
    with them) and says nothing of the variation between them, which the spread does.

    Args:
        runs: one for each seed.

    Returns:
        The estimate; None if there is no seed.
    """
    if not runs:
        return None
    mean, spread = mean_and_spread(_accuracies(runs))
    distinct = len(_by_example(runs)[0])
    low, high = wilson(mean, distinct)
    return Estimate(mean, low, high, spread, len(runs), distinct)


def difference(
    ours: Sequence[Run], theirs: Sequence[Run], *, same_runs: bool = False
) -> Difference | None:
    """Estimate how much more accurate `ours` is than `theirs`, paired by example.

    The interval is that of Agresti and Min (2005) for matched pairs, which for one seed each is
    Wald's from the b and c examples that one of the two alone has right, with half an example
    added to each cell of the 2 x 2 table:

        (c - b) / (n + 2) ± 1.96 sqrt(b + c + 1 - (c - b)^2 / (n + 2)) / (n + 2).

    With several seeds an example's difference is that of its means over seeds, and the sums of
    these differences and of their squares stand for c - b and b + c. As with `estimate`, the
    interval speaks of the examples and the spread of the seeds.

    Args:
        ours: one run for each seed.
        theirs: likewise; examples that only one of the two was tried on do not count.
        same_runs: the k-th of both belong together (two weights of one training), so that the
            spread is that of the k differences; else the two spreads are added in quadrature,
            where both sides have two seeds or more.

    Returns:
        The difference; None without a common example.
    """
    if not ours or not theirs:
        return None
    count, total, squares = _differences(ours, theirs)
    if not count:
        return None
    centre = total / (count + 2)
    variance = squares + 1 - total * total / (count + 2)
    half = NormalDist().inv_cdf(0.975) * math.sqrt(variance) / (count + 2)
    if same_runs:
        pairs = zip(_accuracies(ours), _accuracies(theirs), strict=True)
        spread = mean_and_spread([our - their for our, their in pairs])[1]
    else:
        found = [mean_and_spread(_accuracies(runs))[1] for runs in (ours, theirs)]
        known = [one for one in found if one is not None]
        spread = math.hypot(*known) if len(known) == len(found) else None
    low, high = max(-1.0, centre - half), min(1.0, centre + half)
    return Difference(total / count, low, high, spread, count)


def common_places(
    one: NDArray[np.int64], other: NDArray[np.int64]
) -> tuple[NDArray[np.intp] | slice, NDArray[np.intp] | slice]:
    """Say where the examples that both have stand in each, in one order for both.

    Args:
        one: (N,) distinct ids.
        other: (M,) distinct ids.
    """
    # Nearly always they are the same ones, and to compare is cheaper than to sort.
    if np.array_equal(one, other):
        return slice(None), slice(None)
    _, ours, theirs = np.intersect1d(one, other, return_indices=True)
    return ours, theirs


def _differences(ours: Sequence[Run], theirs: Sequence[Run]) -> tuple[int, float, float]:
    """Return how many examples both have, the sum of their differences, and that of the squares."""
    (one, *more), (other, *others) = ours, theirs
    if not more and not others and np.array_equal(one.example, other.example):
        total = np.count_nonzero(one.correct) - np.count_nonzero(other.correct)
        return len(one.example), float(total), float(np.count_nonzero(one.correct != other.correct))
    (our_ids, our_means), (their_ids, their_means) = _by_example(ours), _by_example(theirs)
    our_place, their_place = common_places(our_ids, their_ids)
    differences = our_means[our_place] - their_means[their_place]
    return len(differences), float(differences.sum()), float((differences**2).sum())


def share(correct: Correct) -> float:
    """Return the share that is right, which numpy's mean of booleans finds more slowly."""
    return np.count_nonzero(correct) / len(correct)


def _accuracies(runs: Sequence[Run]) -> list[float]:
    return [share(run.correct) for run in runs]


def _by_example(runs: Sequence[Run]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the ids, each once and rising, and the mean over the runs that were tried on it."""
    first = runs[0].example
    rising = bool(np.all(first[1:] > first[:-1]))
    if rising and len(runs) == 1:
        return first, runs[0].correct.astype(np.float64)
    if rising and all(np.array_equal(run.example, first) for run in runs[1:]):
        return first, np.sum([run.correct for run in runs], axis=0) / len(runs)
    ids, place = np.unique(np.concatenate([run.example for run in runs]), return_inverse=True)
    right = np.concatenate([run.correct for run in runs]).astype(np.float64)
    return ids, np.bincount(place, weights=right) / np.bincount(place)
