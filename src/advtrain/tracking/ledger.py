"""The ledger: what has been delivered, so that asking again costs nothing.

It is a convenience and never the truth: without it every run is found again by its key.
"""

import json
import os
from collections.abc import Set
from dataclasses import dataclass, field
from pathlib import Path

from advtrain.tracking.sources import Cell
from advtrain.tracking.tracker import RunRecord

FORMAT = 1


@dataclass
class Ledger:
    """What one copy of the repository has delivered to one tracker.

    Attributes:
        delivered: the digest of each run as it was delivered, by identity.
        seen: the signature of each cell's files when all of it had been delivered.
        running: the name and study of each run that was last shown as running, by identity.
    """

    path: Path
    delivered: dict[str, str] = field(default_factory=dict)
    seen: dict[str, str] = field(default_factory=dict)
    running: dict[str, dict[str, str]] = field(default_factory=dict)
    changed: bool = field(default=False, init=False)

    @classmethod
    def load(cls, path: Path) -> "Ledger":
        """Read it; one that is missing, damaged or of another format is empty."""
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            if stored["format"] == FORMAT:
                return cls(path, stored["delivered"], stored["seen"], stored["running"])
        except (OSError, ValueError, KeyError, TypeError):
            pass
        return cls(path)

    def save(self) -> None:
        """Write it if anything changed, whole or not at all."""
        if not self.changed:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        content = {
            "format": FORMAT,
            "delivered": self.delivered,
            "seen": self.seen,
            "running": self.running,
        }
        scratch = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        scratch.write_text(json.dumps(content), encoding="utf-8")
        scratch.replace(self.path)
        self.changed = False

    def forget(self) -> None:
        """Take nothing as delivered."""
        self.delivered.clear()
        self.seen.clear()
        self.changed = True

    def keep(self, shown: Set[str]) -> None:
        """Forget the runs that the tracker has lost."""
        lost = self.delivered.keys() - shown
        if lost:
            # Which cell a lost run belongs to is not noted: look at all of them again.
            self.seen.clear()
            self.changed = True
        for identity in lost:
            del self.delivered[identity]
            self.running.pop(identity, None)

    def note(self, record: RunRecord) -> None:
        """Note that a run has been delivered."""
        self.changed = True
        self.delivered[record.identity] = record.digest
        self.running.pop(record.identity, None)
        if record.status == "RUNNING":
            self.running[record.identity] = {
                "study": record.study,
                "name": record.name,
                "key": record.key,
                "parent": record.parent,
                "cell": record.tags["advtrain.cell"],
            }

    def see(self, cell: Cell, *, settled: bool) -> None:
        """Note that all of a cell has been delivered, or that it has to be looked at again."""
        before = self.seen.pop(cell.name, None)
        if settled:
            self.seen[cell.name] = cell.signature
        self.changed |= before != self.seen.get(cell.name)
