import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest

from advtrain.tracking.mlflow_tracker import MlflowTracker
from tests.tracking.tracked_repository import TrackedRepository


@pytest.fixture(autouse=True)
def _only_the_repository(monkeypatch):
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_UI", "DVC_ROOT", "ADVTRAIN_STORE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def repository(tmp_path):
    """A repository in which nothing has been computed and no run is shown."""
    return TrackedRepository(tmp_path)


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory):
    """MLflow's database without a run; it takes MLflow seconds to make one."""
    path = tmp_path_factory.mktemp("database") / "mlflow.db"
    with MlflowTracker(f"sqlite:///{path}", path.with_suffix(".lock")).delivering():
        pass
    return path


@pytest.fixture
def give_database(empty_database):
    """Give a repository an empty database."""

    def give(repository):
        with (
            closing(sqlite3.connect(empty_database)) as source,
            closing(sqlite3.connect(repository.root / "mlflow.db")) as target,
        ):
            source.backup(target)
        return repository

    return give


@pytest.fixture
def tracked(repository, give_database):
    """A repository with an empty database."""
    return give_database(repository)


@pytest.fixture
def process_that_ended():
    """The number of a process that is no more."""
    process = subprocess.Popen([sys.executable, "-S", "-c", ""])
    process.wait()
    return process.pid
