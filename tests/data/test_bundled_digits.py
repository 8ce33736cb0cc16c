from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from advtrain.data.digits import digits
from advtrain.data.prepare import prepare
from advtrain.data.source import Source
from advtrain.data.store import load_description, load_split


@pytest.fixture(scope="module")
def source() -> Source:
    return digits(Path("not used"))


def test_pixels_are_scaled_exactly(source: Source) -> None:
    (first, *_) = source.train.read(np.arange(1797))
    assert first.dtype == np.uint8
    everything = np.concatenate(list(source.train.read(np.arange(1797))))
    levels = load_digits().images.astype(int)
    for level in range(17):
        nearest = int(Fraction(level * 255, 16) + Fraction(1, 2))
        assert set(everything[:, 0][levels == level].tolist()) == {nearest}


def test_facts(source: Source) -> None:
    assert (source.channels, source.size, source.classes) == (1, 8, tuple("0123456789"))
    assert source.test is None
    assert source.train.labels.tolist() == load_digits().target.tolist()


def test_prepared_by_default(source: Source, tmp_path: Path) -> None:
    prepare(source, tmp_path)
    facts = load_description(tmp_path)
    assert facts["counts"] == {"train": 1213, "validation": 135, "test": 449, "unlabelled": 0}
    for counts in facts["class_counts"].values():
        assert max(counts) - min(counts) <= 0.1 * sum(counts) / 10 + 2
    assert load_split(tmp_path, "train").images.shape == (1213, 1, 8, 8)
