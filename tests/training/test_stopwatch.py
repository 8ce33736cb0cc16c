import contextlib
import time
from collections.abc import Iterator
from typing import ClassVar

import pytest
import torch

from advtrain.graph import timings
from advtrain.training import stopwatch
from advtrain.training.stopwatch import SECTIONS, TRAINING, Stopwatch, measured, peak_memory
from tests.training.conftest import Clock

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


class Event:
    """A CUDA event on a device whose clock is `Event.clock`, in seconds."""

    clock = Clock()
    made: ClassVar[list["Event"]] = []
    waits = 0

    def __init__(self) -> None:
        self.made.append(self)
        self.at = -1.0

    def record(self) -> None:
        self.at = self.clock.now

    def synchronize(self) -> None:
        Event.waits += 1

    def elapsed_time(self, end: "Event") -> float:
        assert Event.waits, "read before the device was waited for"
        return 1000 * (end.at - self.at)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of a simulated CUDA device."""
    monkeypatch.setattr(stopwatch, "_timed_event", Event)
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(Event, "clock", Clock())
    monkeypatch.setattr(Event, "made", [])
    monkeypatch.setattr(Event, "waits", 0)
    return Event.clock


def epoch(watch: Stopwatch, clock: Clock, attack: float) -> None:
    """Two steps of a loop, with time between the sections that belongs to none."""
    for _ in range(2):
        with watch("data"):
            clock.now += 1
        with watch("attack"):
            clock.now += attack
        clock.now += 100
        with watch("update"):
            clock.now += 3


def test_sections_add_up_until_they_are_read(clock: Clock) -> None:
    watch = Stopwatch(CPU)
    epoch(watch, clock, attack=10)
    assert watch.read() == {"data": 2, "attack": 20, "update": 6, "validation": 0}
    epoch(watch, clock, attack=1)
    with watch("validation"):
        clock.now += 5
    assert watch.read() == {"data": 2, "attack": 2, "update": 6, "validation": 5}
    assert watch.read() == dict.fromkeys(SECTIONS, 0)


def test_a_cuda_device_is_waited_for_once_an_epoch(device: Clock) -> None:
    watch = Stopwatch(CUDA)
    epoch(watch, device, attack=10)
    assert Event.waits == 0
    assert watch.read() == {"data": 2, "attack": 20, "update": 6, "validation": 0}
    assert Event.waits == 1
    events = len(Event.made)
    epoch(watch, device, attack=1)
    assert watch.read()["attack"] == 2
    assert len(Event.made) == events  # the same ones, again


def test_the_host_clock_is_not_asked_on_a_cuda_device(device: Clock, clock: Clock) -> None:
    watch = Stopwatch(CUDA)
    with watch("attack"):
        clock.now += 7
        device.now += 2
    assert watch.read()["attack"] == 2


@pytest.mark.parametrize("where", [CPU, CUDA])
def test_a_section_within_another_takes_its_time_from_it(
    clock: Clock, device: Clock, where: torch.device
) -> None:
    watch = Stopwatch(where)

    def work(seconds: int) -> int:
        clock.now += seconds
        device.now += seconds
        return seconds

    update = watch.timed("update", work)
    with watch("attack"):
        work(5)
        assert update(3) == 3
        work(2)
    work(100)
    assert watch.read() == {"data": 0, "attack": 7, "update": 3, "validation": 0}


def test_the_wait_for_each_item_is_counted_and_not_its_use(clock: Clock) -> None:
    watch = Stopwatch(CPU)

    def slow() -> Iterator[int]:
        for item in range(3):
            clock.now += 1
            yield item
        clock.now += 1

    found = []
    for item in watch.each("data", slow()):
        clock.now += 50
        found.append(item)
    assert found == [0, 1, 2]
    assert watch.read()["data"] == 4


@pytest.mark.parametrize("where", [CPU, CUDA])
def test_after_a_section_that_failed_the_next_is_counted_as_ever(
    clock: Clock, device: Clock, where: torch.device
) -> None:
    """As where a minibatch did not fit into memory and its halves do."""
    watch = Stopwatch(where)

    def fails() -> None:
        clock.now += 1
        device.now += 1
        raise MemoryError

    with watch("attack"), contextlib.suppress(MemoryError):
        watch.timed("update", fails)()
    with contextlib.suppress(MemoryError):
        watch.timed("attack", fails)()
    clock.now += 100
    device.now += 100
    with watch("update"):
        clock.now += 2
        device.now += 2
    assert watch.read() == {"data": 0, "attack": 1, "update": 3, "validation": 0}


def test_what_is_measured_of_an_epoch() -> None:
    seconds = {"data": 1.0, "attack": 6.0, "update": 3.0, "validation": 90.0}
    found = measured(seconds, 500, CPU)
    # The validation trains on no image.
    assert found.pop("images_per_second") == 50
    assert found.pop("peak_memory_bytes") == peak_memory(CPU)
    assert found == seconds
    assert measured(dict.fromkeys(SECTIONS, 0.0), 500, CPU)["images_per_second"] == 0


def test_the_peak_of_the_process_is_in_bytes() -> None:
    held = torch.ones(1 << 24)
    assert held.nbytes < peak_memory(CPU) < 1 << 46


def test_the_sections_are_those_that_the_results_name() -> None:
    assert SECTIONS == timings.SECTIONS
    assert TRAINING == timings.TRAINING


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_work_of_a_cuda_device_is_timed_by_the_device() -> None:
    a = torch.randn(4096, 4096, device=CUDA)
    (a @ a).sum().item()
    begun = time.perf_counter()
    watch = Stopwatch(CUDA)
    for _ in range(2):
        with watch("attack"):
            a @ a
        with watch("update"):
            a @ a
    found = watch.read()
    assert found["attack"] > 0 < found["update"]
    assert found["validation"] == 0
    assert sum(found.values()) <= time.perf_counter() - begun
    assert peak_memory(CUDA) >= 2 * a.nbytes
