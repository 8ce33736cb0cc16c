"""Runs: the same bytes however they go, kills survived, failures shown, nothing lost."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.workspace import Workspace, clean_environment, marker, only

pytestmark = pytest.mark.workflow

BANNER = '<div class="banner"'
TABLE = "tables/tiny/results.csv"
FORCED = {"ADVTRAIN_FORCE": "1"}
CELL = "tiny/trades-linf-0.1-s0"
TRAINED = f"train:{CELL}"


def epoch_of(workspace: Workspace, name: str) -> int:
    try:
        path = workspace.root / f".pipeline/progress/train/{name}.json"
        return int(json.loads(path.read_text()).get("epoch", 0))
    except (OSError, ValueError):
        return 0


def test_a_killed_training_ends_with_the_same_bytes(workspace: Workspace, tmp_path: Path) -> None:
    before = workspace.tables()
    workspace.edit(only(("trades",)))
    workspace.edit(lambda p: p["recipes"]["short"].update(epochs=12))
    workspace.snakemake("-n")
    spec = workspace.spec("train", CELL)
    unbroken = workspace.copy(tmp_path / "unbroken")
    assert unbroken.done_by(lambda: unbroken.by_hand(spec)) == {TRAINED: "computed"}

    for stop_at in (2, 7):  # the second run goes on from where the first was killed
        job = subprocess.Popen(
            ["python", "-m", "pipeline.run", spec], cwd=workspace.root, env=clean_environment()
        )
        while job.poll() is None and epoch_of(workspace, CELL) < stop_at:
            time.sleep(0.005)
        assert job.poll() is None  # a job that ends before its kill would test nothing
        job.send_signal(signal.SIGKILL)
        job.wait()
    assert list((workspace.root / ".pipeline/wip/train/tiny").iterdir())
    assert workspace.tables() == before  # no kill leaves half a result
    done = workspace.done_by(lambda: workspace.snakemake("--", "train_all"))
    assert done == {TRAINED: "computed"}
    assert workspace.tables() == unbroken.tables()


def test_a_killed_workflow_continues_with_the_same_bytes_on_one_core(
    finished: Workspace, fresh: Workspace
) -> None:
    run = subprocess.Popen(
        ["snakemake", "--cores", "2"],
        cwd=fresh.root,
        env=clean_environment(),
        start_new_session=True,
        stderr=subprocess.DEVNULL,
    )
    while len(fresh.journal()) < 3:
        time.sleep(0.05)
        assert run.poll() is None
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    done = {job["stage"] + ":" + job["name"] for job in fresh.journal()}
    assert list((fresh.root / ".snakemake/locks").iterdir())  # it was killed with its locks held
    again = fresh.done_by(lambda: fresh.run("snakemake", "--cores", "1"))
    assert not {id for id, what in again.items() if what == "computed"} & done
    assert fresh.is_finished()
    assert fresh.tables() == finished.tables()


def test_what_fails_is_shown_until_it_is_mended(workspace: Workspace) -> None:
    def wild(params: dict[str, Any]) -> None:
        params["recipes"]["wild"] = {**params["recipes"]["short"], "learning_rate": 1e12}
        params["studies"]["tiny"]["recipe"] = {"default": "short", "fgsm_rs": "wild"}

    table, page = (workspace.root / f"reports/{name}" for name in (TABLE, "index.html"))
    before = table.read_bytes()
    workspace.edit(only(("natural", "fgsm_rs", "trades")))
    workspace.edit(wild)
    trades = workspace.root / "src/advtrain/methods/trades.py"
    good = trades.read_text()
    crafting = "        with crafting("
    assert crafting in good
    broken = f"        raise ValueError('broken on purpose')\n{crafting}"
    trades.write_text(good.replace(crafting, broken, 1))
    # A failed cell stops no other.
    journal = len(workspace.journal())
    failed = workspace.snakemake(fails=True)
    assert "broken on purpose" in failed.stderr + failed.stdout
    done = workspace.done_since(journal)
    assert done["train:tiny/fgsm_rs-linf-0.1-s0"] == "computed"
    assert done["attack:tiny/fgsm_rs-linf-0.1-s0/pgd_2-linf-0.1"] == "computed"
    assert done[TRAINED] == "failed"
    shown = page.read_text()
    assert BANNER in shown
    assert "broken on purpose" in shown
    assert "fgsm_rs" in shown
    assert table.read_bytes() == before
    status = workspace.run("advtrain", "status", fails=True).stdout
    assert f"stale    train    {CELL}" in status

    # Damaged rows are refused.
    trades.write_text(good)
    rows = workspace.root / "results/attack/tiny/natural-s0/pgd_2-linf-0.1/outcomes.parquet"
    content = bytearray(rows.read_bytes())
    content[len(content) // 2] ^= 255
    rows.write_bytes(bytes(content))
    failed = workspace.snakemake(fails=True)
    assert "outcomes.parquet has other bytes than its manifest says" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert BANNER in page.read_text()
    assert table.read_bytes() == before

    # Mended, nothing of it is left; a training that collapsed is a result, and shown as one.
    rows.unlink()
    workspace.snakemake()
    shown = page.read_text()
    assert BANNER not in shown
    assert "broken on purpose" not in shown
    assert "collapsed" in shown
    told = [
        line for line in table.with_suffix(".md").read_text().splitlines() if "collapsed: " in line
    ]
    assert len(told) == 1
    assert told[0].startswith("| fgsm_rs")
    assert "became" in told[0]


def test_a_full_disk_is_said_and_costs_nothing(workspace: Workspace, tmp_path: Path) -> None:
    before = workspace.tables()
    spec = workspace.spec("train", CELL)
    full = tmp_path / "full.py"
    full.write_text(
        "import errno, pathlib, sys\n"
        "from pipeline import run\n"
        "def refuse(*_):\n    raise OSError(errno.ENOSPC, 'No space left on device')\n"
        "run._publish = refuse\n"
        "sys.exit(run.main(sys.argv[1:]))\n"
    )
    path = str(workspace.root)
    failed = workspace.run("python", str(full), spec, fails=True, PYTHONPATH=path, **FORCED)
    assert "no space left on the disk (" in failed.stderr
    assert "earlier results are untouched" in failed.stderr
    assert workspace.tables() == before
    # With space it is computed; by hand, without a warm process, with the same bytes.
    done = workspace.done_by(lambda: workspace.by_hand(spec, **FORCED))
    assert done == {TRAINED: "computed"}
    assert workspace.tables() == before


def test_a_damaged_checkpoint_is_found_and_mended(workspace: Workspace) -> None:
    weights = workspace.root / f"checkpoints/{CELL}/last.safetensors"
    good = weights.read_bytes()
    weights.write_bytes(good[:-4] + b"\0\1\2\3")  # the same size: only its hash tells
    damaged = workspace.run("advtrain", "verify", fails=True).stdout
    assert f"{CELL.split('/')[1]}/last.safetensors has other bytes" in damaged

    def more(params: dict[str, Any]) -> None:
        params["attacks"]["pgd_3"] = {"module": "pgd", "steps": 3}
        params["studies"]["tiny"]["attacks"].append("pgd_3")

    workspace.edit(more)
    workspace.snakemake("-n")
    attack = f"{CELL}/pgd_3-linf-0.1"
    # No row is made from bytes that nothing vouches for.
    failed = workspace.by_hand(workspace.spec("attack", attack), fails=True)
    assert "last.safetensors has other bytes than its manifest says" in failed.stderr
    weights.write_bytes(b"no checkpoint at all")  # cut short: it is taken from the store
    done = workspace.done_by(lambda: workspace.snakemake("--", marker("attack", attack)))
    assert done.pop(f"attack:{attack}") == "computed"
    assert done == {TRAINED: "restored from the store of finished cells"}
    assert weights.read_bytes() == good
    assert "0 damaged" in workspace.run("advtrain", "verify").stdout


def test_damaged_data_is_said_with_the_mend(workspace: Workspace) -> None:
    before = workspace.tables()
    spec = workspace.spec("train", CELL)
    data = workspace.root / "data/prepared/digits/train.arrow"
    content = bytearray(data.read_bytes())
    content[-300] ^= 255
    data.write_bytes(bytes(content))
    failed = workspace.by_hand(spec, fails=True, **FORCED)
    assert "data/prepared/digits/train.arrow: damaged" in failed.stderr
    assert "dvc checkout" in failed.stderr
    workspace.dvc("checkout", "--force", "data/prepared")
    workspace.by_hand(spec, **FORCED)
    assert workspace.tables() == before


def test_quiet_without_a_terminal(finished: Workspace, first_run: dict[str, Any]) -> None:
    assert first_run["told"]
    assert "\r" not in first_run["told"]
    log = finished.root / f"logs/train/{CELL}.log"
    assert log.read_text().startswith(f"train {CELL}: computed")


def test_mlflow_is_fed_beside_the_run_and_survives_its_absence(workspace: Workspace) -> None:
    name = "tiny/natural-s0/fgsm-linf-0.1"
    (workspace.root / f"results/attack/{name}/manifest.json").unlink()  # one job has to run
    run = ("--", marker("attack", name))
    tracked = {"ADVTRAIN_TRACKING": "on", "MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
    gone = workspace.snakemake(*run, **tracked)
    assert "MLflow:" in gone.stderr
    assert workspace.is_finished()  # the run went on to its end
    shutil.rmtree(workspace.root / ".pipeline/tracking", ignore_errors=True)
    synced = workspace.run("advtrain", "mlflow-sync", ADVTRAIN_TRACKING="on")
    assert "0 pending" in synced.stdout
    with closing(sqlite3.connect(workspace.root / "mlflow.db")) as db:
        names = {name for (name,) in db.execute("select name from runs where status='FINISHED'")}
    assert {"trades-linf-0.1-s0", "natural-s0", "pgd_2-linf-0.2"} <= names
    assert "tiny: tables, figures, report" in names
    assert "trades-linf-0.1-s0</a>" in (workspace.root / "reports/runs.html").read_text()


def test_an_interrupt_is_no_failure(workspace: Workspace) -> None:
    page = (workspace.root / "reports/index.html").read_bytes()
    workspace.edit(only(("trades",), (0.1, 0.2)))  # which then run at once, on two cores
    workspace.edit(lambda p: p["recipes"]["short"].update(epochs=400))
    # A shell that starts the tests in the background has them, and their children, ignore
    # interrupts; what is caught here is as it should be there.
    kept = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        run = subprocess.Popen(
            ["snakemake", "--cores", "2"],
            cwd=workspace.root,
            env=clean_environment(),
            start_new_session=True,
            stderr=subprocess.PIPE,
            text=True,
        )
    finally:
        signal.signal(signal.SIGINT, kept)
    while epoch_of(workspace, CELL) < 2:
        time.sleep(0.02)
        assert run.poll() is None
    os.killpg(run.pid, signal.SIGINT)  # what Ctrl-C on a terminal does
    _, told = run.communicate(timeout=60)
    assert run.returncode != 0
    assert "interrupted: the earlier report stays as it is" in told
    assert "Traceback" not in told
    assert (workspace.root / "reports/index.html").read_bytes() == page
