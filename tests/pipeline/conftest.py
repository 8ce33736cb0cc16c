"""Workspaces for the tests of the real graph: run once, copied by each test that changes one."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from tests.pipeline.workspace import Workspace, make_workspace, set_beta

RUN = "run.json"


def made_once(
    factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]
) -> Workspace:
    """Return the workspace of that name, made once for all worker processes of a test run."""
    shared = factory.getbasetemp()
    if shared.name.startswith("popen-"):
        shared = shared.parent
    root, finished = shared / name, shared / f"{name}.ok"
    with FileLock(shared / f"{name}.lock"):
        if not finished.exists():
            shutil.rmtree(root, ignore_errors=True)
            make(root)
            finished.touch()
    return Workspace(root)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Return a workspace that has run to the end and was recorded; copied, never changed."""

    def make(root: Path) -> None:
        workspace = make_workspace(root)
        ran = workspace.snakemake()
        by_dvc = workspace.done_by(lambda: workspace.dvc("repro", "--quiet"))
        told = {"told": ran.stdout + ran.stderr, "by_dvc": by_dvc}
        (root / ".pipeline" / RUN).write_text(json.dumps(told))
        workspace.commit("results")

    return made_once(tmp_path_factory, "finished", make)


@pytest.fixture
def first_run(finished: Workspace) -> dict[str, Any]:
    """Return what the run of the finished workspace `told`, and what jobs ran again `by_dvc`."""
    found: dict[str, Any] = json.loads((finished.root / ".pipeline" / RUN).read_text())
    return found


@pytest.fixture(scope="session")
def changed(finished: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Return the finished workspace after an edit of TRADES's beta and `dvc repro`, committed.

    Copied, never changed.
    """

    def make(root: Path) -> None:
        workspace = finished.copy(root)
        workspace.edit(set_beta(1.0))
        workspace.dvc("repro", "--quiet")
        workspace.commit("beta 1")

    return made_once(tmp_path_factory, "changed", make)


@pytest.fixture(scope="session")
def pushed(finished: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Return the finished workspace with its results in a remote, to be cloned."""

    def make(root: Path) -> None:
        workspace = finished.copy(root)
        workspace.dvc("remote", "add", "-d", "shelf", f"{root}.shelf")
        workspace.dvc("push", "--quiet")
        workspace.commit("remote")

    return made_once(tmp_path_factory, "pushed", make)


@pytest.fixture
def workspace(finished: Workspace, tmp_path: Path) -> Workspace:
    """Return a finished workspace of one's own."""
    return finished.copy(tmp_path / "work")


@pytest.fixture
def fresh(tmp_path: Path) -> Workspace:
    """Return a workspace in which nothing has run."""
    return make_workspace(tmp_path / "work")
