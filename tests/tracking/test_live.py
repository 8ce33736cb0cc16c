"""The live line, from the small files that jobs write."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from advtrain.tracking.live import PLAN, duration, progress_line, running_jobs


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    todo = {
        f"train:s/{name}": {"marker": f".pipeline/fresh/train/s/{name}", "seconds": 10.0}
        for name in ("a", "b", "c", "d")
    }
    write(tmp_path / PLAN, {"todo": todo, "started": 0})
    job = {"stage": "train", "name": "s/b", "state": "running", "epoch": 3, "epochs": 9}
    write(tmp_path / ".pipeline/progress/train/s/b.json", {**job, "pid": os.getpid()})
    write(tmp_path / ".pipeline/progress/train/s/x.json", {**job, "name": "s/x", "pid": 2**22 + 1})
    write(tmp_path / ".pipeline/progress/train/s/y.json", {**job, "name": "s/y", "state": "failed"})
    (tmp_path / ".pipeline/progress/train/s/z.json").write_text("{")
    return tmp_path


def test_only_living_jobs_are_shown(root: Path) -> None:
    assert [job["name"] for job in running_jobs(root)] == ["s/b"]


def test_the_line(root: Path) -> None:
    marker = root / ".pipeline/fresh/train/s/a"
    marker.parent.mkdir(parents=True)
    marker.touch()
    parts = progress_line(root, 12.0).split(" · ")
    assert parts[0] == "1/4 done"
    assert parts[1].startswith("about ")
    assert parts[2] == "train b 3/9"


def test_the_pace_so_far_scales_what_is_left(root: Path) -> None:
    for name in ("a", "b", "c"):
        marker = root / f".pipeline/fresh/train/s/{name}"
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch()
    # Three nodes of 10 s each took 60 s: the fourth will take 20.
    assert "about 20 s left" in progress_line(root, 60.0)


def test_no_plan_no_line(tmp_path: Path) -> None:
    assert progress_line(tmp_path, 1.0) == ""


@pytest.mark.parametrize(
    ("seconds", "text"), [(5, "5 s"), (89, "89 s"), (200, "3 min"), (9000, "2.5 h")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
