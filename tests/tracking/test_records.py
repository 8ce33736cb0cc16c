import json
import os
import platform
import shutil

import pytest

from advtrain.tracking.finished import training
from advtrain.tracking.records import read
from advtrain.tracking.sources import cells
from tests.tracking.tracked_repository import (
    CELL,
    CERTIFICATE,
    CERTIFICATE_KEY,
    EVALUATION,
    EVALUATION_KEY,
    KEY,
    START,
    finished_at,
)


def records(repository):
    (cell,) = cells(repository.root)
    contents = read(repository.root, cell)
    assert contents.troubles == []
    return contents.records


def curve(record, name):
    return [(m.step, m.time, m.value) for m in record.metrics if m.name == name]


def test_the_rows_of_a_running_training_equal_those_of_its_result(repository):
    repository.progress("running", pid=os.getpid())
    for epoch in (1, 2, 3):
        repository.live(epoch)
    (live,) = records(repository)
    repository.train()
    (finished,) = records(repository)
    assert live.key == finished.key
    assert live.params == finished.params
    for name in ("learning_rate", "loss", "validation_robust_accuracy", "epoch_seconds"):
        assert curve(live, name) == curve(finished, name)
        assert len(curve(live, name)) == 3


def test_what_was_measured_of_an_epoch_is_a_curve_while_it_runs_and_after(repository):
    measured = {"data": 0.1, "attack": 1.0, "update": 0.4, "validation": 0.5}
    measured |= {"images_per_second": 800.0, "peak_memory_bytes": 1 << 20}
    repository.progress("running", pid=os.getpid())
    for epoch in (1, 2, 3):
        repository.live(epoch, measured=measured)
    (live,) = records(repository)
    repository.train(measured=measured)
    (finished,) = records(repository)
    for name, value in {
        "time/attack_share": 0.5,
        "time/validation_share": 0.25,
        "time/images_per_second": 800.0,
        "memory/peak_bytes": float(1 << 20),
    }.items():
        assert curve(live, name) == curve(finished, name)
        assert [(step, found) for step, _, found in curve(live, name)] == [
            (epoch, pytest.approx(value)) for epoch in (1, 2, 3)
        ]
    assert "measured" not in {metric.name for metric in finished.metrics}


def test_lines_that_are_half_written_are_left_out(repository):
    repository.progress("running", pid=os.getpid())
    path = repository.live(1)
    with path.open("a", encoding="utf-8") as file:
        file.write('{"epoch": 2, "lo')
    (record,) = records(repository)
    assert [step for step, *_ in curve(record, "loss")] == [1]
    with path.open("a", encoding="utf-8") as file:
        file.write("\n")
    repository.live(2)
    (record,) = records(repository)
    assert [step for step, *_ in curve(record, "loss")] == [1, 2]


def test_of_an_epoch_that_was_trained_twice_the_later_counts(repository):
    repository.progress("running", pid=os.getpid())
    repository.live(1)
    line = {"epoch": 1, "time": START + 99.0, "loss": 7.0}
    with repository.live(2).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    (record,) = records(repository)
    assert curve(record, "loss")[0] == (1, START + 99.0, 7.0)
    assert len(curve(record, "loss")) == 2


def test_the_rows_of_another_key_are_not_its_own(repository):
    repository.progress("running", pid=os.getpid())
    repository.live(1, key="2" * 16)
    (record,) = records(repository)
    assert record.metrics == ()


def test_a_finished_result_counts_more_than_a_progress_file(repository):
    repository.train()
    repository.progress("failed", pid=1, cause="forced again, and failed")
    (record,) = records(repository)
    assert record.status == "FINISHED"


def test_another_key_fails_beside_a_finished_result(repository):
    repository.train()
    repository.progress("failed", pid=1, key="2" * 16, cause="no memory")
    finished, failed = records(repository)
    assert (finished.key, finished.status) == (KEY, "FINISHED")
    assert (failed.key, failed.status) == ("2" * 16, "FAILED")


def test_an_evaluation_that_fails_is_a_child_of_the_training_on_disk(repository):
    repository.train()
    path = repository.root / ".pipeline/progress/attack/digits" / CELL / f"{EVALUATION}.json"
    content = {
        "stage": "attack",
        "name": f"digits/{CELL}/{EVALUATION}",
        "key": EVALUATION_KEY,
        "state": "failed",
        "cause": "no memory",
        "params": {"attack": {"name": "pgd_20", "module": "pgd", "parameters": {}}},
        "started": START,
        "updated": START + 1,
        "pid": 1,
    }
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    _, child = records(repository)
    assert (child.name, child.parent, child.status) == (EVALUATION, KEY, "FAILED")
    assert child.tags["advtrain.cell"] == CELL
    assert child.tags["advtrain.cause"] == "no memory"


@pytest.mark.parametrize(("host", "status"), [(None, "KILLED"), ("elsewhere", "RUNNING")])
def test_a_process_is_looked_for_on_its_own_machine_only(
    repository, process_that_ended, host, status
):
    facts = {"host": host or platform.node()}
    repository.progress("running", pid=process_that_ended, **facts)
    (record,) = records(repository)
    assert record.status == status


def test_totals_that_are_curves_are_not_logged_beside_them(repository):
    repository.train()
    (record,) = records(repository)
    assert [step for step, *_ in curve(record, "forward_passes")] == [1, 2, 3]
    assert curve(record, "best_epoch") == [(0, finished_at(3), 2.0)]


def test_an_evaluation_of_an_earlier_training_is_not_a_column_of_the_present_one(repository):
    repository.train(key="2" * 16)
    repository.evaluate(train_key=KEY)
    training, evaluation = records(repository)
    assert not any(metric.name.startswith("robust_accuracy/") for metric in training.metrics)
    assert evaluation.parent == KEY


def test_the_digest_changes_with_what_is_shown_only(repository):
    repository.train()
    (before,) = records(repository)
    (again,) = records(repository)
    repository.evaluate()
    after = records(repository)[0]
    assert before.digest == again.digest
    assert before.digest != after.digest


def numbers(record):
    times = ("seconds", "time/examples_per_second")
    return {metric.name: metric.value for metric in record.metrics if metric.name not in times}


def test_the_rate_of_an_evaluation_and_its_memory_are_shown(repository):
    repository.train()
    folder = repository.evaluate()  # 10 examples in a minute
    timing = json.loads((folder / "timing.json").read_text(encoding="utf-8"))
    timing["peak_memory_bytes"] = 4096
    (folder / "timing.json").write_text(json.dumps(timing), encoding="utf-8")
    _, child = records(repository)
    assert curve(child, "time/examples_per_second") == [(0, START + 60.0, pytest.approx(1 / 6))]
    assert curve(child, "memory/peak_bytes") == [(0, START + 60.0, 4096.0)]


@pytest.mark.parametrize(
    ("evaluation", "column"),
    [
        ("pgd_20-linf-0.2", "pgd_20"),
        ("pgd_20-linf-0.2-best", "pgd_20-best"),
        ("pgd_20-linf-0.3", "pgd_20-linf-0.3"),
        ("pgd_20-l2-0.2", "pgd_20-l2-0.2"),
        ("rotations-spatial", "rotations"),
    ],
)
def test_a_column_is_named_after_the_attack_where_the_budget_is_the_cells_own(
    repository, evaluation, column
):
    repository.train()
    repository.evaluate(evaluation)
    assert numbers(records(repository)[0])[f"robust_accuracy/{column}"] == 0.6


def test_a_cell_without_a_budget_has_a_column_for_each(repository):
    repository.train("natural-s0")
    repository.evaluate(cell="natural-s0")
    assert numbers(records(repository)[0])["robust_accuracy/pgd_20-linf-0.2"] == 0.6


def test_the_means_can_be_read(repository):
    repository.train()
    repository.certify(prediction=[0, 0, 1], radius=[0.5, 0.0, 0.0])
    _, child = records(repository)
    assert numbers(child)["certified_accuracy"] == 0.666667


def test_a_run_says_where_its_lineage_is_and_how_to_make_it_again(repository):
    repository.train(status="collapsed", cause="the loss is not finite")
    repository.evaluate()
    training, child = records(repository)
    assert training.description.startswith("**collapsed**: the loss is not finite\n")
    for record, place in ((training, f"train/digits/{CELL}"), (child, f"attack/digits/{CELL}")):
        assert f"`reports/index.html#lineage-digits-{CELL}`" in record.description
        assert f"`snakemake --cores all -- .pipeline/fresh/{place}" in record.description
    assert f"/{EVALUATION}`" in child.description


def test_a_job_that_failed_says_why_in_its_description(repository):
    repository.progress("failed", pid=1, cause="no memory")
    (record,) = records(repository)
    assert record.description.startswith("**failed**: no memory\n")


def test_a_certificate_is_a_child_and_a_column_of_its_training(repository):
    repository.train()
    # Right and proved twice, abstained from, and wrong though proved.
    repository.certify(prediction=[0, 0, -1, 1], radius=[0.6, 0.2, 0.0, 0.9])
    training, child = records(repository)
    assert (child.name, child.key, child.parent) == (CERTIFICATE, CERTIFICATE_KEY, KEY)
    assert child.tags["advtrain.stage"] == "certify"
    assert child.tags["advtrain.checkpoint_hash"] == "last" * 4
    assert child.params["norm"] == "l2"
    assert "epsilon" not in child.params
    assert child.dataset.context == "test"
    assert numbers(child) == pytest.approx(
        {
            "certified_accuracy": 0.5,
            "mean_certified_radius": 0.2,
            "mean_forward_passes": 1100.0,
            "mean_backward_passes": 0.0,
        }
    )
    assert numbers(training)["certified_accuracy/smoothing_025"] == 0.5


def test_a_certificate_at_a_budget_counts_what_reaches_it(repository):
    repository.train()
    repository.certify(
        "ibp-linf-0.1",
        norm="linf",
        epsilon=0.1,
        prediction=[0, 0, 1, 0],
        radius=[0.1, 0.0, 0.1, 0.1],
    )
    training, child = records(repository)
    assert numbers(child)["certified_accuracy"] == 0.5
    assert numbers(child)["mean_certified_radius"] == pytest.approx(0.05)
    assert numbers(training)["certified_accuracy/ibp-linf-0.1"] == 0.5


def test_a_certificate_that_runs_is_a_child(repository):
    repository.train()
    name = f"digits/{CELL}/{CERTIFICATE}"
    repository.progress("running", pid=os.getpid(), key=CERTIFICATE_KEY, stage="certify", name=name)
    _, child = records(repository)
    assert (child.name, child.parent, child.status) == (CERTIFICATE, KEY, "RUNNING")
    assert child.metrics == ()


def test_a_certificate_in_the_store_is_found(repository):
    repository.train()
    repository.store(repository.certify(prediction=[0], radius=[0.5]))
    shutil.rmtree(repository.root / "results/certify")
    _, child = records(repository)
    assert numbers(child)["certified_accuracy"] == 1.0


def test_a_training_from_another_ones_weights_is_no_child(repository):
    folder = repository.train()
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    manifest["inputs"]["train:digits/natural-s0"] = {"key": "9" * 16, "digest": "0" * 16}
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    (record,) = records(repository)
    assert record.parent == ""
    (cell,) = cells(repository.root)
    assert training(cell.trained[0]).trained == ""


def test_why_a_training_was_stopped_is_shown(repository):
    repository.train(status="stopped", cause="robust accuracy fell from 0.4 to 0.0")
    (record,) = records(repository)
    assert record.tags["advtrain.status"] == "stopped"
    assert record.tags["advtrain.cause"] == "robust accuracy fell from 0.4 to 0.0"


def test_cells_are_found_from_any_of_their_files(repository):
    repository.store(repository.train("natural-s0", "9" * 16))
    repository.train("natural-s0", "8" * 16)
    repository.live(1)
    (repository.root / "results/train/digits/.gitignore").write_text("/x", encoding="utf-8")
    (repository.root / "results/train/digits/leftover").mkdir()
    found = {cell.name: cell for cell in cells(repository.root)}
    assert found.keys() == {"digits/natural-s0", f"digits/{CELL}"}
    assert len(found["digits/natural-s0"].trained) == 2
    assert ".pipeline" not in str(found["digits/natural-s0"].trained[0].folder)
    assert len(found[f"digits/{CELL}"].live) == 1


def test_the_signature_follows_the_files(repository):
    repository.train()
    (before,) = cells(repository.root)
    (again,) = cells(repository.root)
    repository.evaluate()
    (after,) = cells(repository.root)
    assert before.signature == again.signature
    assert before.signature != after.signature
