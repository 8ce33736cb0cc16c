import contextlib
import os
import shutil
import subprocess
import sys

import pytest

from advtrain.tracking.ledger import Ledger
from advtrain.tracking.reconcile import Reconciled, reconcile
from advtrain.tracking.tracker import (
    MemoryTracker,
    NullTracker,
    RefusedError,
    UnreachableError,
)
from tests.tracking.tracked_repository import CELL, EVALUATION_KEY, KEY

TRAINING, CHILD = f"digits/{KEY}", f"digits/{EVALUATION_KEY}"


class PickyTracker(MemoryTracker):
    """Refuses the runs of some names, and is lost after a number of runs."""

    def __init__(self, refuses=(), lost_after=1000):
        super().__init__()
        self.refuses = refuses
        self.lost_after = lost_after

    @contextlib.contextmanager
    def delivering(self):
        def deliver(record):
            if len(self.runs) == self.lost_after:
                raise UnreachableError("gone")
            if record.name in self.refuses:
                raise RefusedError(f"not {record.name}")
            self.runs[record.identity] = record

        yield deliver


class CountingTracker(MemoryTracker):
    """Counts how often it is opened."""

    opened = 0

    def delivering(self):
        self.opened += 1
        return super().delivering()


@pytest.fixture
def bring(repository):
    """Reconcile a tracker with the repository, with a ledger read from disk as in a new process."""

    def bring(tracker, **options):
        return reconcile(
            repository.root, tracker, Ledger.load(repository.root / "ledger.json"), **options
        )

    return bring


def test_nothing_on_disk_is_nothing_to_deliver(repository, bring):
    tracker = CountingTracker()
    assert bring(tracker) == Reconciled(0, 0, "")
    assert tracker.opened == 0
    assert list(repository.root.iterdir()) == []


def test_the_null_tracker_takes_everything(repository, bring):
    repository.train()
    assert bring(NullTracker()) == Reconciled(1, 0, "")
    assert bring(NullTracker()) == Reconciled(0, 0, "")


def test_without_news_the_tracker_is_not_opened(repository, bring):
    repository.train()
    repository.evaluate()
    tracker = CountingTracker()
    assert bring(tracker).delivered == 2
    assert bring(tracker) == Reconciled(0, 0, "")
    assert tracker.opened == 1


def test_a_file_that_was_only_touched_is_no_news(repository, bring):
    folder = repository.train()
    tracker = CountingTracker()
    bring(tracker)
    os.utime(folder / "manifest.json", (1, 1))
    assert bring(tracker).delivered == 0
    assert tracker.opened == 1


def test_everything_is_delivered_on_request(repository, bring):
    repository.train()
    tracker = MemoryTracker()
    bring(tracker)
    assert bring(tracker, everything=True).delivered == 1


def test_runs_that_the_tracker_has_lost_are_delivered_again(repository, bring):
    repository.train()
    repository.evaluate()
    tracker = MemoryTracker()
    bring(tracker)
    del tracker.runs[CHILD]
    assert bring(tracker).delivered == 1
    assert tracker.runs.keys() == {TRAINING, CHILD}


def test_a_running_cell_is_looked_at_each_time(repository, bring):
    tracker = MemoryTracker()
    repository.progress("running", pid=os.getpid())
    bring(tracker)
    repository.live(1)
    assert bring(tracker).delivered == 1
    assert {metric.step for metric in tracker.runs[TRAINING].metrics} == {1}
    assert bring(tracker).delivered == 0


def test_a_job_whose_process_is_gone_was_killed(repository, bring):
    tracker = MemoryTracker()
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    repository.progress("running", pid=process.pid)
    bring(tracker)
    assert tracker.runs[TRAINING].status == "RUNNING"
    process.communicate()
    bring(tracker)
    assert tracker.runs[TRAINING].status == "KILLED"
    repository.progress("running", pid=os.getpid())
    bring(tracker)
    assert tracker.runs[TRAINING].status == "RUNNING"


@pytest.mark.parametrize("successor", ["nothing", "another key", "a result of another key"])
def test_a_running_run_that_no_file_speaks_of_any_more_was_killed(repository, bring, successor):
    tracker = MemoryTracker()
    progress = repository.progress("running", pid=os.getpid())
    bring(tracker)
    progress.unlink()
    if successor == "another key":
        repository.progress("running", pid=os.getpid(), key="2" * 16)
    elif successor == "a result of another key":
        repository.train(key="2" * 16)
    bring(tracker)
    run = tracker.runs[TRAINING]
    assert (run.status, run.name) == ("KILLED", CELL)
    assert bring(tracker).delivered == 0


def test_a_job_that_is_done_waits_for_its_result(repository, bring):
    tracker = MemoryTracker()
    repository.progress("running", pid=os.getpid())
    bring(tracker)
    repository.progress("done", pid=os.getpid())
    assert bring(tracker).delivered == 0
    assert tracker.runs[TRAINING].status == "RUNNING"
    repository.train()
    bring(tracker)
    assert tracker.runs[TRAINING].status == "FINISHED"


def test_a_refused_run_is_pending_and_the_others_are_delivered(repository, bring):
    repository.train()
    repository.train("natural-s0", "9" * 16)
    tracker = PickyTracker(refuses=("natural-s0",))
    assert bring(tracker) == Reconciled(1, 1, "not natural-s0")
    tracker.refuses = ()
    assert bring(tracker) == Reconciled(1, 0, "")
    assert tracker.runs.keys() == {TRAINING, f"digits/{'9' * 16}"}


def test_where_the_tracker_is_lost_the_rest_is_pending_and_comes_the_next_time(repository, bring):
    for number in range(3):
        repository.train(f"natural-s{number}", f"{number}" * 16)
    repository.evaluate(train_key=KEY)
    repository.train()
    tracker = PickyTracker(lost_after=2)
    assert bring(tracker) == Reconciled(2, 3, "gone")
    tracker.lost_after = 1000
    assert bring(tracker) == Reconciled(3, 0, "")


def test_a_damaged_result_is_named_and_the_others_are_delivered(repository, bring):
    folder = repository.train()
    repository.train("natural-s0", "9" * 16)
    history = (folder / "history.parquet").read_bytes()
    (folder / "history.parquet").write_bytes(history[:50])
    tracker = MemoryTracker()
    done = bring(tracker)
    assert (done.delivered, done.pending) == (1, 1)
    assert f"results/train/digits/{CELL} cannot be read" in done.cause
    assert "history.parquet: damaged" in done.cause
    (folder / "history.parquet").write_bytes(history)
    assert bring(tracker) == Reconciled(1, 0, "")


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"state": "asleep"}'])
def test_a_damaged_progress_file_is_named(repository, bring, content):
    repository.progress("running", pid=os.getpid()).write_text(content, encoding="utf-8")
    done = bring(MemoryTracker())
    assert done.pending == 1
    assert f".pipeline/progress/train/digits/{CELL}.json cannot be read" in done.cause


def test_a_result_without_all_its_files_waits_for_them(repository, bring):
    folder = repository.train()
    history = (folder / "history.parquet").read_bytes()
    (folder / "history.parquet").unlink()
    tracker = MemoryTracker()
    assert bring(tracker) == Reconciled(0, 0, "")
    (folder / "history.parquet").write_bytes(history)
    assert bring(tracker).delivered == 1


def test_the_same_cell_in_two_studies_is_two_runs(repository, bring):
    repository.train()
    repository.train(study="survey")
    tracker = MemoryTracker()
    assert bring(tracker).delivered == 2
    assert tracker.runs.keys() == {TRAINING, f"survey/{KEY}"}


def test_parents_come_before_their_children(repository, bring):
    repository.evaluate("a-linf-0.2", "0" * 16)
    repository.train()
    tracker = MemoryTracker()
    bring(tracker)
    assert list(tracker.runs) == [TRAINING, f"digits/{'0' * 16}"]


@pytest.mark.parametrize("ledger", ["", "{", "[]", '{"format": 0}', '{"format": 1}'])
def test_a_damaged_ledger_is_an_empty_one(repository, bring, ledger):
    repository.train()
    (repository.root / "ledger.json").write_text(ledger, encoding="utf-8")
    assert bring(MemoryTracker()) == Reconciled(1, 0, "")
    assert Ledger.load(repository.root / "ledger.json").delivered.keys() == {TRAINING}


def test_an_interrupted_delivery_notes_what_it_delivered(repository, bring):
    repository.train()
    repository.train("zzz-s0", "9" * 16)

    class Interrupted(MemoryTracker):
        @contextlib.contextmanager
        def delivering(self):
            def deliver(record):
                if self.runs:
                    raise KeyboardInterrupt
                self.runs[record.identity] = record

            yield deliver

    tracker = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        bring(tracker)
    assert Ledger.load(repository.root / "ledger.json").delivered.keys() == tracker.runs.keys()


def test_what_the_store_drops_stays_shown(repository, bring):
    repository.store(repository.train())
    repository.train(key="2" * 16)
    tracker = MemoryTracker()
    assert bring(tracker).delivered == 2
    shutil.rmtree(repository.root / ".pipeline/store")
    assert bring(tracker) == Reconciled(0, 0, "")
    assert tracker.runs[TRAINING].status == "FINISHED"
