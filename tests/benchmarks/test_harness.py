"""What the benchmarks share: turns, ratios within a round, goals, records."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from advtrain.noise import Noise
from advtrain.threat import ThreatModel
from benchmarks import harness
from benchmarks.harness import Goal, Network, Results


@pytest.fixture
def network() -> Network:
    x, y = torch.rand(6, 1, 2, 2), torch.zeros(6, dtype=torch.int64)
    return Network("tiny", nn.Flatten(), x, y, ThreatModel("linf", 0.1), 3)


def test_the_methods_take_turns_in_another_order_each_round(network: Network) -> None:
    called: list[str] = []

    def method(name: str) -> harness.Method:
        return lambda x, y, noise: called.append(name)

    seconds, _ = harness.interleaved({name: method(name) for name in "abc"}, network, 3)
    assert called == [*"abc", *"abc", *"bca", *"cab"]  # once before, unmeasured
    assert {name: len(found) for name, found in seconds.items()} == dict.fromkeys("abc", 3)


def test_a_round_gives_every_method_the_same_full_batch(network: Network) -> None:
    def found(x: Tensor, y: Tensor, noise: Noise) -> list[int]:
        assert x.shape == (3, 1, 2, 2)
        return noise.examples.tolist()

    _, returned = harness.interleaved({"a": found, "b": found}, network, 3)
    assert returned["a"] == returned["b"] == [[0, 1, 2], [3, 4, 5], [0, 1, 2]]


def test_repeats_are_divided_out(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(100))
    monkeypatch.setattr(harness.time, "process_time", lambda: float(next(clock)))
    seconds, _ = harness.interleaved({"a": lambda x, y, noise: None}, network, 2, repeats=4)
    assert seconds == {"a": [0.25, 0.25]}


def test_a_ratio_is_taken_within_a_round() -> None:
    assert harness.ratio([2.0, 30.0, 8.0], [1.0, 10.0, 2.0]) == (3.0, 2.0, 4.0)


@pytest.mark.parametrize(
    ("measured", "at_most", "met"),
    [(2.0, False, True), (1.9, False, False), (2.0, True, True), ((2.1, 1.0, 3.0), True, False)],
)
def test_a_goal_is_judged_by_its_median(measured: float, at_most: bool, met: bool) -> None:
    goal = Goal("P3 it / floor", measured, 2.0, at_most)
    assert goal.met is met
    assert str(goal).startswith("met " if met else "MISSED ")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.2345, "1.23"),
        (0.012345, "0.0123"),
        (123.45, "123"),
        (0.00001234, "1.23e-05"),
        ((2.0, 1.0, 3.0), "2.00 (1.00 to 3.00)"),
        (7, "7"),
        ("word", "word"),
        (float("nan"), "nan"),
    ],
)
def test_numbers_are_shown_with_three_digits(value: object, text: str) -> None:
    assert harness.show(value) == text


def numbers_section(factor: float) -> Results:
    """Numbers (P1)."""
    return Results([{"what": "a", "found": 1 / 3 * factor}], [Goal("P1 a", (1.0, 0.5, 2.0), 1)])


def test_a_section_leaves_a_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sections = {"numbers": numbers_section}
    given = harness.parser("About.", sections).parse_args(["--folder", str(tmp_path)])
    harness.measure("suite", sections, given, 2.0)
    (path,) = tmp_path.iterdir()
    record = json.loads(path.read_text())
    assert path.name == f"suite-numbers-cpu-{record['date']}.json"
    assert (record["suite"], record["section"], record["device"]) == ("suite", "numbers", "cpu")
    assert record["rows"] == [{"what": "a", "found": 0.6667}]  # four digits are enough
    assert record["goals"][0]["measured"] == [1.0, 0.5, 2.0]
    assert record["machine"]["torch"] == torch.__version__.split("+")[0]
    assert "met    P1 a: 1.00 (0.500 to 2.00)" in capsys.readouterr().out


def test_a_quick_trial_leaves_none(monkeypatch: pytest.MonkeyPatch) -> None:
    sections = {"numbers": numbers_section}
    monkeypatch.setattr(harness, "keep", lambda *_: pytest.fail("a quick trial was kept"))
    given = harness.parser("About.", sections).parse_args(["--quick"])
    harness.measure("suite", sections, given, 1.0)
    given.folder = harness.KEPT
    with pytest.raises(pytest.fail.Exception):  # unless a folder is named
        harness.measure("suite", sections, given, 1.0)
