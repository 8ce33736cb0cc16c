import json
import shutil

import pytest

from advtrain.tracking.ledger import Ledger
from advtrain.tracking.reconcile import Reconciled, reconcile
from advtrain.tracking.summaries import read
from advtrain.tracking.tracker import MemoryTracker
from tests.results import synthetic
from tests.tracking.reported_study import (
    CELL,
    CELL_KEY,
    FINISHED,
    STUDY,
    TABLES_KEY,
    describe,
    write_reported,
)

SUMMARY, TRAINING = f"{STUDY}/{TABLES_KEY}", f"{STUDY}/{CELL_KEY}"
CELLS = len(list(synthetic.cells()))


@pytest.fixture(scope="session")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("reported")
    write_reported(root)
    return root


@pytest.fixture
def reported(tree, tmp_path):
    """A repository in which the synthetic study has been reported on."""
    return shutil.copytree(tree, tmp_path / "reported")


@pytest.fixture
def bring(reported):
    """Reconcile a tracker with the repository, with a ledger read from disk."""

    def bring(tracker, **options):
        return reconcile(reported, tracker, Ledger.load(reported / "ledger.json"), **options)

    return bring


def values(record):
    return {metric.name: metric.value for metric in record.metrics}


def test_the_summary_has_the_means_of_the_results(tree):
    record = read(tree, STUDY).record
    found = values(record)
    assert found["clean_accuracy/pgd_at-linf-0.1"] == 0.85
    assert found["worst_case_accuracy/pgd_at-linf-0.1"] == 0.5
    assert found["worst_case_accuracy/natural-linf-0.2"] == 0.0
    assert "worst_case_accuracy/pgd_at-linf-0.3" not in found
    assert (record.key, record.started, record.finished) == (TABLES_KEY, FINISHED, FINISHED)
    assert record.params["methods"] == "natural, pgd_at, fgsm_mixed"
    assert record.params["epsilons"] == "0.1, 0.2"


def test_the_summary_shows_tables_figures_and_report(tree):
    found = {one.path: one for one in read(tree, STUDY).record.artifacts}
    assert {
        f"tables/{STUDY}/results.md",
        f"tables/{STUDY}/costs.csv",
        f"figures/{STUDY}/trade_off.svg",
        f"figures/{STUDY}/trade_off.png",
        "index.html",
    } <= found.keys()
    assert found["index.html"].source.read_text(encoding="utf-8") == "the page"
    # Times differ from run to run, so they are no news.
    assert found[f"tables/{STUDY}/costs.csv"].digest == ""
    assert len(found[f"tables/{STUDY}/results.csv"].digest) == 64


@pytest.mark.parametrize(
    ("change", "gone"), [("figures", "figures"), ("report", "index.html"), ("both", "")]
)
def test_figures_and_report_of_other_results_are_not_shown(reported, change, gone):
    paths = {
        "figures": [f"reports/figures/{STUDY}/manifest.json"],
        "report": ["reports/manifest.json"],
    }
    for path in paths.get(change, [one for ones in paths.values() for one in ones]):
        manifest = json.loads((reported / path).read_text(encoding="utf-8"))
        (made_from,) = manifest["inputs"].values()
        made_from["key"] = "0" * 16
        (reported / path).write_text(json.dumps(manifest), encoding="utf-8")
    shown = {one.path.split("/")[0] for one in read(reported, STUDY).record.artifacts}
    expected = {"tables", "figures", "index.html"} - {gone}
    assert shown == (expected if gone else {"tables"})


def test_tables_of_other_rows_wait(reported, bring):
    manifest = reported / f"results/collect/{STUDY}/manifest.json"
    text = manifest.read_text(encoding="utf-8")
    manifest.write_text(text.replace("c" * 16, "8" * 16), encoding="utf-8")
    tracker = MemoryTracker()
    assert bring(tracker).pending == 0
    assert SUMMARY not in tracker.runs
    assert "worst_case_accuracy" not in values(tracker.runs[TRAINING])
    describe(reported)
    bring(tracker)
    assert SUMMARY in tracker.runs


def test_a_training_has_what_the_tables_say_of_it(bring):
    tracker = MemoryTracker()
    bring(tracker)
    found = values(tracker.runs[TRAINING])
    assert found["clean_accuracy"] == 0.8
    assert found["worst_case_accuracy"] == 0.45
    assert found["passes_over_natural"] == 11.0
    assert found["robust_accuracy/pgd_20"] == 0.5
    assert found["robust_accuracy/pgd_20-linf-0.3"] == 0.0
    times = {one.time for one in tracker.runs[TRAINING].metrics if one.name == "clean_accuracy"}
    assert times == {FINISHED}


def test_tables_that_come_later_reach_the_trainings_once(reported, bring):
    manifest = reported / f"reports/tables/{STUDY}/manifest.json"
    text = manifest.read_text(encoding="utf-8")
    manifest.unlink()
    tracker = MemoryTracker()
    bring(tracker)
    before = tracker.runs[TRAINING]
    manifest.write_text(text, encoding="utf-8")
    # The trainings and the summary; the evaluations have no news.
    assert bring(tracker) == Reconciled(CELLS + 1, 0, "")
    assert values(before).keys() < values(tracker.runs[TRAINING]).keys()
    assert bring(tracker) == Reconciled(0, 0, "")


def test_new_figures_are_no_news_of_the_trainings(reported, bring):
    tracker = MemoryTracker()
    bring(tracker)
    (reported / f"reports/figures/{STUDY}/further.svg").write_text("a picture", encoding="utf-8")
    describe(reported)
    assert bring(tracker) == Reconciled(1, 0, "")
    paths = {one.path for one in tracker.runs[SUMMARY].artifacts}
    assert f"figures/{STUDY}/further.svg" in paths


def test_what_the_tables_said_of_another_training_is_not_said_of_the_present_one(reported, bring):
    tracker = MemoryTracker()
    bring(tracker)
    manifest = reported / f"results/train/{STUDY}/{CELL}/manifest.json"
    text = manifest.read_text(encoding="utf-8")
    manifest.write_text(text.replace(CELL_KEY, "2" * 16), encoding="utf-8")
    bring(tracker)
    assert "worst_case_accuracy" not in values(tracker.runs[f"{STUDY}/{'2' * 16}"])


def test_a_damaged_table_is_named_and_the_others_are_delivered(reported, bring):
    path = reported / f"results/collect/{STUDY}/outcomes.parquet"
    content = path.read_bytes()
    path.write_bytes(content[:50])
    tracker = MemoryTracker()
    done = bring(tracker)
    assert (done.pending, TRAINING in tracker.runs, SUMMARY in tracker.runs) == (1, True, False)
    assert f"reports/tables/{STUDY} cannot be read" in done.cause
    path.write_bytes(content)
    assert bring(tracker).pending == 0
    assert SUMMARY in tracker.runs


def test_a_lost_ledger_is_made_good(reported, bring):
    tracker = MemoryTracker()
    bring(tracker)
    before = dict(tracker.runs)
    (reported / "ledger.json").unlink()
    bring(tracker)
    assert tracker.runs == before
