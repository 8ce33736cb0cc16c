"""After an edit, exactly the cells that it touches, once, whichever tool is asked."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.pipeline.workspace import Workspace

pytestmark = pytest.mark.workflow

ATTACKS = ("fgsm", "pgd_2")


def cells(method: str, epsilons: tuple[str, ...] = ("0.1", "0.2")) -> set[str]:
    """Name the training cells of a method and all attacks on them."""
    found = set()
    for e in epsilons:
        found.add(f"train:tiny/{method}-linf-{e}-s0")
        found |= {f"attack:tiny/{method}-linf-{e}-s0/{a}-linf-{e}" for a in ATTACKS}
    return found


def set_beta(value: float) -> Callable[[dict[str, Any]], None]:
    def change(params: dict[str, Any]) -> None:
        params["methods"]["trades"]["beta"] = value

    return change


def add_epsilon(params: dict[str, Any]) -> None:
    params["studies"]["tiny"]["epsilons"].append(0.3)


def add_attack(params: dict[str, Any]) -> None:
    params["attacks"]["cw_2"] = {"module": "cw", "steps": 2}
    params["studies"]["tiny"]["attacks"].append("cw_2")


def test_a_parameter_of_a_method_touches_its_cells(workspace: Workspace) -> None:
    assert workspace.is_finished()
    workspace.edit(set_beta(1.0))
    assert workspace.cells_of(lambda: workspace.dvc("repro", "--quiet")) == cells("trades")
    assert workspace.is_finished()  # Snakemake after DVC: nothing
    done = workspace.dvc("params", "diff").stdout
    assert "methods.trades.beta" in done
    assert "6.0" in done
    moved = workspace.dvc("metrics", "diff").stdout
    assert "trades-linf-0.2-s0" in moved
    assert "fgsm_rs" not in moved
    assert "natural" not in moved

    # Changed back, the earlier results return from the store; nothing is trained.
    before = workspace.tables()
    workspace.edit(set_beta(6.0))
    done_back = workspace.done_by(workspace.snakemake)
    assert {id for id, what in done_back.items() if what.startswith("restored")} == cells("trades")
    assert not {id for id, what in done_back.items() if what == "computed"} & cells("trades")
    assert workspace.tables() != before
    workspace.dvc("repro", "--quiet")
    assert workspace.run("git", "status", "--porcelain").stdout == ""  # as it was committed


def test_snakemake_then_dvc_do_the_same_cells_once(workspace: Workspace) -> None:
    workspace.edit(set_beta(1.0))
    assert workspace.cells_of(workspace.snakemake) == cells("trades")
    assert workspace.done_by(lambda: workspace.dvc("repro", "--quiet")) == {}
    assert workspace.dvc("status").stdout.strip() == "Data and pipelines are up to date."


def test_an_epsilon_more_and_an_attack_more(workspace: Workspace) -> None:
    workspace.edit(add_epsilon)
    new = {f"attack:tiny/natural-s0/{a}-linf-0.3" for a in ATTACKS}
    expected = cells("fgsm_rs", ("0.3",)) | cells("trades", ("0.3",)) | new
    assert workspace.cells_of(lambda: workspace.snakemake("--", "attack_all")) == expected

    workspace.edit(add_attack)
    done = workspace.cells_of(lambda: workspace.snakemake("--", "attack_all"))
    assert len(done) == 3 + 2 * 3
    assert all(id.startswith("attack:") and "/cw_2-" in id for id in done)

    # An epsilon less: no cell, but new tables; what it leaves behind is an orphan.
    def remove(params: dict[str, Any]) -> None:
        params["studies"]["tiny"]["epsilons"].remove(0.1)

    workspace.edit(remove)
    assert set(workspace.done_by(workspace.snakemake)) == {
        "collect:tiny",
        "tables:tiny",
        "figures:tiny",
        "report:all",
    }
    status = workspace.run("advtrain", "status").stdout
    assert "orphan   results/train/tiny/trades-linf-0.1-s0" in status
    shown = (workspace.root / "reports/tables/tiny/results.csv").read_text()
    assert "0.1" not in {line.split(",")[1] for line in shown.splitlines()}
    workspace.run("advtrain", "prune")
    assert not (workspace.root / "results/train/tiny/trades-linf-0.1-s0").exists()
    assert not (workspace.root / "checkpoints/tiny/trades-linf-0.1-s0").exists()
    assert workspace.is_finished()


def test_code_touches_what_imports_it_and_words_touch_nothing(workspace: Workspace) -> None:
    trades = "src/advtrain/methods/trades.py"
    text = (workspace.root / trades).read_text()
    (workspace.root / trades).write_text(f"# A comment.\n{text}".replace('"""', '"""Words. ', 1))
    assert workspace.is_finished()
    done = workspace.done_by(lambda: workspace.dvc("repro", "--quiet"))
    assert done == {}
    (workspace.root / trades).write_text(f"{text}\nUNUSED = 1\n")
    plan = workspace.run("advtrain", "status", fails=True).stdout
    assert f"code: {trades} changed" in plan
    assert "fgsm_rs" not in plan
    assert workspace.cells_of(lambda: workspace.snakemake("--", "attack_all")) == cells("trades")
    attack = "src/advtrain/attacks/pgd.py"
    (workspace.root / attack).write_text((workspace.root / attack).read_text() + "\nUNUSED = 1\n")
    done_attack = workspace.cells_of(lambda: workspace.snakemake("--", "attack_all"))
    assert done_attack
    assert all("/pgd_2-" in id for id in done_attack)


def test_an_edit_while_jobs_run_is_refused(workspace: Workspace) -> None:
    workspace.edit(set_beta(1.0))
    workspace.snakemake("-n")  # the specs of this graph are written
    specs = (workspace.root / ".pipeline/specs/train/tiny").glob("trades-linf-0.1-s0.*.json")
    spec = max(specs, key=lambda path: path.stat().st_ctime)
    trades = workspace.root / "src/advtrain/methods/trades.py"
    trades.write_text(trades.read_text() + "\nUNUSED = 1\n")
    failed = workspace.run(
        "python", "-m", "pipeline.run", str(spec.relative_to(workspace.root)), fails=True
    )
    assert "src/advtrain/methods/trades.py changed since the run began" in failed.stderr


def test_force_computes_again_and_agrees(workspace: Workspace) -> None:
    before = workspace.tables()
    done = workspace.done_by(lambda: workspace.snakemake("-R", "train", "--", "attack_all"))
    assert done["train:tiny/trades-linf-0.1-s0"] == "computed"
    assert done["attack:tiny/trades-linf-0.1-s0/pgd_2-linf-0.1"] == "computed"
    assert workspace.tables() == before


def test_another_study_by_config_and_by_select(workspace: Workspace) -> None:
    def more(params: dict[str, Any]) -> None:
        params["studies"]["other"] = {**params["studies"]["tiny"], "methods": ["natural", "trades"]}

    workspace.edit(more)
    done = workspace.done_by(lambda: workspace.snakemake("--config", "run=[other]"))
    # The cells are those of the study `tiny`: they come from the store.
    assert {what for id, what in done.items() if id.startswith("train:other")} == {
        "restored from the store of finished cells"
    }
    assert (workspace.root / "reports/tables/other/results.md").exists()
    workspace.run("advtrain", "select", "other")
    assert "run: [other]" in (workspace.root / "params.yaml").read_text()
    assert workspace.is_finished()
