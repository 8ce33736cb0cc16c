"""AutoAttack, transfer, transformations, kept images and audits in the real graph."""

import contextlib
import signal
import subprocess
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

from tests.pipeline.workspace import PARAMS, clean_environment, make_workspace

pytestmark = pytest.mark.workflow

ATTACKED: dict[str, Any] = {
    **PARAMS,
    "methods": {"natural": {}, "trades": {"steps": 2}},
    "attacks": {
        "fgsm": {},
        "pgd_5": {"module": "pgd", "steps": 5},
        "autoattack": {},
        "noise": {"module": "random_noise", "draws": 2},
        "moved": {"module": "transfer", "source": "natural", "steps": 2},
        "turned": {"module": "spatial", "tries": 3},
        "fog_3": {"module": "corruption", "kind": "fog", "severity": 3},
    },
    "studies": {
        "tiny": {
            **PARAMS["studies"]["tiny"],
            "epsilons": [0.1],
            "methods": ["natural", "trades"],
            "attacks": ["fgsm", "pgd_5", "autoattack", "noise", "moved", "turned", "fog_3"],
            "attack_examples": {"default": None, "autoattack": 12},
            "weights": {"default": ["last", "best"], "autoattack": ["last"]},
            "keep_adversarial": {"pgd_5": "float16"},
            "curve": {"attack": "pgd_5", "epsilons": [0.1, 1]},
        }
    },
}
TRADES = "results/attack/tiny/trades-linf-0.1-s0"
AUTO = "attack:tiny/trades-linf-0.1-s0/autoattack-linf-0.1"


def test_every_kind_of_attack_runs(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path / "work", ATTACKED)
    done = workspace.done_by(workspace.snakemake)
    assert set(done.values()) == {"computed"}
    root = workspace.root

    rows = pq.read_table(root / "results/collect/tiny/outcomes.parquet").to_pylist()
    of_trades = [row for row in rows if row["cell"] == "trades-linf-0.1-s0"]
    counts = {
        name: sum(row["attack"] == name for row in of_trades)
        for name in sorted({row["attack"] for row in of_trades})
    }
    assert counts == {
        "autoattack-linf-0.1": 12,
        **{f"{name}-linf-0.1": 60 for name in ("fgsm", "moved", "noise", "pgd_5")},
        **{f"{name}-linf-0.1-best": 60 for name in ("fgsm", "moved", "noise", "pgd_5")},
        **{f"{name}-spatial{which}": 60 for name in ("turned",) for which in ("", "-best")},
        **{f"{name}-corruption{which}": 60 for name in ("fog_3",) for which in ("", "-best")},
        "pgd_5-linf-1": 60,
    }
    stages = {row["stage"] for row in rows if row["attack"] == "autoattack-linf-0.1"}
    assert stages <= {"", "apgd-ce", "apgd-t", "fab-t", "square"}
    assert len({row["protocol"] for row in of_trades}) == len(counts)
    assert {row["claim"] for row in rows} <= {"none", "confirmed"}

    kept = load_file(root / TRADES / "pgd_5-linf-0.1/adversarial.safetensors")
    assert kept["x_adv"].dtype == np.float16
    assert kept["x_adv"].shape == (60, 1, 8, 8)

    for table in ("results", "audits", "comparisons", "overlap", "transformed"):
        assert (root / f"reports/tables/tiny/{table}.md").read_text()
    transformed = pq.read_table(root / "reports/tables/tiny/transformed.parquet")
    assert {"turned_accuracy", "fog_3_accuracy"} <= set(transformed.column_names)
    results = (root / "reports/tables/tiny/results.md").read_text()
    assert "n = 12" in results
    page = (root / "reports/index.html").read_text()
    assert "autoattack" in page
    assert "Audits" in page


def test_a_killed_autoattack_ends_with_the_same_bytes(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path / "work", ATTACKED)
    workspace.snakemake("--", "train_all")
    spec = workspace.spec(*AUTO.split(":"))
    unbroken = workspace.copy(tmp_path / "unbroken")
    assert unbroken.done_by(lambda: unbroken.by_hand(spec)) == {AUTO: "computed"}

    job = subprocess.Popen(
        ["python", "-m", "pipeline.run", spec], cwd=workspace.root, env=clean_environment()
    )
    wip = workspace.root / ".pipeline/wip/attack/tiny/trades-linf-0.1-s0"
    while job.poll() is None and stage_of(wip) < 2:
        time.sleep(0.01)
    assert job.poll() is None  # a job that ends before its kill would test nothing
    job.send_signal(signal.SIGKILL)
    job.wait()
    assert stage_of(wip) >= 2
    workspace.by_hand(spec)
    assert workspace.tables() == unbroken.tables()


def stage_of(wip: Path) -> int:
    """Return the stage of which an unfinished AutoAttack has kept rows; 0 for none."""
    with contextlib.suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        (saved,) = wip.glob("autoattack-linf-0.1.*/rows.npz")
        return int(np.load(saved)["at"][0])
    return 0


def test_a_strict_study_fails_where_an_audit_does(tmp_path: Path) -> None:
    """Trained without attacks, TRADES's steps of 0 stand for a defence that hides nothing."""
    workspace = make_workspace(tmp_path / "work", ATTACKED)

    def change(params: dict[str, Any]) -> None:
        # One step of a hundredth of the budget, ten times: an attack that has only begun.
        params["attacks"] = {"slow": {"module": "pgd", "steps": 10, "step_size": "epsilon/100"}}
        params["studies"]["tiny"] |= {
            "methods": ["natural"],
            "attacks": ["slow"],
            "audits": "strict",
            "weights": ["last"],
        }
        for key in ("keep_adversarial", "curve", "attack_examples"):
            del params["studies"]["tiny"][key]

    workspace.edit(change)
    told = workspace.snakemake(fails=True)
    assert "natural-s0: converged: of the gain of slow-linf-0.1" in told.stdout + told.stderr
    page = (workspace.root / "reports/index.html").read_text()
    assert "audit failed: converged" in page  # what was found is shown all the same
    assert "1 failed; the study is strict: no table was written" in page
