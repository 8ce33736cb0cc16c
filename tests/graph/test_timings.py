from typing import Any

import pytest

from advtrain.graph.timings import (
    SECTIONS,
    as_metrics,
    images_per_second,
    measured_epochs,
    peak_memory,
    shares,
)

FIRST = {"data": 1.0, "attack": 6.0, "update": 3.0, "validation": 10.0, "images_per_second": 50.0}
SECOND = {"data": 1.0, "attack": 28.0, "update": 1.0, "validation": 0.0, "images_per_second": 10.0}


def test_shares_are_of_the_time_in_all_sections() -> None:
    found = shares([FIRST, SECOND])
    assert found == pytest.approx({"data": 0.04, "attack": 0.68, "update": 0.08, "validation": 0.2})
    assert sum(found.values()) == pytest.approx(1)


def test_a_rate_is_that_of_all_images_over_all_seconds() -> None:
    # 500 images in 10 s, then 300 in 30 s; the validation's seconds are not among them.
    assert images_per_second([FIRST, SECOND]) == pytest.approx(800 / 40)


@pytest.mark.parametrize("epochs", [[], [dict.fromkeys([*SECTIONS, "images_per_second"], 0.0)]])
def test_without_time_there_is_no_share_and_no_rate(epochs: list[dict[str, float]]) -> None:
    assert shares(epochs) == {}
    assert images_per_second(epochs) is None


def test_epochs_that_nobody_measured_are_left_out() -> None:
    timing = {"seconds": 9.0, "epochs": [{"epoch": 1, "seconds": 4.0}, {"measured": FIRST}]}
    assert measured_epochs(timing) == [FIRST]
    assert measured_epochs({"seconds": 9.0}) == []


@pytest.mark.parametrize(
    ("timing", "expected"),
    [
        ({}, None),
        ({"peak_memory_bytes": 7}, 7),
        ({"peak_memory_bytes": 7, "epochs": [{"measured": {"peak_memory_bytes": 9.0}}]}, 9),
        ({"peak_memory_bytes": None, "epochs": [{"measured": {"peak_memory_bytes": 9}}, {}]}, 9),
    ],
)
def test_the_peak_is_that_of_any_process(timing: dict[str, Any], expected: int | None) -> None:
    assert peak_memory(timing) == expected


def test_what_a_tracker_is_told_of_an_epoch() -> None:
    assert as_metrics(FIRST | {"peak_memory_bytes": 1024}) == {
        "time/data_share": 0.05,
        "time/attack_share": 0.3,
        "time/update_share": 0.15,
        "time/validation_share": 0.5,
        "time/images_per_second": 50.0,
        "memory/peak_bytes": 1024,
    }
    assert as_metrics(None) == {}
