"""Workspaces for the tests of the real graph."""

from pathlib import Path

import pytest
from filelock import FileLock

from tests.pipeline.workspace import Workspace, make_workspace


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Return a workspace that has run to the end and was recorded; copied, never changed.

    It is made once for all worker processes of a test run.
    """
    shared = tmp_path_factory.getbasetemp()
    if shared.name.startswith("popen-"):
        shared = shared.parent
    root = shared / "finished"
    with FileLock(shared / "finished.lock"):
        if not (shared / "finished.ok").exists():
            workspace = make_workspace(root)
            workspace.snakemake()
            workspace.dvc("repro", "--quiet")
            workspace.commit("results")
            (shared / "finished.ok").touch()
    return Workspace(root)


@pytest.fixture
def workspace(finished: Workspace, tmp_path: Path) -> Workspace:
    """Return a finished workspace of one's own."""
    return finished.copy(tmp_path / "work")


@pytest.fixture
def fresh(tmp_path: Path) -> Workspace:
    """Return a workspace in which nothing has run."""
    return make_workspace(tmp_path / "work")
