"""Jobs that run or have failed: what their progress files say."""

import json
import os
import platform
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from advtrain.tracking.finished import curves
from advtrain.tracking.tracker import Metric

STATES = ("running", "failed", "done")


def progress(path: Path) -> dict[str, Any]:
    """Read a progress file.

    Returns:
        Its content; the state of a job that says `running` and whose process is gone is `killed`.
    """
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if content["state"] not in STATES:
        raise ValueError(f"state is one of {', '.join(STATES)}, got {content['state']!r}")
    if content["state"] == "running" and not _is_alive(content):
        content["state"] = "killed"
    return content


def live_curves(files: Iterable[Path], cell: str, key: str) -> tuple[Metric, ...]:
    """Read the rows of a training that goes on.

    Args:
        files: those of a cell, of whatever key.
        cell: its name in the study.
        key: of the training.

    Returns:
        The epochs so far, without a line that is just being written or that a kill cut short.
    """
    rows = []
    for file in files:
        if file.parent.name == f"{cell}.{key}":
            for line in file.read_text(encoding="utf-8").splitlines():
                with suppress(json.JSONDecodeError):
                    rows.append(json.loads(line))
    return curves(rows)


def _is_alive(content: Mapping[str, Any]) -> bool:
    """Whether the job's process is there; one that says it is on another machine is believed."""
    if content.get("host", platform.node()) != platform.node() or os.name != "posix":
        return True
    try:
        os.kill(content["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
