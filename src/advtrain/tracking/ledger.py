"""The ledger: what has been delivered, so that asking again costs nothing.

It is a convenience and never the truth: without it every run is found again by its key.
"""

import json
import os
from collections.abc import Set
from dataclasses import asdict, dataclass, field
from pathlib import Path

from advtrain.tracking.columns import Columns
from advtrain.tracking.sources import Cell, Study
from advtrain.tracking.tracker import RunRecord

FORMAT = 2


@dataclass(frozen=True)
class Shown:
    """A run as it was delivered.

    Attributes:
        digest: of all of it.
        page: its address below the tracker's own; empty if it has none.
        study, name, key, parent, status: as in its record.
        stage: the step that it is of.
        cell: the cell that it is of; empty for a study's summary.
    """

    digest: str
    page: str
    study: str
    name: str
    key: str
    parent: str
    status: str
    stage: str
    cell: str


@dataclass
class Ledger:
    """What one copy of the repository has delivered to one tracker.

    Attributes:
        delivered: each run as it was delivered, by identity.
        seen: the signature of each cell's files when all of it had been delivered, and likewise
            of each study's tables and figures.
        columns: what each study's tables say of its cells, by study and cell, as last read.
    """

    path: Path
    delivered: dict[str, Shown] = field(default_factory=dict)
    seen: dict[str, str] = field(default_factory=dict)
    columns: dict[str, dict[str, Columns]] = field(default_factory=dict)
    changed: bool = field(default=False, init=False)

    @classmethod
    def load(cls, path: Path) -> "Ledger":
        """Read it; one that is missing, damaged or of another format is empty."""
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            if stored["format"] == FORMAT:
                return cls(
                    path,
                    {identity: Shown(**one) for identity, one in stored["delivered"].items()},
                    stored["seen"],
                    {
                        study: {cell: Columns(**one) for cell, one in cells.items()}
                        for study, cells in stored["columns"].items()
                    },
                )
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            pass
        return cls(path)

    def save(self) -> None:
        """Write it if anything changed, whole or not at all."""
        if not self.changed:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        content = {
            "format": FORMAT,
            "delivered": {identity: asdict(one) for identity, one in self.delivered.items()},
            "seen": self.seen,
            "columns": {
                study: {cell: asdict(one) for cell, one in cells.items()}
                for study, cells in self.columns.items()
            },
        }
        scratch = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        scratch.write_text(json.dumps(content), encoding="utf-8")
        scratch.replace(self.path)
        self.changed = False

    @property
    def running(self) -> dict[str, Shown]:
        """The runs that were last shown as running, by identity."""
        return {name: one for name, one in self.delivered.items() if one.status == "RUNNING"}

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

    def note(self, record: RunRecord, page: str) -> None:
        """Note that a run has been delivered, and where it is shown."""
        self.changed = True
        self.delivered[record.identity] = Shown(
            digest=record.digest,
            page=page,
            study=record.study,
            name=record.name,
            key=record.key,
            parent=record.parent,
            status=record.status,
            stage=record.tags.get("advtrain.stage", ""),
            cell=record.tags.get("advtrain.cell", ""),
        )

    def tell(self, study: str, columns: dict[str, Columns]) -> None:
        """Note what a study's tables say of its cells."""
        self.changed = True
        self.columns[study] = columns

    def see(self, files: Cell | Study, *, settled: bool) -> None:
        """Note that all of a cell or study has been delivered, or has to be looked at again."""
        before = self.seen.pop(files.name, None)
        if settled:
            self.seen[files.name] = files.signature
        self.changed |= before != self.seen.get(files.name)
