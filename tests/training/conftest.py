import pytest

from advtrain.training import stopwatch
from advtrain.training.loop import TrainingData
from tests.training.tiny import tiny_data


@pytest.fixture(scope="session")
def data() -> TrainingData:
    return tiny_data()


class Clock:
    """A clock that goes on only where the tests say so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(stopwatch.time, "perf_counter", clock)
    return clock
