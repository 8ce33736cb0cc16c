"""The stopwatch: what an epoch's time went into, measured without holding the device up."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, ParamSpec, TypeVar

import torch

from advtrain.params.environment import most_held

P = ParamSpec("P")
T = TypeVar("T")

_NOTHING = object()

Section = Literal["data", "attack", "update", "validation"]

TRAINING: tuple[Section, ...] = ("data", "attack", "update")
"""What training itself consists of: minibatches, the inner maximisation, the weight step."""

SECTIONS: tuple[Section, ...] = (*TRAINING, "validation")


class Stopwatch:
    """Adds up the seconds that each section of a training loop takes.

    On the CPU a section is timed by the wall clock. On a CUDA device it is the time between two
    events of the current stream: what the device spent on the section's work, and waited for it.
    The host does not wait for the device before `read`.

    A section within another takes its time from that one. Time within none is not counted.

    Args:
        device: that the sections compute on.
    """

    def __init__(self, device: torch.device) -> None:
        self._clock = _DeviceClock(device) if device.type == "cuda" else _HostClock()
        self._open: list[Section] = []
        self._since: Any = None
        self._spans: list[tuple[Section, Any, Any]] = []

    @contextmanager
    def __call__(self, section: Section) -> Iterator[None]:
        """Count the time of a `with` block to a section.

        Args:
            section: one of `SECTIONS`.
        """
        self._turn_to([*self._open, section])
        try:
            yield
        finally:
            self._turn_to(self._open[:-1])

    def timed(self, section: Section, call: Callable[P, T]) -> Callable[P, T]:
        """Return a function whose calls count to a section."""

        def run(*given: P.args, **named: P.kwargs) -> T:
            with self(section):
                return call(*given, **named)

        return run

    def each(self, section: Section, items: Iterable[T]) -> Iterator[T]:
        """Yield the items, counting the wait for each to a section, not what is done with it."""
        waiting = iter(items)
        while True:
            with self(section):
                item = next(waiting, _NOTHING)
            if item is _NOTHING:
                return
            yield item  # type: ignore[misc]

    def read(self) -> dict[str, float]:
        """Return the seconds of each section since the last reading, and start again from 0.

        Between sections; on a CUDA device it waits until the last one is done, so that once an
        epoch is often enough.

        Returns:
            Seconds for every one of `SECTIONS`, 0 for one that was not entered.
        """
        found: dict[str, float] = dict.fromkeys(SECTIONS, 0.0)
        if self._spans:
            self._clock.wait_for(self._spans[-1][2])
        for section, start, end in self._spans:
            found[section] += self._clock.seconds(start, end)
        self._spans.clear()
        self._clock.forget()
        return found

    def _turn_to(self, sections: list[Section]) -> None:
        """Close the span of the innermost section, and open that of another."""
        now = self._clock.now()
        if self._open:
            self._spans.append((self._open[-1], self._since, now))
        self._open, self._since = sections, now


class _HostClock:
    """The wall clock of the process."""

    def now(self) -> float:
        return time.perf_counter()

    def seconds(self, start: float, end: float) -> float:
        return end - start

    def wait_for(self, moment: float) -> None:
        return

    def forget(self) -> None:
        return


class _DeviceClock:
    """Events of the current stream of a CUDA device, which are used again once they are read."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._used: list[torch.cuda.Event] = []
        self._spare: list[torch.cuda.Event] = []

    def now(self) -> torch.cuda.Event:
        with torch.cuda.device(self._device):
            event = self._spare.pop() if self._spare else _timed_event()
            event.record()
        self._used.append(event)
        return event

    def seconds(self, start: torch.cuda.Event, end: torch.cuda.Event) -> float:
        milliseconds: float = start.elapsed_time(end)
        return milliseconds / 1000

    def wait_for(self, moment: torch.cuda.Event) -> None:
        moment.synchronize()

    def forget(self) -> None:
        self._spare += self._used
        self._used = []


def _timed_event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


def measured(seconds: Mapping[str, float], images: int, device: torch.device) -> dict[str, float]:
    """Describe an epoch by what was measured of it.

    Args:
        seconds: of each section, as a stopwatch reads them.
        images: rows that weight steps were taken on: examples times views times replays.
        device: whose memory is looked at.

    Returns:
        The seconds, `images_per_second` (of data, attack and update together; 0 where they took no
        time that the clock can tell) and `peak_memory_bytes`.
    """
    spent = sum(seconds[section] for section in TRAINING)
    return {
        **seconds,
        "images_per_second": images / spent if spent else 0.0,
        "peak_memory_bytes": peak_memory(device),
    }


def peak_memory(device: torch.device) -> int:
    """Return the most memory that was in use at once, in bytes.

    Args:
        device: a CUDA device: of this process's tensors on it. Another: the process's own memory.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return most_held()
