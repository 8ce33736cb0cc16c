"""Numbers that the environment asks for or tells: they belong to a machine, and to no result."""

import os
import re
import resource
import sys
from pathlib import Path


def counted(variable: str, default: int, *, what: str = "whole number", least: int = 1) -> int:
    """Read how many an environment variable asks for.

    Args:
        variable: its name.
        default: where it is not set, or empty.
        what: is counted, for the error.
        least: that it may be.

    Raises:
        ValueError: if it says something else than a whole number, `least` or more.
    """
    text = os.environ.get(variable, "").strip()
    if not text:
        return default
    if not text.isdecimal() or int(text) < least:
        raise ValueError(f"{variable}: expected a {what}, {least} or more, got {text!r}")
    return int(text)


def most_held() -> int:
    """Return the most memory that this process has held at once, in bytes."""
    # Not Linux's `getrusage`, which begins with what the process that started this one held.
    if held := kilobytes(Path("/proc/self/status"), "VmHWM"):
        return held
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def kilobytes(path: Path, field: str) -> int:
    """Read a line such as `VmRSS:  1234 kB`, in bytes; 0 where the system has no such file."""
    try:
        found = re.search(rf"^{field}:\s+(\d+) kB", path.read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) * 1024 if found else 0
