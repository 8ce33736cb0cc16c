import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from advtrain.tracking.ledger import Ledger
from advtrain.tracking.location import ledger_path, lock_path
from advtrain.tracking.mlflow_tracker import MlflowTracker
from advtrain.tracking.reconcile import Reconciled, reconcile, reconcile_mlflow
from tests.tracking import reported_study
from tests.tracking.shown import shown, without_ids
from tests.tracking.tracked_repository import (
    CELL,
    EVALUATION,
    EVALUATION_KEY,
    KEY,
    START,
    TrackedRepository,
    finished_at,
    row,
    train_params,
)

TRAINING, CHILD = f"digits/{KEY}", f"digits/{EVALUATION_KEY}"

IN_A_PROCESS = """
import sys
from pathlib import Path
from advtrain.tracking.reconcile import reconcile_mlflow
done = reconcile_mlflow(Path(sys.argv[1]))
print(done.delivered, done.pending, done.cause, "mlflow" in sys.modules)
"""

AT_ONCE = """
import sys, time
from pathlib import Path
import mlflow
from advtrain.tracking.reconcile import reconcile_mlflow
root = Path(sys.argv[1])
(root / f"ready-{sys.argv[2]}").touch()
while len(list(root.glob("ready-*"))) < 4:
    time.sleep(0.01)
done = reconcile_mlflow(root)
print(done.pending, done.cause)
"""


def run(script, root, *arguments):
    """Run a script in a process of its own; return what it prints, line by line."""
    environment = {name: value for name, value in os.environ.items() if "MLFLOW" not in name}
    done = subprocess.run(
        [sys.executable, "-c", script, str(root), *arguments],
        capture_output=True,
        text=True,
        check=True,
        env=environment | {"MLFLOW_DISABLE_TELEMETRY": "true"},
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


def rows_of(repository, table):
    with contextlib.closing(sqlite3.connect(repository.root / "mlflow.db")) as opened:
        return opened.execute(f"select count(*) from {table}").fetchone()[0]


def test_a_finished_cell_is_a_run_and_its_evaluation_a_child(tracked):
    tracked.train()
    tracked.evaluate()
    assert reconcile_mlflow(tracked.root) == Reconciled(delivered=2, pending=0, cause="")
    runs = shown(tracked.uri)
    assert runs.keys() == {TRAINING, CHILD}
    training, child = runs[TRAINING], runs[CHILD]
    assert training["name"] == CELL
    assert training["status"] == "FINISHED"
    assert training["times"] == (int(START * 1000), int(finished_at(3) * 1000))
    assert training["params"] == {
        "dataset": "digits",
        "model": "small_cnn",
        "model.width": "8",
        "method": "trades",
        "method.beta": "6.0",
        "method.steps": "10",
        "norm": "linf",
        "epsilon": "0.2",
        "recipe": "short",
        "recipe.epochs": "3",
        "recipe.flip": "false",
        "recipe.warm_up": "null",
        "seed": "0",
    }
    described = training["tags"].pop("mlflow.note.content")
    assert f"`reports/index.html#lineage-digits-{CELL}`" in described
    assert f"`snakemake --cores all -- .pipeline/fresh/train/digits/{CELL}`" in described
    assert training["tags"] == {
        "advtrain.stage": "train",
        "advtrain.key": KEY,
        "advtrain.study": "digits",
        "advtrain.cell": CELL,
        "advtrain.status": "finished",
        "advtrain.data_hash": "f" * 16,
        "advtrain.code_digest": "b" * 16,
        "advtrain.git_commit": "c0ffee",
        "advtrain.checkpoint_hash": "last" * 4,
        "advtrain.best_checkpoint_hash": "best" * 4,
    }
    assert training["metrics"]["loss"] == [
        (epoch, int((START + 2.5 * epoch) * 1000), 2.0 / epoch) for epoch in (1, 2, 3)
    ]
    assert training["latest"] == {
        "learning_rate": 0.1,
        "loss": pytest.approx(2.0 / 3),
        "validation_robust_accuracy": pytest.approx(0.3),
        "forward_passes": 33000.0,
        "epoch_seconds": 2.5,
        "best_epoch": 2.0,
        "epochs": 3.0,
        "parameters": 1234.0,
        "seconds": 7.75,
        "robust_accuracy/pgd_20": 0.6,
    }
    assert training["datasets"][0][:2] == ("digits", "f" * 16)
    assert json.loads(training["datasets"][0][2])["tags"]["path"] == "data/prepared/digits"
    assert training["datasets"][0][3] == "train"
    assert child["name"] == EVALUATION
    assert child["parent"] == KEY
    assert child["datasets"][0][3] == "test"
    assert child["latest"] == {
        "clean_accuracy": 0.9,
        "robust_accuracy": 0.6,
        "mean_forward_passes": 21.0,
        "mean_backward_passes": 20.0,
        "seconds": 60.0,
        "time/examples_per_second": pytest.approx(1 / 6),
    }
    assert child["params"]["attack"] == "pgd_20"
    assert child["params"]["attack.module"] == "pgd"
    assert child["params"]["attack.steps"] == "20"
    assert child["tags"]["advtrain.train_key"] == KEY
    assert child["tags"]["advtrain.checkpoint_hash"] == "last" * 4


def test_epochs_appear_while_it_trains_and_each_is_logged_once(tracked):
    tracked.progress("running", pid=os.getpid(), epoch=1, epochs=3)
    tracked.live(1)
    reconcile_mlflow(tracked.root)
    first = shown(tracked.uri)[TRAINING]
    assert first["status"] == "RUNNING"
    assert first["tags"]["advtrain.status"] == "running"
    assert first["params"]["method.beta"] == "6.0"
    assert first["metrics"]["loss"] == [(1, int((START + 2.5) * 1000), 2.0)]
    tracked.live(2)
    reconcile_mlflow(tracked.root)
    assert [one[0] for one in shown(tracked.uri)[TRAINING]["metrics"]["loss"]] == [1, 2]
    tracked.train()
    shutil.rmtree(tracked.root / ".pipeline/wip")
    (tracked.root / ".pipeline/progress/train/digits" / f"{CELL}.json").unlink()
    reconcile_mlflow(tracked.root)
    final = shown(tracked.uri)[TRAINING]
    assert final["id"] == first["id"]
    assert final["status"] == "FINISHED"
    assert final["tags"]["advtrain.status"] == "finished"
    assert final["metrics"]["loss"] == [
        (epoch, int((START + 2.5 * epoch) * 1000), 2.0 / epoch) for epoch in (1, 2, 3)
    ]


def test_an_evaluation_joins_the_run_of_its_training(tracked):
    tracked.train()
    reconcile_mlflow(tracked.root)
    before = shown(tracked.uri)[TRAINING]["id"]
    tracked.evaluate()
    tracked.evaluate("fgsm-linf-0.2", "f" * 16, robust=8)
    assert reconcile_mlflow(tracked.root).delivered == 3
    runs = shown(tracked.uri)
    assert runs[TRAINING]["id"] == before
    assert {runs[CHILD]["parent"], runs[f"digits/{'f' * 16}"]["parent"]} == {KEY}
    assert runs[TRAINING]["latest"]["robust_accuracy/fgsm"] == 0.8


def test_a_changed_parameter_is_a_new_run_and_the_old_one_is_found_again(tracked):
    tracked.train()
    tracked.evaluate()
    reconcile_mlflow(tracked.root)
    before = shown(tracked.uri)
    tracked.train(key="2" * 16, params=train_params(seed=1))
    tracked.evaluate(key="3" * 16, train_key="2" * 16)
    reconcile_mlflow(tracked.root)
    assert len(shown(tracked.uri)) == 4
    tracked.train()
    tracked.evaluate()
    reconcile_mlflow(tracked.root)
    after = shown(tracked.uri)
    assert len(after) == 4
    assert after[TRAINING] == before[TRAINING]
    assert after[CHILD] == before[CHILD]


def test_a_key_that_only_the_store_still_has_is_delivered(tracked):
    tracked.store(tracked.train())
    tracked.store(tracked.evaluate())
    tracked.train(key="2" * 16)
    tracked.evaluate(key="3" * 16, train_key="2" * 16, robust=2)
    reconcile_mlflow(tracked.root)
    runs = shown(tracked.uri)
    assert runs.keys() == {TRAINING, CHILD, f"digits/{'2' * 16}", f"digits/{'3' * 16}"}
    assert runs[CHILD]["parent"] == KEY
    assert runs[TRAINING]["latest"]["robust_accuracy/pgd_20"] == 0.6
    assert runs[f"digits/{'2' * 16}"]["latest"]["robust_accuracy/pgd_20"] == 0.2


def test_without_the_ledger_nothing_is_logged_twice(tracked):
    tracked.train()
    tracked.evaluate()
    reconcile_mlflow(tracked.root)
    before, rows = shown(tracked.uri), rows_of(tracked, "metrics")
    shutil.rmtree(tracked.root / ".pipeline/tracking")
    assert reconcile_mlflow(tracked.root).delivered == 2
    assert reconcile_mlflow(tracked.root, everything=True).delivered == 2
    assert shown(tracked.uri) == before
    assert rows_of(tracked, "metrics") == rows


class Crash(BaseException):
    """The process ends here."""


class CrashingTracker:
    """Delivers one run to MLflow and ends before anyone notes it."""

    def __init__(self, tracker):
        self.tracker = tracker

    def shows(self):
        return self.tracker.shows()

    @contextlib.contextmanager
    def delivering(self):
        with self.tracker.delivering() as deliver:

            def crash(record):
                deliver(record)
                raise Crash

            yield crash


def test_a_crash_between_delivery_and_ledger_is_made_good(tracked):
    tracked.train()
    tracked.evaluate()
    tracker = MlflowTracker(tracked.uri, lock_path(tracked.root, tracked.uri))
    ledger = ledger_path(tracked.root, tracked.uri)
    with pytest.raises(Crash):
        reconcile(tracked.root, CrashingTracker(tracker), Ledger.load(ledger))
    assert Ledger.load(ledger).delivered == {}
    before = shown(tracked.uri)[TRAINING]
    assert reconcile_mlflow(tracked.root).delivered == 2
    assert shown(tracked.uri)[TRAINING] == before


def test_a_run_that_was_cut_short_is_completed(tracked):
    from mlflow import MlflowClient

    client = MlflowClient(tracked.uri)
    experiment = client.create_experiment("digits")
    client.create_run(experiment, tags={"advtrain.key": KEY}, run_name=CELL)
    tracked.train()
    reconcile_mlflow(tracked.root)
    (run,) = shown(tracked.uri).values()
    assert run["status"] == "FINISHED"
    assert [one[0] for one in run["metrics"]["loss"]] == [1, 2, 3]


def test_a_failed_cell_says_why_and_the_same_run_recovers(tracked):
    tracked.live(1)
    tracked.progress("failed", pid=1, cause="no space left on the disk")
    reconcile_mlflow(tracked.root)
    failed = shown(tracked.uri)[TRAINING]
    assert failed["status"] == "FAILED"
    assert failed["tags"]["advtrain.status"] == "failed"
    assert failed["tags"]["advtrain.cause"] == "no space left on the disk"
    assert failed["times"][1] == int((START + 9.0) * 1000)
    assert len(failed["metrics"]["loss"]) == 1
    tracked.progress("running", pid=os.getpid())
    reconcile_mlflow(tracked.root)
    assert shown(tracked.uri)[TRAINING]["status"] == "RUNNING"
    tracked.progress("running", pid=os.getpid()).unlink()
    tracked.train()
    reconcile_mlflow(tracked.root)
    recovered = shown(tracked.uri)[TRAINING]
    assert recovered["id"] == failed["id"]
    assert recovered["status"] == "FINISHED"
    assert "advtrain.cause" not in recovered["tags"]
    assert recovered["times"][1] == int(finished_at(3) * 1000)


def test_a_collapsed_training_is_finished_and_says_so(tracked):
    tracked.train(epochs=1, status="collapsed", cause="the loss is not finite in epoch 2")
    reconcile_mlflow(tracked.root)
    run = shown(tracked.uri)[TRAINING]
    assert run["status"] == "FINISHED"
    assert run["tags"]["advtrain.status"] == "collapsed"
    assert run["tags"]["advtrain.cause"] == "the loss is not finite in epoch 2"


def test_an_unreachable_server_costs_no_exception_and_nothing_is_lost(tracked, monkeypatch):
    tracked.train()
    tracked.evaluate()
    tracked.train("natural-s0", "9" * 16)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9")
    done = reconcile_mlflow(tracked.root)
    assert (done.delivered, done.pending) == (0, 3)
    assert done.cause.startswith("http://***@127.0.0.1:9 cannot be reached")
    assert "secret" not in done.cause
    assert "secret" not in "".join(
        path.read_text(encoding="utf-8") for path in (tracked.root / ".pipeline").rglob("*.json")
    )


def test_what_was_pending_is_delivered_when_the_tracker_is_back(tracked, monkeypatch):
    folder = tracked.root / "elsewhere"
    folder.write_text("in the way", encoding="utf-8")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///elsewhere/mlflow.db")
    tracked.train()
    tracked.evaluate()
    assert reconcile_mlflow(tracked.root).pending == 2
    folder.unlink()
    folder.mkdir()
    (tracked.root / "mlflow.db").rename(folder / "mlflow.db")
    assert reconcile_mlflow(tracked.root) == Reconciled(delivered=2, pending=0, cause="")
    assert shown(f"sqlite:///{folder / 'mlflow.db'}").keys() == {TRAINING, CHILD}


def test_a_rebuild_from_a_clone_equals_the_original(tracked, give_database, tmp_path):
    tracked.progress("running", pid=os.getpid())
    for epoch in (1, 2):
        tracked.live(epoch)
        reconcile_mlflow(tracked.root)
    tracked.progress("failed", pid=1, cause="killed")
    reconcile_mlflow(tracked.root)
    tracked.progress("failed", pid=1).unlink()
    tracked.train()
    reconcile_mlflow(tracked.root)
    tracked.train("natural-s0", "9" * 16, params=train_params(threat=None))
    for number, attack in enumerate(("pgd_20", "fgsm", "cw")):
        tracked.evaluate(f"{attack}-linf-0.2", f"{number}" * 16, robust=number)
        reconcile_mlflow(tracked.root)
    clone = TrackedRepository(tmp_path / "clone")
    clone.root.mkdir()
    give_database(clone)
    shutil.copytree(tracked.root / "results", clone.root / "results")
    assert reconcile_mlflow(clone.root, everything=True) == Reconciled(5, 0, "")
    assert without_ids(shown(clone.uri)) == without_ids(shown(tracked.uri))


def test_processes_that_make_a_fresh_database_at_once_show_each_run_once(repository):
    repository.train()
    repository.evaluate()
    with ThreadPoolExecutor(4) as pool:
        said = pool.map(lambda number: run(AT_ONCE, repository.root, number), "1234")
        assert list(said) == [["0 "]] * 4
    runs = shown(repository.uri)
    assert runs.keys() == {TRAINING, CHILD}
    assert [one[0] for one in runs[TRAINING]["metrics"]["loss"]] == [1, 2, 3]
    with contextlib.closing(sqlite3.connect(repository.root / "mlflow.db")) as opened:
        assert opened.execute("pragma journal_mode").fetchone() == ("wal",)


def test_a_temporary_copy_of_dvc_shows_its_runs_in_the_repository(tracked, tmp_path, monkeypatch):
    copy = TrackedRepository(tmp_path / "temporary")
    copy.train()
    tracked.store(tracked.train("natural-s0", "9" * 16))
    monkeypatch.setenv("DVC_ROOT", str(tracked.root))
    assert reconcile_mlflow(copy.root).delivered == 1
    assert not (copy.root / "mlflow.db").exists()
    assert shown(tracked.uri).keys() == {TRAINING}


def test_without_news_mlflow_is_not_imported(tracked):
    tracked.train()
    tracked.evaluate()
    reconcile_mlflow(tracked.root)
    assert run(IN_A_PROCESS, tracked.root) == ["0 0  False"]


def test_a_deleted_database_is_made_and_filled_again(tracked):
    tracked.train()
    reconcile_mlflow(tracked.root)
    for file in tracked.root.glob("mlflow.db*"):
        file.unlink()
    assert reconcile_mlflow(tracked.root).delivered == 1
    assert shown(tracked.uri).keys() == {TRAINING}


def test_a_run_deleted_in_the_web_page_stays_deleted_until_it_has_news(tracked):
    from mlflow import MlflowClient

    tracked.train()
    reconcile_mlflow(tracked.root)
    before = shown(tracked.uri)[TRAINING]["id"]
    MlflowClient(tracked.uri).delete_run(before)
    assert reconcile_mlflow(tracked.root).delivered == 0
    assert shown(tracked.uri) == {}
    tracked.evaluate()
    assert reconcile_mlflow(tracked.root).pending == 0
    runs = shown(tracked.uri)
    assert runs.keys() == {TRAINING, CHILD}
    assert runs[TRAINING]["id"] == before


def test_other_values_at_an_epoch_are_logged_beside_the_old_ones_once(tracked):
    tracked.train()
    reconcile_mlflow(tracked.root)
    tracked.train(changed_rows={3: {"loss": 0.5}})
    for _ in range(2):
        reconcile_mlflow(tracked.root, everything=True)
    run = shown(tracked.uri)[TRAINING]
    assert run["latest"]["loss"] == 0.5
    assert [one[0] for one in run["metrics"]["loss"]] == [1, 2, 3, 3]
    assert len(run["metrics"]["learning_rate"]) == 3


def test_values_that_are_no_finite_numbers_are_logged_once(tracked):
    tracked.train(changed_rows={2: {"loss": float("nan")}, 3: {"loss": float("inf")}})
    for _ in range(2):
        reconcile_mlflow(tracked.root, everything=True)
    losses = shown(tracked.uri)[TRAINING]["metrics"]["loss"]
    assert [one[0] for one in losses] == [1, 2, 3]
    assert losses[0][2] == row(1)["loss"]
    assert losses[1][2] != losses[1][2]
    assert losses[2][2] == sys.float_info.max


def test_a_value_too_long_for_mlflow_is_shortened_with_a_note(tracked):
    long = {"name": "long", "module": "long", "parameters": {"words": "w" * 7000}}
    tracked.train(params=train_params(method=long))
    assert reconcile_mlflow(tracked.root).pending == 0
    value = shown(tracked.uri)[TRAINING]["params"]["method.words"]
    assert len(value) <= 6000
    assert value.endswith("... (7000 characters; all of it is in the files)")


def test_a_run_that_mlflow_does_not_take_is_named_and_the_others_are_shown(tracked):
    tracked.train(changed_rows={1: {"not/allowed?": 1.0}})
    tracked.train("natural-s0", "9" * 16)
    done = reconcile_mlflow(tracked.root)
    assert (done.delivered, done.pending) == (1, 1)
    assert done.cause.startswith(f"the run digits/{CELL} was refused (")
    assert shown(tracked.uri)[f"digits/{'9' * 16}"]["status"] == "FINISHED"


@pytest.fixture(scope="module")
def reported_tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("reported")
    reported_study.write_reported(root)
    # One cell's runs show what those of all would.
    for folder in (*root.glob("results/train/*/*"), *root.glob("results/attack/*/*")):
        if folder.name != reported_study.CELL:
            shutil.rmtree(folder)
    return root


@pytest.fixture
def reported(reported_tree, tmp_path, give_database):
    """A repository in which the synthetic study has been reported on, with an empty database."""
    return give_database(TrackedRepository(shutil.copytree(reported_tree, tmp_path / "reported")))


SUMMARY = f"{reported_study.STUDY}/{reported_study.TABLES_KEY}"


def files_of(repository):
    """Return the text of each file that the summary's run shows, by its name."""
    folder = (
        repository.root / "mlruns" / reported_study.STUDY / shown(repository.uri)[SUMMARY]["id"]
    )
    paths = [path for path in (folder / "artifacts").rglob("*") if path.is_file()]
    return {path.relative_to(folder / "artifacts").as_posix(): path for path in paths}


def test_a_study_has_a_run_with_its_tables_figures_and_report(reported):
    from mlflow import MlflowClient

    assert reconcile_mlflow(reported.root).pending == 0
    run = shown(reported.uri)[SUMMARY]
    assert run["status"] == "FINISHED"
    assert run["latest"]["worst_case_accuracy/pgd_at-linf-0.1"] == 0.5
    files = files_of(reported)
    assert files["index.html"].read_text(encoding="utf-8") == "the page"
    assert {"tables/fake/results.md", "figures/fake/trade_off.svg"} <= files.keys()
    experiment = MlflowClient(reported.uri).get_experiment_by_name("fake")
    assert experiment.tags["mlflow.note.content"] == "Accuracies that can be counted by hand."
    assert "robust_accuracy/cw_20" in experiment.tags["mlflow.sharedViewState.results"]


def test_files_are_given_to_mlflow_once_and_again_if_they_change(reported):
    reconcile_mlflow(reported.root)
    page = files_of(reported)["index.html"]
    page.write_text("of MLflow's own", encoding="utf-8")
    reconcile_mlflow(reported.root, everything=True)
    assert page.read_text(encoding="utf-8") == "of MLflow's own"
    (reported.root / "reports/index.html").write_text("another page", encoding="utf-8")
    reported_study.describe(reported.root)
    assert reconcile_mlflow(reported.root).delivered == 1
    assert page.read_text(encoding="utf-8") == "another page"


def test_files_of_which_a_part_was_given_are_given_again(reported, monkeypatch):
    from mlflow import MlflowClient

    def cut_short(client, run, folder):
        raise OSError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(MlflowClient, "log_artifacts", cut_short)
        done = reconcile_mlflow(reported.root)
    assert done.pending == 1
    assert "the disk is full" in done.cause
    assert reconcile_mlflow(reported.root) == Reconciled(1, 0, "")
    assert "index.html" in files_of(reported)


def test_new_tables_are_a_new_run_and_describe_the_experiment_anew(reported):
    from mlflow import MlflowClient

    reconcile_mlflow(reported.root)
    tables = reported.root / "reports/tables/fake/manifest.json"
    reported_study.describe(reported.root, tables="6" * 16)
    content = json.loads(tables.read_text(encoding="utf-8"))
    content["params"]["description"] = "In other words."
    tables.write_text(json.dumps(content), encoding="utf-8")
    assert reconcile_mlflow(reported.root) == Reconciled(1, 0, "")
    assert {SUMMARY, f"fake/{'6' * 16}"} <= shown(reported.uri).keys()
    experiment = MlflowClient(reported.uri).get_experiment_by_name("fake")
    assert experiment.tags["mlflow.note.content"] == "In other words."


def test_a_rebuild_of_a_reported_study_equals_the_original(reported, give_database, tmp_path):
    tables = reported.root / "reports/tables"
    tables.rename(reported.root / "later")
    reconcile_mlflow(reported.root)
    (reported.root / "later").rename(tables)
    reconcile_mlflow(reported.root)
    clone = TrackedRepository(tmp_path / "clone")
    clone.root.mkdir()
    give_database(clone)
    for folder in ("results", "reports"):
        shutil.copytree(reported.root / folder, clone.root / folder)
    assert reconcile_mlflow(clone.root, everything=True).pending == 0
    assert without_ids(shown(clone.uri)) == without_ids(shown(reported.uri))
    assert files_of(clone).keys() == files_of(reported).keys()


def test_the_page_of_the_runs_leads_to_each_of_them(reported):
    reconcile_mlflow(reported.root)
    page = reported.root / "reports/runs.html"
    text = page.read_text(encoding="utf-8")
    for name, run in shown(reported.uri).items():
        assert f'id="{name}"' in text
        assert f"/runs/{run['id']}?" in text
    written = page.stat().st_mtime_ns
    reconcile_mlflow(reported.root)
    assert page.stat().st_mtime_ns == written
    page.unlink()
    reconcile_mlflow(reported.root)
    assert page.read_text(encoding="utf-8") == text
