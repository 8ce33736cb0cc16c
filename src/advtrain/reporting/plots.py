"""What `dvc plots show` and `dvc plots diff` draw: a few numbers of all studies, as CSV."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from advtrain.reporting import wording
from advtrain.reporting.captions import unit_text
from advtrain.reporting.columns import share_text
from advtrain.reporting.sheet import comma_separated
from advtrain.reporting.shown import Course, Shown
from advtrain.reporting.study_report import StudyReport
from advtrain.results.files import write_bytes

PLOTS = {
    "accuracy_epsilon": ("epsilon", "accuracy"),
    "training_curves": ("epoch", "validation_accuracy"),
    "trade_off": ("clean_accuracy", "worst_case_accuracy"),
}
"""By the name of the file, what is drawn against what; `dvc.yaml` says the same."""

Point = tuple[str, str, str, str]
"""A series, what the number is of, and the two numbers."""


def write_plots(studies: Sequence[StudyReport], out: Path) -> list[Path]:
    """Write the plots of all studies.

    Args:
        studies: one whose collected folder is not there has no points.
        out: the folder that gets a file for each of `PLOTS`, with the columns `study`, `series`
            (a method with its training budget), `kind`, and the two that are drawn; accuracies are
            shares in [0, 1], means over seeds.

    Returns:
        The files.
    """
    points: dict[str, list[tuple[str, ...]]] = {name: [] for name in PLOTS}
    for study in studies:
        for name, found in _points(study.shown).items():
            points[name] += [(study.info["name"], *one) for one in found]
    written = []
    for name, axes in PLOTS.items():
        heads = ("study", "series", "kind", *axes)
        columns = zip(*points[name], strict=True) if points[name] else ((),) * len(heads)
        data = pa.table(dict(zip(heads, ([*one] for one in columns), strict=True)))
        written.append(out / f"{name}.csv")
        write_bytes(written[-1], comma_separated(data).encode())
    return written


def _points(shown: Shown) -> dict[str, Iterator[Point]]:
    return {
        "accuracy_epsilon": _accuracies(shown),
        "training_curves": _epochs(shown),
        "trade_off": _trade_off(shown),
    }


def _accuracies(shown: Shown) -> Iterator[Point]:
    for unit, points in shown.curves:
        for point in points:
            if point.accuracy and point.epsilon is not None:
                kind = shown.info["curve_attack"] or ""
                said = f"{point.epsilon:.6g}", share_text(point.accuracy.mean)
                yield unit_text(unit), kind, *said


def _epochs(shown: Shown) -> Iterator[Point]:
    """Return the means over seeds at each epoch that all of them have."""
    for unit, courses in shown.courses:
        for kind in ("clean", "under attack"):
            lines = [dict(_line(course, kind)) for course in courses]
            for epoch in sorted(set.intersection(*map(set, lines))):
                mean = float(np.mean([line[epoch] for line in lines]))
                yield unit_text(unit), kind, str(epoch), share_text(mean)


def _line(course: Course, kind: str) -> Sequence[tuple[int, float]]:
    return course.clean if kind == "clean" else course.robust


def _trade_off(shown: Shown) -> Iterator[Point]:
    for row in shown.rows:
        if row.clean and row.worst:
            kind = f"attacked at {wording.budget(row.epsilon)}"
            said = share_text(row.clean.mean), share_text(row.worst.mean)
            yield unit_text(row.unit), kind, *said
