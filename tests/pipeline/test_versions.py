"""Versions: clones, pulls, experiments and checkouts find what differs, and nothing else."""

from pathlib import Path

import pytest

from tests.pipeline.workspace import Workspace, marker, set_beta

pytestmark = pytest.mark.workflow


@pytest.fixture
def clone(pushed: Workspace, tmp_path: Path) -> Workspace:
    """Return a fresh clone of a finished workspace, whose results are in a remote."""
    pushed.run("git", "clone", "-q", str(pushed.root), str(tmp_path / "clone"))
    clone = Workspace(tmp_path / "clone")
    clone.run("git", "config", "user.name", "A Cloner")
    clone.run("git", "config", "user.email", "cloner@example.org")
    return clone


def test_a_clone_that_pulled_finds_nothing_to_do(clone: Workspace, pushed: Workspace) -> None:
    clone.dvc("pull", "--quiet")
    assert clone.is_finished()
    assert clone.tables() == pushed.tables()
    assert clone.dvc("status").stdout.strip() == "Data and pipelines are up to date."
    for path in clone.root.rglob("*"):  # whatever the time stamps say
        if path.is_file() and ".git" not in path.parts:
            path.touch()
    assert clone.is_finished()
    assert clone.journal() == []
    clone.edit(set_beta(2.0))
    done = clone.done_by(lambda: clone.dvc("repro", "--quiet", "train"))
    assert done == {f"train:tiny/trades-linf-{e}-s0": "computed" for e in ("0.1", "0.2")}


def test_results_alone_are_enough_for_the_tables(clone: Workspace, pushed: Workspace) -> None:
    clone.dvc(
        "pull", "--quiet", "data/prepared", "results/train", "results/attack", "results/probe"
    )
    assert not (clone.root / "checkpoints").exists()
    planned = clone.run("advtrain", "plan").stdout
    assert [line.split()[0] for line in planned.splitlines()[:-1]] == [
        *("collect", "tables", "figures", "report")
    ]
    done = clone.done_by(lambda: clone.snakemake("--", marker("tables", "tiny")))
    assert done == {"collect:tiny": "computed", "tables:tiny": "computed"}
    table = "reports/tables/tiny/results.csv"
    assert (clone.root / table).read_bytes() == (pushed.root / table).read_bytes()


def test_an_experiment_in_its_own_folder(workspace: Workspace) -> None:
    before = len(workspace.journal())
    workspace.dvc("exp", "run", "--temp", "-n", "beta-one", "-S", "methods.trades.beta=1.0")
    assert len(workspace.journal()) == before  # nothing ran here
    assert workspace.is_finished()
    shown = workspace.dvc("exp", "diff", "--all", "HEAD", "beta-one", "--json").stdout
    assert "trades.beta" in shown  # the parameter that differs
    assert "trades-linf-0.1-s0" in shown  # and what it moved
    # Its cells are in the shared store: applied here, nothing is trained.
    workspace.edit(set_beta(1.0))
    done = workspace.done_by(lambda: workspace.snakemake("--", "attack_all"))
    assert done
    assert set(done.values()) == {"restored from the store of finished cells"}


def test_a_checkout_without_dvc_is_seen(changed: Workspace, tmp_path: Path) -> None:
    workspace = changed.copy(tmp_path / "work")
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
