"""MLflow's SQLite file, looked at without MLflow: a millisecond instead of seconds."""

import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import quote

KNOWN_RUNS = """
    select experiments.name, tags.value from tags
    join runs on runs.run_uuid = tags.run_uuid
    join experiments on experiments.experiment_id = runs.experiment_id
    where tags.key = 'advtrain.key'
"""


def known_runs(path: Path) -> frozenset[str] | None:
    """Return the identities (`<study>/<key>`) of the runs that the file holds.

    A run that a person deleted in the web page still counts, so that it stays deleted.

    Args:
        path: the file, which need not exist.

    Returns:
        None if that cannot be told now.
    """
    if not path.exists():
        return frozenset()
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as opened:
            rows = opened.execute(KNOWN_RUNS).fetchall()
    except sqlite3.Error as error:
        return frozenset() if "no such table" in str(error) else None
    return frozenset(f"{study}/{key}" for study, key in rows)


def open_for_many(path: Path) -> int:
    """Make sure that the file can be written, and that who reads it does not wait for who writes.

    Args:
        path: the file; made if it does not exist.

    Returns:
        Its number in the file system, which another file of the same name does not have.

    Raises:
        sqlite3.Error, OSError: if it cannot be opened or is no SQLite file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path)) as opened:
        # A network file system may refuse the write-ahead log, and works without.
        with suppress(sqlite3.OperationalError):
            opened.execute("pragma journal_mode = wal")
        opened.execute("pragma schema_version")
    return path.stat().st_ino
