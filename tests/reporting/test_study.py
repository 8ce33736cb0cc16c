from typing import Any

import pytest

from advtrain.reporting.study import check_info
from tests.results.synthetic import study_info

FAILURE = {"cell": "natural-s0", "stage": "train", "state": "failed", "cause": "out of memory"}


def test_a_study_told_in_full_is_taken_with_what_else_is_told() -> None:
    info: dict[str, Any] = study_info(failures=[FAILURE], model="small")
    assert check_info(info) == info


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": 1}, "study fake: expected 2 classes or more, got 1"),
        ({"failures": [{**FAILURE, "state": "late"}]}, "study fake: a failure has cell, stage"),
        ({"failures": [{"cell": "natural-s0"}]}, "study fake: a failure has cell, stage"),
    ],
)
def test_a_study_told_wrong_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_info(study_info(**change))


def test_the_additions_of_the_recipes_have_to_be_told() -> None:
    info = study_info()
    del info["method_additions"]
    with pytest.raises(ValueError, match="the report is not told its method_additions; expected"):
        check_info(info)


def test_what_is_not_told_is_named() -> None:
    info = study_info()
    del info["attacks"], info["classes"], info["method_updates"]
    with pytest.raises(
        ValueError, match="study fake: the report is not told its classes, attacks, method_upd"
    ):
        check_info(info)
