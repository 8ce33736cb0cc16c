"""Real data for the tests that need it."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

PACKED = Path(__file__).resolve().parents[2] / "shared" / "data"
# As the jobs run: tiny tensors cost several threads ten times what they cost one.
os.environ.setdefault("OMP_NUM_THREADS", "1")
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
