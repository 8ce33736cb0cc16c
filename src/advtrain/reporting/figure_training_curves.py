"""Training curves: validation accuracy by epoch, with the best and the last epoch marked."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from advtrain.reporting import wording
from advtrain.reporting.captions import Caption, unit_text
from advtrain.reporting.measure import Unit
from advtrain.reporting.panels import COLOURS, INK, PAPER, legend, panels, share_axis
from advtrain.reporting.shown import Course, Shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_PANELS = 24
"""How many trainings a page can show."""

Courses = Sequence[tuple[Unit, Sequence[Course]]]


def caption(shown: Shown) -> Caption:
    """Say what the figure shows, and its main numbers."""
    if not shown.courses:
        return Caption.of_nothing("No training of this study recorded its validation accuracy.")
    described = [
        f"{unit_text(unit)}, at the end: {', '.join(_ends(courses))}."
        for unit, courses in shown.courses
    ]
    drawn = len(_drawn(shown))
    some = f" Shown are {drawn} of {len(shown.courses)}: those at the largest budget first."
    some = some if drawn < len(shown.courses) else ""
    return Caption(
        "Validation accuracy by epoch, on clean images (solid) and under the validation's attack "
        "at the training budget (dashed), one line per seed. A ring marks the epoch whose weights "
        f"were kept as the best, a square the last.{_fall_words(shown)}{some}",
        f"Line charts, one per method and training budget. {' '.join(described)}",
    )


def draw(shown: Shown) -> "Figure":
    """Draw the figure."""
    from matplotlib.ticker import MaxNLocator

    found = _drawn(shown)
    count, across = len(found), 3 if len(found) <= 6 else 4
    names = [unit_text(unit) for unit, _ in found]
    if across > 3 and max(len(name) for name in names) > 22:
        names = [name.replace(", ", "\n") for name in names]
    figure, drawn = panels(count, across, height=1.9 if across == 3 else 1.45)
    for panel, name, (_, courses) in zip(drawn, names, found, strict=True):
        for course in courses:
            _lines(panel, course)
        panel.set_title(name)
        panel.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
        share_axis(panel, "y", "validation" if across > 3 else "validation accuracy")
    for panel in drawn[-min(count, across) :]:
        panel.set_xlabel("epoch")
    legend(figure, drawn, last=("best epoch", "last epoch"))
    return figure


def _drawn(shown: Shown) -> Courses:
    """Choose the trainings that are shown: all, or those that fit, of the largest budgets."""
    if len(shown.courses) <= MOST_PANELS:
        return shown.courses
    order = sorted(shown.courses, key=lambda one: -(one[0].epsilon or 1.0))
    kept = {unit.name for unit, _ in order[:MOST_PANELS]}
    return [one for one in shown.courses if one[0].name in kept]


def _lines(panel: "Axes", course: Course) -> None:
    for line, dashes, colour, label in (
        (course.clean, "-", COLOURS[0], "clean"),
        (course.robust, (0, (4, 1.5)), COLOURS[1], "under attack"),
    ):
        if line:
            panel.plot(
                *zip(*line, strict=True), linestyle=dashes, color=colour, linewidth=1.1, label=label
            )
    for place, marker, label in (
        (course.best, "o", "best epoch"),
        (course.last, "s", "last epoch"),
    ):
        if place:
            panel.plot(
                [place[0]],
                [place[1]],
                linestyle="",
                marker=marker,
                markersize=5 if marker == "o" else 3,
                markerfacecolor=PAPER if marker == "o" else INK,
                markeredgecolor=INK,
                label=label,
                # A ring around the square where the last is the best.
                zorder=4 if marker == "o" else 5,
            )


def _ends(courses: Sequence[Course]) -> list[str]:
    said = []
    for name, lines in (
        ("clean", [course.clean for course in courses]),
        ("under attack", [course.robust for course in courses]),
    ):
        last = [line[-1][1] for line in lines if line]
        if last:
            said.append(f"{name} {wording.percent_words(sum(last) / len(last))}")
    return said


def _fall_words(shown: Shown) -> str:
    """Say which training fell most after its best epoch; nothing if none fell."""
    falls: list[tuple[float, Unit, Course]] = [
        (course.best[1] - course.last[1], unit, course)
        for unit, courses in shown.courses
        for course in courses
        if course.best and course.last
    ]
    fall, unit, course = max(falls, key=lambda one: one[0], default=(0.0, None, None))
    if unit is None or course is None or course.best is None or course.last is None or fall <= 0:
        return ""
    best, last = (wording.percent_words(place[1]) for place in (course.best, course.last))
    return (
        f" The largest fall after the best epoch is that of {unit_text(unit)} (seed "
        f"{course.seed}): {best} at epoch {course.best[0]}, {last} at epoch {course.last[0]}."
    )
