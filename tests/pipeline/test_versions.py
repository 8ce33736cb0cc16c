"""Versions: clones, pulls, experiments and checkouts find what differs, and nothing else."""

from pathlib import Path

import pytest

from tests.pipeline.workspace import Workspace

pytestmark = pytest.mark.workflow


@pytest.fixture
def clone(workspace: Workspace, tmp_path: Path) -> Workspace:
    """Return a fresh clone of a finished workspace, with its results in a remote."""
    workspace.dvc("remote", "add", "-d", "shelf", str(tmp_path / "shelf"))
    workspace.dvc("push", "--quiet")
    workspace.commit("remote")
    workspace.run("git", "clone", "-q", str(workspace.root), str(tmp_path / "clone"))
    clone = Workspace(tmp_path / "clone")
    clone.run("git", "config", "user.name", "A Cloner")
    clone.run("git", "config", "user.email", "cloner@example.org")
    return clone


def test_a_clone_that_pulled_finds_nothing_to_do(clone: Workspace, workspace: Workspace) -> None:
    clone.dvc("pull", "--quiet")
    assert clone.is_finished()
    assert clone.tables() == workspace.tables()
    assert clone.dvc("status").stdout.strip() == "Data and pipelines are up to date."
    for path in clone.root.rglob("*"):  # whatever the time stamps say
        if path.is_file() and ".git" not in path.parts:
            path.touch()
    assert clone.is_finished()
    assert clone.journal() == []
    clone.edit(lambda p: p["methods"]["trades"].update(beta=2.0))
    done = clone.cells_of(lambda: clone.dvc("repro", "--quiet"))
    assert done
    assert all("/trades-" in id for id in done)


def test_results_alone_are_enough_for_the_tables(clone: Workspace, workspace: Workspace) -> None:
    clone.dvc("pull", "--quiet", "data/prepared", "results/train", "results/attack")
    assert not (clone.root / "checkpoints").exists()
    done = clone.done_by(clone.snakemake)
    assert set(done) == {"collect:tiny", "tables:tiny", "figures:tiny", "report:all"}
    table = "reports/tables/tiny/results.csv"
    assert (clone.root / table).read_bytes() == (workspace.root / table).read_bytes()


def test_an_experiment_in_its_own_folder(workspace: Workspace) -> None:
    before = len(workspace.journal())
    workspace.dvc("exp", "run", "--temp", "-n", "beta-one", "-S", "methods.trades.beta=1.0")
    assert len(workspace.journal()) == before  # nothing ran here
    assert workspace.is_finished()
    shown = workspace.dvc("exp", "diff", "--all", "HEAD", "beta-one", "--json").stdout
    assert "trades.beta" in shown  # the parameter that differs
    assert "trades-linf-0.1-s0" in shown  # and what it moved
    # Its cells are in the shared store: applied here, nothing is trained.
    workspace.edit(lambda p: p["methods"]["trades"].update(beta=1.0))
    done = workspace.done_by(workspace.snakemake)
    trained = {id: what for id, what in done.items() if id.startswith(("train", "attack"))}
    assert trained
    assert set(trained.values()) == {"restored from the store of finished cells"}


def test_a_checkout_without_dvc_is_seen(workspace: Workspace) -> None:
    workspace.edit(lambda p: p["methods"]["trades"].update(beta=1.0))
    workspace.dvc("repro", "--quiet")
    workspace.commit("beta 1")
    workspace.run("git", "checkout", "-q", "HEAD~1")
    status = workspace.run("advtrain", "status", fails=True).stdout
    assert "methods.trades.beta: 1.0 -> 6.0" in status
    workspace.dvc("checkout", "--quiet")
    assert workspace.is_finished()
    workspace.run("git", "checkout", "-q", "main")
    workspace.dvc("checkout", "--quiet")
    assert workspace.is_finished()


def test_dvc_lists_what_each_stage_reads(workspace: Workspace) -> None:
    import yaml

    stages = yaml.safe_load((workspace.root / "dvc.yaml").read_text())["stages"]
    outs = [
        path if isinstance(path, str) else next(iter(path))
        for stage in stages.values()
        for path in (*stage["outs"], *stage.get("metrics", []))
    ]
    status = workspace.run("git", "ls-files").stdout.splitlines()
    tracked = [p for p in status if any(p == o or p.startswith(f"{o}/") for o in outs)]
    assert tracked == []  # what DVC keeps is not in git as well
    for manifest in workspace.root.rglob("manifest.json"):
        if ".pipeline" not in manifest.parts:
            name = manifest.relative_to(workspace.root).as_posix()
            assert any(name == o or name.startswith(f"{o}/") for o in outs), name
