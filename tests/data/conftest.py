import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from advtrain.data.source import Source, part_of

PACKED = Path(__file__).resolve().parents[3] / "shared" / "data"
FOLDERS = {
    "mnist": "MNIST/raw",
    "fashion_mnist": "FashionMNIST/raw",
    "cifar10": "cifar-10-batches-py",
    "cifar100": "cifar-100-python",
    "imagenette_sample": "imagenette-sample",
}


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of raw data that holds a published data set, or a skip with the reason.

    It is what ADVTRAIN_TEST_DATA names, or is unpacked from beside the repository.
    """
    unpacked: dict[str, Path] = {}

    def folder(name: str) -> Path:
        given = os.environ.get("ADVTRAIN_TEST_DATA")
        if given and (Path(given) / FOLDERS[name]).is_dir():
            return Path(given)
        if not (PACKED / "unpack.py").is_file():
            pytest.skip(f"no {name}: set ADVTRAIN_TEST_DATA to a folder with {FOLDERS[name]}")
        if name not in unpacked:
            target = tmp_path_factory.mktemp(name)
            command = [sys.executable, str(PACKED / "unpack.py"), name, "--into", str(target)]
            subprocess.run(command, check=True, capture_output=True)
            unpacked[name] = target
        return unpacked[name]

    return folder


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
