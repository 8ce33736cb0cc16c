"""A small source that no published one is like."""

import numpy as np
import pytest

from advtrain.data.source import Source, part_of


@pytest.fixture
def uneven() -> Source:
    """A source with three classes of 60, 30 and 10 examples, and an official test part of 20."""
    generator = np.random.default_rng(0)
    labels = generator.permutation(np.repeat([0, 1, 2], [60, 30, 10]))
    return Source(
        name="uneven",
        classes=("many", "some", "few"),
        channels=3,
        size=4,
        train=part_of(generator.integers(0, 256, (100, 3, 4, 4), np.uint8), labels),
        test=part_of(generator.integers(0, 256, (20, 3, 4, 4), np.uint8), labels[:20]),
        citation="nobody",
    )
