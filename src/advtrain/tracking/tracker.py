"""Tracker: where runs are shown to people, whatever shows them.

Files are the truth and a tracker is a view of them. So a tracker is told what a run *is*, not what
happened to it, and telling it twice changes nothing.
"""

import hashlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]


class UnreachableError(Exception):
    """The tracker cannot be reached now; every run stays pending."""


class RefusedError(Exception):
    """The tracker is there and did not take this one run."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One value of one curve, or a number of the whole run at step 0.

    Attributes:
        time: when it was measured, Unix seconds.
    """

    name: str
    value: float
    step: int
    time: float


@dataclass(frozen=True)
class DatasetRead:
    """The prepared data that a run read.

    Attributes:
        path: its folder, relative to the repository.
        digest: SHA-256 of it.
        context: `train` or `test`.
    """

    name: str
    path: str
    digest: str
    context: str


@dataclass(frozen=True)
class Artifact:
    """A file that a run shows.

    Attributes:
        path: its name in the run, with the folders above it.
        digest: SHA-256 of it; empty for a file that differs between two runs of the same thing.
        source: where it lies.
    """

    path: str
    digest: str
    source: Path = field(repr=False)


@dataclass(frozen=True)
class RunRecord:
    """What a run is, as the files on disk say it.

    Attributes:
        study: the experiment that it belongs to.
        name: the cell, or the evaluation of a cell.
        key: the content key, by which the run is found again.
        parent: the key of the training that an evaluation judges; empty for a training.
        started, finished: Unix seconds; None if it is not known or has not happened.
        description: what a person should know of it, in Markdown.
        params: flat, as text.
        tags: what it comes from; a tag of `OPTIONAL_TAGS` that is not there is taken away.
        artifacts: the files that it shows.
        experiment_tags: what it says of its experiment.
    """

    study: str
    name: str
    key: str
    status: Status
    parent: str = ""
    started: float | None = None
    finished: float | None = None
    description: str = ""
    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    metrics: tuple[Metric, ...] = ()
    dataset: DatasetRead | None = None
    artifacts: tuple[Artifact, ...] = ()
    experiment_tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def identity(self) -> str:
        """The run's name over all experiments: two studies may hold the same cell."""
        return f"{self.study}/{self.key}"

    @property
    def digest(self) -> str:
        """A hash of all of it, to see whether a tracker shows it already."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:16]


OPTIONAL_TAGS = ("advtrain.cause",)

Deliver = Callable[[RunRecord], str]


class Tracker(Protocol):
    """Where runs are shown."""

    def shows(self) -> frozenset[str] | None:
        """Return the identities of the runs that it holds; None where asking is not cheap."""

    def delivering(self) -> AbstractContextManager[Deliver]:
        """Open it, alone: no other process delivers meanwhile.

        Returns:
            A function that makes the tracker show a run, and says under what address below the
            tracker's own (empty: under none); a parent comes before its children.

        Raises:
            UnreachableError: if it cannot be opened, or no more.
            RefusedError: (by the function) if it did not take that run.
        """


class NullTracker:
    """Shows nothing."""

    def shows(self) -> frozenset[str] | None:
        """Return None: it does not know."""
        return None

    def delivering(self) -> AbstractContextManager[Deliver]:
        """Open it."""
        return nullcontext(lambda record: "")


@dataclass
class MemoryTracker:
    """Keeps the runs in memory, by identity, for tests."""

    runs: dict[str, RunRecord] = field(default_factory=dict)

    def shows(self) -> frozenset[str] | None:
        """Return the identities of the runs that it holds."""
        return frozenset(self.runs)

    def delivering(self) -> AbstractContextManager[Deliver]:
        """Open it."""
        return nullcontext(self._deliver)

    def _deliver(self, record: RunRecord) -> str:
        self.runs[record.identity] = record
        return f"runs/{record.identity}"
