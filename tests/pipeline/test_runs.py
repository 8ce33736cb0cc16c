"""Runs: the same bytes however they go, kills survived, failures shown, nothing lost."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.workspace import Workspace, clean_environment

pytestmark = pytest.mark.workflow

BANNER = '<div class="banner"'


def longer(params: dict[str, Any]) -> None:
    """Make the TRADES cell at 0.2 long enough to be killed in the middle."""
    params["studies"]["tiny"] |= {"methods": ["trades"], "epsilons": [0.2]}
    params["recipes"]["short"]["epochs"] = 20


def spec_of(workspace: Workspace, stage: str, name: str) -> str:
    found = (workspace.root / ".pipeline/specs" / stage).glob(f"{name}.*.json")
    return str(max(found, key=lambda path: path.stat().st_ctime).relative_to(workspace.root))


def epoch_of(workspace: Workspace, name: str) -> int:
    try:
        path = workspace.root / f".pipeline/progress/train/{name}.json"
        return int(json.loads(path.read_text()).get("epoch", 0))
    except (OSError, ValueError):
        return 0


def test_a_killed_training_ends_with_the_same_bytes(fresh: Workspace, tmp_path: Path) -> None:
    fresh.edit(longer)
    name = "tiny/trades-linf-0.2-s0"
    fresh.snakemake("--", "prepare_all")
    other = fresh.copy(tmp_path / "unbroken")
    other.snakemake("--", "attack_all")

    fresh.snakemake("-n")
    spec = spec_of(fresh, "train", name)
    kills = 0
    for stop_at in (2, 8, 15):
        job = subprocess.Popen(
            ["python", "-m", "pipeline.run", spec], cwd=fresh.root, env=clean_environment()
        )
        while job.poll() is None and epoch_of(fresh, name) < stop_at:
            time.sleep(0.005)
        if job.poll() is None:
            job.send_signal(signal.SIGKILL)
            kills += 1
        job.wait()
    assert kills >= 2  # a job that ends before its kill would test nothing
    assert not (fresh.root / f"results/train/{name}/manifest.json").exists()
    assert list((fresh.root / ".pipeline/wip/train/tiny").iterdir())
    fresh.snakemake("--", "attack_all")
    assert len(fresh.tables()) > 5
    assert fresh.tables() == other.tables()


def test_a_killed_workflow_continues(fresh: Workspace) -> None:
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
    again = fresh.done_by(fresh.snakemake)
    assert not {id for id, what in again.items() if what == "computed"} & done
    assert fresh.is_finished()


def test_one_core_or_two_give_the_same_bytes(finished: Workspace, fresh: Workspace) -> None:
    fresh.run("snakemake", "--cores", "1")
    assert fresh.tables() == finished.tables()


def test_the_batch_size_of_the_attack_does_not_matter(workspace: Workspace) -> None:
    before = workspace.tables()
    workspace.edit(lambda p: p["studies"]["tiny"].update(attack_batch_size=16))
    assert workspace.is_finished()
    workspace.snakemake("-R", "attack", "--", "attack_all")
    assert workspace.tables() == before


def test_a_failed_cell_stops_no_other_and_is_shown(workspace: Workspace) -> None:
    workspace.edit(lambda p: p["methods"]["fgsm_rs"].update(step_size="epsilon/2"))
    workspace.edit(lambda p: p["methods"]["trades"].update(beta=1.0))
    before = workspace.tables()
    trades = workspace.root / "src/advtrain/methods/trades.py"
    good = trades.read_text()
    crafting = "        with crafting("
    assert crafting in good
    broken = f"        raise ValueError('broken on purpose')\n{crafting}"
    trades.write_text(good.replace(crafting, broken, 1))
    failed = workspace.snakemake(fails=True)
    assert "broken on purpose" in failed.stderr + failed.stdout
    journal = {f"{j['stage']}:{j['name']}": j["what"] for j in workspace.journal()[-14:]}
    assert journal["train:tiny/fgsm_rs-linf-0.1-s0"] == "computed"
    assert journal["attack:tiny/fgsm_rs-linf-0.1-s0/pgd_2-linf-0.1"] == "computed"
    assert journal["train:tiny/trades-linf-0.1-s0"] == "failed"
    page = (workspace.root / "reports/index.html").read_text()
    assert BANNER in page
    assert "broken on purpose" in page
    assert "fgsm_rs" in page
    # The earlier tables are what they were.
    table = "reports/tables/tiny/results.csv"
    assert (workspace.root / table).read_bytes() == before[table]
    status = workspace.run("advtrain", "status", fails=True).stdout
    assert "stale    train    tiny/trades-linf-0.1-s0" in status

    trades.write_text(good)
    workspace.snakemake()
    assert "broken on purpose" not in (workspace.root / "reports/index.html").read_text()


def test_a_collapsed_cell_is_shown_as_one(workspace: Workspace) -> None:
    def explode(params: dict[str, Any]) -> None:
        params["recipes"]["wild"] = {**params["recipes"]["short"], "learning_rate": 1e12}
        params["studies"]["tiny"]["recipe"] = {"default": "short", "trades": "wild"}

    workspace.edit(explode)
    workspace.snakemake()
    table = (workspace.root / "reports/tables/tiny/results.md").read_text()
    collapsed = [line for line in table.splitlines() if "collapsed: " in line]
    assert len(collapsed) == 2
    assert all(line.startswith("| trades") and "became" in line for line in collapsed)
    assert "collapsed" in (workspace.root / "reports/index.html").read_text()


def test_a_full_disk_is_said_and_costs_nothing(workspace: Workspace, tmp_path: Path) -> None:
    before = workspace.tables()
    workspace.edit(lambda p: p["methods"]["trades"].update(beta=1.0))
    workspace.snakemake("-n")
    spec = spec_of(workspace, "train", "tiny/trades-linf-0.1-s0")
    full = tmp_path / "full.py"
    full.write_text(
        "import errno, pathlib, sys\n"
        "from pipeline import run\n"
        "def refuse(*_):\n    raise OSError(errno.ENOSPC, 'No space left on device')\n"
        "run._publish = refuse\n"
        "sys.exit(run.main(sys.argv[1:]))\n"
    )
    failed = workspace.run("python", str(full), spec, fails=True, PYTHONPATH=str(workspace.root))
    assert "no space left on the disk (" in failed.stderr
    assert "earlier results are untouched" in failed.stderr
    assert workspace.tables() == before
    done = workspace.done_by(lambda: workspace.run("python", "-m", "pipeline.run", spec))
    assert done == {"train:tiny/trades-linf-0.1-s0": "computed"}


def test_a_damaged_checkpoint_is_found_and_mended(workspace: Workspace) -> None:
    weights = workspace.root / "checkpoints/tiny/trades-linf-0.1-s0/last.safetensors"
    good = weights.read_bytes()
    weights.write_bytes(good[:-4] + b"\0\1\2\3")  # the same size: only its hash tells
    damaged = workspace.run("advtrain", "verify", fails=True).stdout
    assert "trades-linf-0.1-s0/last.safetensors has other bytes" in damaged

    def more(params: dict[str, Any]) -> None:
        params["attacks"]["pgd_3"] = {"module": "pgd", "steps": 3}
        params["studies"]["tiny"]["attacks"].append("pgd_3")

    workspace.edit(more)
    failed = workspace.snakemake(fails=True)  # no row is made from bytes that nothing vouches for
    assert "last.safetensors has other bytes than its manifest says" in failed.stderr
    weights.write_bytes(b"no checkpoint at all")
    workspace.edit(lambda p: p["attacks"]["pgd_2"].update(steps=3))
    workspace.snakemake()  # cut short: it is taken from the store
    assert weights.read_bytes() == good
    assert "0 damaged" in workspace.run("advtrain", "verify").stdout


def test_damaged_data_is_said_with_the_mend(workspace: Workspace) -> None:
    data = workspace.root / "data/prepared/digits/train.arrow"
    content = bytearray(data.read_bytes())
    content[-300] ^= 255
    data.write_bytes(bytes(content))
    workspace.edit(lambda p: p["methods"]["trades"].update(beta=1.0))
    failed = workspace.snakemake(fails=True)
    told = failed.stdout + failed.stderr
    assert "data/prepared/digits/train.arrow: damaged" in told
    assert "dvc checkout" in told
    workspace.dvc("checkout", "--force", "data/prepared")
    workspace.snakemake()


def test_a_job_needs_no_warm_process(workspace: Workspace) -> None:
    workspace.edit(lambda p: p["methods"]["trades"].update(beta=1.0))
    workspace.snakemake("-n")
    spec = spec_of(workspace, "train", "tiny/trades-linf-0.1-s0")
    alone = workspace.copy(workspace.root.parent / "alone")
    alone.run("python", "-m", "pipeline.run", spec)
    workspace.snakemake()
    name = "checkpoints/tiny/trades-linf-0.1-s0/last.safetensors"
    assert (alone.root / name).read_bytes() == (workspace.root / name).read_bytes()


def test_quiet_without_a_terminal(workspace: Workspace) -> None:
    workspace.edit(lambda p: p["methods"]["trades"].update(beta=1.0))
    done = workspace.snakemake()
    assert "\r" not in done.stderr + done.stdout
    log = workspace.root / "logs/train/tiny/trades-linf-0.1-s0.log"
    assert log.read_text().startswith("train tiny/trades-linf-0.1-s0: computed")


def test_mlflow_is_fed_beside_the_run_and_survives_its_absence(workspace: Workspace) -> None:
    workspace.edit(lambda p: p["methods"]["trades"].update(beta=1.0))
    gone = workspace.snakemake(ADVTRAIN_TRACKING="on", MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert "MLflow:" in gone.stderr
    assert workspace.is_finished()  # the run went on to its end
    shutil.rmtree(workspace.root / ".pipeline/tracking", ignore_errors=True)
    synced = workspace.run("advtrain", "mlflow-sync", ADVTRAIN_TRACKING="on")
    assert "0 pending" in synced.stdout
    import sqlite3

    with sqlite3.connect(workspace.root / "mlflow.db") as db:
        names = {name for (name,) in db.execute("select name from runs where status='FINISHED'")}
    assert {"trades-linf-0.1-s0", "natural-s0", "pgd_2-linf-0.2"} <= names


def test_damaged_rows_are_refused_and_shown(workspace: Workspace) -> None:
    rows = workspace.root / "results/attack/tiny/trades-linf-0.1-s0/pgd_2-linf-0.1/outcomes.parquet"
    content = bytearray(rows.read_bytes())
    content[len(content) // 2] ^= 255
    rows.write_bytes(bytes(content))

    def rename(params: dict[str, Any]) -> None:
        params["studies"]["tiny"]["epsilons"] = [0.2, 0.1]  # another order: collect runs again

    workspace.edit(rename)
    failed = workspace.snakemake(fails=True)
    assert "outcomes.parquet has other bytes than its manifest says" in failed.stderr
    assert "Traceback" not in failed.stderr
    page = workspace.root / "reports/index.html"
    assert BANNER in page.read_text()
    rows.unlink()
    workspace.snakemake()
    assert BANNER not in page.read_text()


def test_an_interrupt_is_no_failure(workspace: Workspace) -> None:
    page = (workspace.root / "reports/index.html").read_bytes()
    workspace.edit(lambda p: p["recipes"]["short"].update(epochs=400))
    run = subprocess.Popen(
        ["snakemake", "--cores", "2"],
        cwd=workspace.root,
        env=clean_environment(),
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
    )
    while epoch_of(workspace, "tiny/trades-linf-0.1-s0") < 2:
        time.sleep(0.02)
    os.killpg(run.pid, signal.SIGINT)  # what Ctrl-C on a terminal does
    _, told = run.communicate(timeout=60)
    assert run.returncode != 0
    assert "interrupted: the earlier report stays as it is" in told
    assert "Traceback" not in told
    assert (workspace.root / "reports/index.html").read_bytes() == page


def test_a_study_without_data_is_shown_with_the_cause(fresh: Workspace) -> None:
    fresh.edit(lambda p: p["datasets"]["digits"].update(train_examples=10**6))
    failed = fresh.snakemake(fails=True)
    assert "train_examples" in failed.stderr
    page = (fresh.root / "reports/index.html").read_text()
    assert "The smallest study" in page
    assert "train_examples" in page
