"""What the tables, figures and the page are told of a study besides its rows."""

from collections.abc import Mapping
from typing import Any, TypedDict, cast

UNKNOWN = 0


class Failure(TypedDict):
    """A cell without numbers.

    Attributes:
        cell: the cell `trades-linf-0.2-s0`, or one of its attacks and certificates
            `trades-linf-0.2-s0/pgd_20-linf-0.2`; the study's name may stand before it.
        stage: the step that failed, or that never ran; `certify` for a certificate.
        state: `failed` or `missing`.
        cause: why, in words.
    """

    cell: str
    stage: str
    state: str
    cause: str


class StudyInfo(TypedDict):
    """A study in words.

    Attributes:
        name: the study's name, part of file names; of a reference run, with its device
            (`cifar10_cpu@cpu`).
        title: one line.
        description: what the study is for; may be empty.
        dataset: the data set's name.
        classes: how many classes it has: chance is one in so many; `UNKNOWN` if its data set was
            not prepared, so that it has no cells.
        curve_attack: the attack of the accuracy-versus-epsilon figure, or None.
        attacks: the attacks' names, in the order of the columns.
        methods: the methods' labels, in the order of the rows.
        method_modules: the module of each, by label.
        method_updates: how the weights of each are updated, `plain` or `awp`, by label.
        method_upstream: the `teacher` and the `start` of each, None for none, by label.
        method_additions: what the recipe of each does besides the method, by label: `averaging
            ema`, `cutout 2`.
        certificates: the certificates' names, in the order of the rows.
        attack_sources: the method on whose cells an attack is crafted, by attack; for an attack on
            the attacked cell itself, none.
        strict: no tables are written if an audit fails.
        data_set: the data set's `module`, `parameters` and `split`.
        published: the trainings in the registry of published numbers that a method stands beside,
            by label; a method without any is not there.
        failures: the cells without numbers.
    """

    name: str
    title: str
    description: str
    dataset: str
    classes: int
    curve_attack: str | None
    attacks: list[str]
    methods: list[str]
    method_modules: dict[str, str]
    method_updates: dict[str, str]
    method_upstream: dict[str, dict[str, str | None]]
    method_additions: dict[str, list[str]]
    certificates: list[str]
    attack_sources: dict[str, str]
    strict: bool
    data_set: dict[str, Any]
    published: dict[str, list[str]]
    failures: list[Failure]


def check_info(info: Mapping[str, Any]) -> StudyInfo:
    """Check that a study is told of in full; keys besides the known ones are let through.

    Raises:
        ValueError: naming the study and what is missing or wrong.
    """
    place = f"study {info.get('name', '?')}"
    if absent := [key for key in StudyInfo.__annotations__ if key not in info]:
        raise ValueError(
            f"{place}: the report is not told its {', '.join(absent)}; "
            f"expected {', '.join(StudyInfo.__annotations__)}"
        )
    for failure in info["failures"]:
        if set(Failure.__annotations__) - set(failure) or failure["state"] not in (
            "failed",
            "missing",
        ):
            raise ValueError(
                f"{place}: a failure has {', '.join(Failure.__annotations__)} "
                f"and the state failed or missing, got {failure}"
            )
    if info["classes"] == 1 or info["classes"] < UNKNOWN:
        raise ValueError(f"{place}: expected 2 classes or more, got {info['classes']}")
    return cast(StudyInfo, info)
