"""After an edit, exactly the cells that it touches, once, whichever tool is asked."""

import csv
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.workspace import Workspace, computed_cells, only, set_beta

pytestmark = pytest.mark.workflow

ATTACKS = ("fgsm", "pgd_2")
NEW_TABLES = {"collect:tiny", "tables:tiny", "figures:tiny", "report:all"}


def cells(method: str, epsilons: tuple[str, ...] = ("0.1", "0.2")) -> set[str]:
    """Name the training cells of a method, their probes and all attacks on them."""
    found = set()
    for e in epsilons:
        found |= {f"train:tiny/{method}-linf-{e}-s0", f"probe:tiny/{method}-linf-{e}-s0/gradients"}
        found |= {f"attack:tiny/{method}-linf-{e}-s0/{a}-linf-{e}" for a in ATTACKS}
    return found


def add_epsilon(params: dict[str, Any]) -> None:
    params["studies"]["tiny"]["epsilons"].append(0.3)


def add_attack(params: dict[str, Any]) -> None:
    params["attacks"]["cw_2"] = {"module": "cw", "steps": 2}
    params["studies"]["tiny"]["attacks"].append("cw_2")


def test_dvc_after_snakemake_does_nothing(workspace: Workspace, first_run: dict[str, Any]) -> None:
    assert first_run["by_dvc"] == {}
    assert workspace.dvc("status").stdout.strip() == "Data and pipelines are up to date."
    assert workspace.is_finished()


def test_a_parameter_of_a_method_touches_its_cells(
    finished: Workspace, changed: Workspace, tmp_path: Path
) -> None:
    workspace = changed.copy(tmp_path / "work")
    done = workspace.done_since(len(finished.journal()))  # by `dvc repro`
    assert computed_cells(done) == cells("trades")
    assert set(done) == cells("trades") | NEW_TABLES
    assert workspace.is_finished()  # Snakemake after DVC: nothing
    differs = workspace.dvc("params", "diff", "HEAD~1").stdout
    assert "methods.trades.beta" in differs
    assert "6.0" in differs
    moved = workspace.dvc("metrics", "diff", "HEAD~1").stdout
    assert "trades-linf-0.2-s0" in moved
    assert "fgsm_rs" not in moved
    assert "natural" not in moved


def test_a_parameter_changed_back_comes_from_the_store(changed: Workspace, tmp_path: Path) -> None:
    workspace = changed.copy(tmp_path / "work")
    before = workspace.tables()
    workspace.edit(set_beta(6.0))
    done = workspace.done_by(workspace.snakemake)
    assert {id for id, what in done.items() if what.startswith("restored")} == cells("trades")
    assert computed_cells(done) == set()
    assert workspace.tables() != before
    assert workspace.done_by(lambda: workspace.dvc("repro", "--quiet")) == {}
    assert workspace.run("git", "diff", "HEAD~1").stdout == ""  # as it was committed


def test_an_epsilon_more_and_an_attack_more(workspace: Workspace) -> None:
    workspace.edit(add_epsilon)
    workspace.edit(add_attack)
    # What is there stays as it is: the new budget's cells, and the new attack on every cell.
    old = {f"attack:tiny/natural-s0/cw_2-linf-{e}" for e in ("0.1", "0.2")}
    new = {f"attack:tiny/natural-s0/{a}-linf-0.3" for a in (*ATTACKS, "cw_2")}
    for method in ("fgsm_rs", "trades"):
        cell = f"attack:tiny/{method}-linf"
        old |= {f"{cell}-{e}-s0/cw_2-linf-{e}" for e in ("0.1", "0.2")}
        new |= cells(method, ("0.3",)) | {f"{cell}-0.3-s0/cw_2-linf-0.3"}
    # Its loss is shown in units of the largest budget, which is another now.
    new.add("probe:tiny/natural-s0/gradients")
    done = workspace.cells_of(lambda: workspace.snakemake("--", "attack_all", "probe_all"))
    assert done == old | new


def test_an_epsilon_less_is_no_cell_but_new_tables(workspace: Workspace) -> None:
    workspace.edit(only(("natural", "fgsm_rs", "trades"), (0.2,)))
    assert set(workspace.done_by(workspace.snakemake)) == NEW_TABLES
    with (workspace.root / "reports/tables/tiny/results.csv").open(newline="") as file:
        assert {row["epsilon"] for row in csv.DictReader(file)} == {"0.2"}
    # What it leaves behind is an orphan.
    status = workspace.run("advtrain", "status").stdout
    assert "orphan   results/train/tiny/trades-linf-0.1-s0" in status
    workspace.run("advtrain", "prune")
    assert not (workspace.root / "results/train/tiny/trades-linf-0.1-s0").exists()
    assert not (workspace.root / "checkpoints/tiny/trades-linf-0.1-s0").exists()
    assert workspace.is_finished()


def test_code_touches_what_imports_it_and_words_touch_nothing(workspace: Workspace) -> None:
    trades = workspace.root / "src/advtrain/methods/trades.py"
    text = trades.read_text()
    trades.write_text(f"# A comment.\n{text}".replace('"""', '"""Words. ', 1))
    assert workspace.is_finished()
    trades.write_text(f"{text}\nUNUSED = 1\n")
    plan = workspace.run("advtrain", "status", fails=True).stdout
    assert "code: src/advtrain/methods/trades.py changed" in plan
    assert "fgsm_rs" not in plan
    pgd = workspace.root / "src/advtrain/attacks/pgd.py"
    pgd.write_text(pgd.read_text() + "\nUNUSED = 1\n")
    attacked = {f"attack:tiny/natural-s0/pgd_2-linf-{e}" for e in ("0.1", "0.2")}
    attacked |= {one for one in cells("fgsm_rs") if "/pgd_2-" in one}
    done = workspace.cells_of(lambda: workspace.snakemake("--", "attack_all", "probe_all"))
    assert done == cells("trades") | attacked


def test_an_edit_while_jobs_run_is_refused(workspace: Workspace) -> None:
    workspace.edit(set_beta(1.0))
    workspace.snakemake("-n")  # the specs of this graph are written
    spec = workspace.spec("train", "tiny/trades-linf-0.1-s0")
    trades = workspace.root / "src/advtrain/methods/trades.py"
    trades.write_text(trades.read_text() + "\nUNUSED = 1\n")
    failed = workspace.by_hand(spec, fails=True)
    assert "src/advtrain/methods/trades.py changed since the run began" in failed.stderr


def test_force_computes_again_and_agrees_whatever_the_batch_size(workspace: Workspace) -> None:
    before = workspace.tables()
    workspace.edit(lambda p: p["studies"]["tiny"].update(attack_batch_size=16))
    assert workspace.is_finished()
    workspace.edit(only(("trades",)))
    layers = ("attack_all", "probe_all")
    done = workspace.done_by(lambda: workspace.snakemake("-R", "train", "--", *layers))
    assert done == dict.fromkeys(cells("trades", ("0.1",)), "computed")
    assert workspace.tables() == before


def test_another_study_by_config_and_by_select(workspace: Workspace) -> None:
    def more(params: dict[str, Any]) -> None:
        params["studies"]["other"] = {**params["studies"]["tiny"], "methods": ["natural", "trades"]}
        params["studies"]["other"]["epsilons"] = [0.1]

    workspace.edit(more)
    done = workspace.done_by(lambda: workspace.snakemake("--config", "run=[other]"))
    # The cells are those of the study `tiny`: they come from the store.
    assert {
        what for id, what in done.items() if id.startswith(("train:other", "attack:other"))
    } == {"restored from the store of finished cells"}
    assert (workspace.root / "reports/tables/other/results.md").exists()
    workspace.run("advtrain", "select", "other")
    assert "run: [other]" in (workspace.root / "params.yaml").read_text()
    assert workspace.is_finished()
