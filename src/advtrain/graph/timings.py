"""Timings: where a run's time went, from the file of measured times beside its results.

They differ between runs of the same thing, so they are in no history and no key.
"""

from collections.abc import Mapping, Sequence
from typing import Any

TRAINING = ("data", "attack", "update")
"""The sections of an epoch that train: minibatches, the inner maximisation, the weight step."""

SECTIONS = (*TRAINING, "validation")

PEAK = "peak_memory_bytes"


def shares(epochs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Say which share of the time in all sections each one took, over some epochs.

    Args:
        epochs: seconds of each section, among whatever else was measured.

    Returns:
        A share in [0, 1] for each of `SECTIONS`, which sum to 1; empty where no time was measured.
    """
    seconds = {section: sum(one[section] for one in epochs) for section in SECTIONS}
    whole = sum(seconds.values())
    return {section: spent / whole for section, spent in seconds.items()} if whole else {}


def images_per_second(epochs: Sequence[Mapping[str, float]]) -> float | None:
    """Return the rows trained on per second of data, attack and update, over some epochs.

    Args:
        epochs: seconds of each section and `images_per_second` of each epoch.

    Returns:
        The rate; None where no time was measured.
    """
    seconds = [sum(one[section] for section in TRAINING) for one in epochs]
    images = [spent * one["images_per_second"] for spent, one in zip(seconds, epochs, strict=True)]
    return sum(images) / sum(seconds) if sum(seconds) else None


def measured_epochs(timing: Mapping[str, Any]) -> list[Mapping[str, float]]:
    """Return what was measured of each epoch; empty for what was timed as a whole only."""
    epochs: Sequence[Mapping[str, Any]] = timing.get("epochs", ())
    return [one["measured"] for one in epochs if "measured" in one]


def peak_memory(timing: Mapping[str, Any]) -> int | None:
    """Return the most bytes that were in use at once; None where nobody looked.

    A training that was killed and resumed has a peak of each of its processes.
    """
    found = [timing.get(PEAK), *(one.get(PEAK) for one in measured_epochs(timing))]
    return max((int(one) for one in found if one is not None), default=None)


def as_metrics(measured: Mapping[str, float] | None) -> dict[str, float]:
    """Name what was measured of an epoch, for a tracker: `time/attack_share` and the like."""
    if not measured:
        return {}
    found = {f"time/{section}_share": share for section, share in shares([measured]).items()}
    rate = images_per_second([measured])
    found |= {} if rate is None else {"time/images_per_second": rate}
    return found | ({"memory/peak_bytes": measured[PEAK]} if PEAK in measured else {})
