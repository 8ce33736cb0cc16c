"""`advtrain diff`: commits, experiments, params files and folders of rows, compared."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from advtrain.provenance import hash_file
from tests.pipeline.workspace import Workspace, set_beta

pytestmark = pytest.mark.workflow

BETA = "methods.trades.beta: 6.0 → 1.0"


@pytest.fixture(scope="module")
def edited(changed: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Return a workspace whose last commit changed TRADES's beta, and the one before did not."""
    return changed.copy(tmp_path_factory.mktemp("diff") / "work")


def compared(workspace: Workspace, *arguments: str, fails: bool) -> list[dict[str, Any]]:
    """Return the rows of `advtrain diff`; it fails where a number moved beyond noise."""
    workspace.run("advtrain", "diff", *arguments, "--json", "moved.json", fails=fails)
    found: dict[str, Any] = json.loads((workspace.root / "moved.json").read_text())
    rows: list[dict[str, Any]] = found["tiny"]["rows"]
    return rows


def keep_reference(workspace: Workspace, torch: str) -> None:
    """Keep the results as a reference, as if another version of torch had made them."""
    folder = workspace.root / "reports/reference/tiny@cpu"
    shutil.copytree(workspace.root / "results/collect/tiny", folder, dirs_exist_ok=True)
    facts = {
        "devices": ["cpu"],
        "processor": "one",
        "environment": {"python": "3", "torch": torch},
        "hours": 1.0,
        "finished": "today",
        "classes": 10,
        "commit": "abc",
        "files": {path.name: hash_file(path) for path in folder.glob("*.parquet")},
    }
    (folder / "reference.json").write_text(json.dumps(facts))


def test_a_parameter_moves_the_numbers_of_its_cells_alone(edited: Workspace) -> None:
    rows = compared(edited, "HEAD~1", fails=False)
    moved = [row for row in rows if row["verdict"] != "same"]
    assert {row["method"] for row in moved} == {"trades"}
    assert {row["method"] for row in rows} == {"natural", "fgsm_rs", "trades"}
    assert all(row["changes"] == [BETA] for row in moved)
    assert all(row["paired"] and row["examples"] == 60 for row in moved)
    assert all(not row["changes"] for row in rows if row["method"] != "trades")


def test_a_commit_is_what_the_workspace_was(edited: Workspace) -> None:
    assert {row["verdict"] for row in compared(edited, "HEAD", fails=False)} == {"same"}
    by_commits = compared(edited, "HEAD~1", "HEAD", fails=False)
    assert by_commits == compared(edited, "HEAD~1", fails=False)


def test_params_are_compared_from_the_store(edited: Workspace) -> None:
    params = yaml.safe_load((edited.root / "params.yaml").read_text())
    set_beta(6.0)(params)
    (edited.root / "before.yaml").write_text(yaml.safe_dump(params))
    from_store = compared(edited, "--params", "before.yaml", fails=False)
    assert from_store == compared(edited, "HEAD~1", fails=False)
    set_beta(3.0)(params)
    (edited.root / "never.yaml").write_text(yaml.safe_dump(params))
    rows = compared(edited, "--params", "never.yaml", "before.yaml", fails=False)
    # No cell of beta 3 was ever trained: the others are compared.
    assert {row["verdict"] for row in rows if row["method"] == "trades"} == {"only after"}


def test_experiments_are_revisions(edited: Workspace) -> None:
    edited.dvc("exp", "save", "--name", "kept")
    assert {row["verdict"] for row in compared(edited, "kept", fails=False)} == {"same"}


def test_a_folder_of_rows_is_a_side(edited: Workspace) -> None:
    folder = edited.root / "elsewhere/tiny@cpu"
    shutil.copytree(edited.root / "results/collect/tiny", folder)
    rows = compared(edited, "elsewhere/tiny@cpu", fails=False)
    assert {row["verdict"] for row in rows} == {"same"}


def test_reference_rows_are_kept_by_commits_without_a_lock(
    edited: Workspace, tmp_path: Path
) -> None:
    workspace = edited.copy(tmp_path / "work")
    keep_reference(workspace, "0.1")
    (workspace.root / "dvc.lock").unlink()
    workspace.commit("a reference")
    keep_reference(workspace, "0.2")
    out = workspace.run(
        *("advtrain", "diff", "HEAD", "--study", "tiny@cpu", "--json", "moved.json")
    ).stdout
    assert out.startswith("tiny@cpu: what moved from HEAD to the workspace")
    rows = json.loads((workspace.root / "moved.json").read_text())["tiny@cpu"]["rows"]
    assert {row["verdict"] for row in rows} == {"same"}
    assert all(row["changes"] == ["torch: 0.1 → 0.2"] for row in rows)
    stands = "HEAD has no dvc.lock; its reference run tiny@cpu stands for tiny."

    # Without a name, the reference is compared with the results, and so it is with a lock's.
    out = workspace.run("advtrain", "diff", "HEAD", "--json", "moved.json").stdout
    assert "what moved from HEAD (tiny@cpu) to the workspace" in out
    assert stands in out
    found = json.loads((workspace.root / "moved.json").read_text())
    assert list(found) == ["tiny"]
    changes = found["tiny"]["rows"][0]["changes"]
    assert any(change.startswith("torch: 0.1 → ") for change in changes)
    out = workspace.run("advtrain", "diff", "HEAD~1", "HEAD", "--json", "moved.json").stdout
    assert "what moved from HEAD~1 to HEAD (tiny@cpu)" in out
    assert stands in out
    assert list(json.loads((workspace.root / "moved.json").read_text())) == ["tiny"]
    workspace.commit("another reference")
    workspace.run("advtrain", "diff", "HEAD~1", "HEAD", "--study", "tiny", "--json", "moved.json")
    found = json.loads((workspace.root / "moved.json").read_text())
    assert list(found) == ["tiny@cpu"]

    # A reference is not compared with the workspace's copy of it where that has no results.
    shutil.rmtree(workspace.root / "results/collect")
    for side in ("HEAD", "reports/reference/tiny@cpu"):
        told = workspace.run("advtrain", "diff", side, fails=True).stderr
        assert "the workspace has no results of tiny" in told
        assert "`make reproduce STUDY=tiny`" in told


def test_results_are_not_compared_by_the_references_beside_them(
    edited: Workspace, tmp_path: Path
) -> None:
    workspace = edited.copy(tmp_path / "work")
    keep_reference(workspace, "0.1")
    workspace.commit("a reference beside a lock")
    workspace.run("advtrain", "diff", "HEAD", "--json", "moved.json")
    assert list(json.loads((workspace.root / "moved.json").read_text())) == ["tiny"]


def test_it_is_written_for_people(edited: Workspace) -> None:
    out = edited.run(
        *("advtrain", "diff", "HEAD~1", "--study", "tiny"), *("--md", "m.md", "--html", "m.html")
    ).stdout
    assert "what moved from HEAD~1 to the workspace" in out
    assert f"Changed for every number shown: {BETA}" in out
    assert "| trades |" in (edited.root / "m.md").read_text()
    assert "</html>" in (edited.root / "m.html").read_text()


def test_what_cannot_be_compared_is_told(edited: Workspace, tmp_path: Path) -> None:
    def told(*arguments: str, workspace: Workspace = edited) -> str:
        return workspace.run("advtrain", "diff", *arguments, fails=True).stderr

    assert "has no dvc.lock" in told("HEAD~2", "--study", "tiny")
    assert "unknown Git revision 'nonsense'" in told("nonsense")
    assert "did you mean 'tiny'" in told("HEAD", "--study", "tony")
    assert "there is no params file" in told("--params", "absent.yaml")
    bare = edited.copy(tmp_path / "bare")
    shutil.rmtree(bare.root / ".dvc/cache")
    assert "dvc fetch" in told("HEAD", workspace=bare)
