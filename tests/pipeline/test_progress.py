import json
from pathlib import Path

from pipeline.job import Progress

MEASURED = {"data": 0.1, "attack": 0.6, "update": 0.3, "validation": 0.0}


def progress(folder: Path) -> Progress:
    return Progress(folder / "progress.json", folder / "history.jsonl", {"stage": "train"})


def test_what_is_measured_belongs_to_the_epoch_that_ends_next(tmp_path: Path) -> None:
    job = progress(tmp_path)
    job.measure(MEASURED)
    job.epoch({"epoch": 1, "loss": 2.0}, 3)
    job.epoch({"epoch": 2, "loss": 1.0}, 3)
    first, second = job.epochs()
    assert first["measured"] == MEASURED
    assert "measured" not in second
    # Not among the metrics of the row.
    assert set(first) == {"epoch", "loss", "time", "seconds", "measured"}


def test_what_was_measured_before_a_kill_is_kept(tmp_path: Path) -> None:
    job = progress(tmp_path)
    job.measure(MEASURED)
    job.epoch({"epoch": 1}, 2)
    job.measure({"data": 9.0})  # the epoch that the kill cut short
    resumed = progress(tmp_path)
    resumed.epoch({"epoch": 2}, 2)
    assert [one.get("measured") for one in resumed.epochs()] == [MEASURED, None]
    assert json.loads((tmp_path / "progress.json").read_text())["epoch"] == 2
