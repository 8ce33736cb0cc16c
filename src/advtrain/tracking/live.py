"""The live view: what is done, what runs, how long it will take, from small files on disk."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PLAN = ".pipeline/follow.json"
"""What the present run set out to do: for each node its marker and its likely seconds."""


def progress_line(root: Path, elapsed: float) -> str:
    """Say how far the run is: `12/71 done · about 2 min left · train digits/trades… epoch 7/20`."""
    try:
        todo = json.loads((root / PLAN).read_text(encoding="utf-8"))["todo"]
    except (OSError, ValueError, KeyError):
        return ""
    done = {id for id, one in todo.items() if (root / one["marker"]).exists()}
    running = list(running_jobs(root))
    parts = [f"{len(done)}/{len(todo)} done"]
    left = _seconds_left(todo, done, elapsed)
    if left is not None:
        parts.append(f"about {duration(left)} left")
    for job in running:
        epochs = f" {job['epoch']}/{job['epochs']}" if job.get("epochs") else ""
        parts.append(f"{job['stage']} {job['name'].split('/', 1)[-1]}{epochs}")
    return " · ".join(parts)


def running_jobs(root: Path) -> list[dict[str, Any]]:
    """Return the progress of the jobs that are running now."""
    found = []
    for path in sorted((root / ".pipeline/progress").rglob("*.json")):
        try:
            job = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if job.get("state") == "running" and _is_alive(job.get("pid", -1)):
            found.append(job)
    return found


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return pid > 0


def _seconds_left(
    todo: Mapping[str, Mapping[str, Any]], done: set[str], elapsed: float
) -> float | None:
    """Scale the estimates of what is left by how they have held so far."""
    known: dict[str, float] = {
        id: one["seconds"] for id, one in todo.items() if one["seconds"] is not None
    }
    fallback = sum(known.values()) / len(known) if known else None
    if fallback is None:
        return elapsed / len(done) * (len(todo) - len(done)) if len(done) >= 3 else None
    weight: dict[str, float] = {id: known.get(id, fallback) for id in todo}
    spent, left = sum(weight[i] for i in done), sum(weight[i] for i in todo if i not in done)
    pace = elapsed / spent if len(done) >= 3 and spent else 1 / (os.cpu_count() or 1)
    return left * pace


def duration(seconds: float) -> str:
    """Write a duration for a person: `40 s`, `3 min`, `2.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
