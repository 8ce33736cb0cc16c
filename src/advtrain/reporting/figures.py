"""The figures of a study: vector and pixels, the same bytes for the same rows."""

import itertools
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advtrain.reporting import wording
from advtrain.reporting.captions import Shown, captions, select, unit_text
from advtrain.reporting.panels import (
    COLOURS,
    INK,
    NATURAL,
    PAPER,
    canvas,
    legend,
    look,
    panels,
    picture,
    rendered,
    share_axis,
    style,
    words_only,
)
from advtrain.reporting.statistics import Estimate
from advtrain.reporting.study import StudyInfo, check_info
from advtrain.results.collect import read_collected
from advtrain.results.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Width and dashes say the same as the colours.
VERDICTS: dict[str, dict[str, Any]] = {
    "right": {"edgecolor": COLOURS[0], "linewidth": 1.0},
    "fooled": {"edgecolor": COLOURS[1], "linewidth": 2.4},
    "wrong before": {"edgecolor": NATURAL, "linewidth": 1.6, "linestyle": (0, (1, 1))},
}
MARKS = {"right": "✓", "fooled": "✗", "wrong before": "✗"}


def write_figures(collected_folder: Path, study_info: Mapping[str, Any], out: Path) -> list[Path]:
    """Draw a study's figures, each as SVG, PDF and PNG.

    Args:
        collected_folder: the study's collected rows.
        study_info: the study in words, as in `study.StudyInfo`.
        out: the folder that gets `accuracy_epsilon.*`, `training_curves.*`, `trade_off.*` and
            `adversarial_examples.*`. One that has nothing to show is written too, and says so.

    Returns:
        The files.
    """
    info = check_info(study_info)
    shown = select(read_collected(collected_folder), info)
    draw: dict[str, Callable[[], Figure]] = {
        "accuracy_epsilon": lambda: _accuracy_epsilon(shown, info),
        "training_curves": lambda: _training_curves(shown),
        "trade_off": lambda: _trade_off(shown, info),
        "adversarial_examples": lambda: _adversarial_examples(shown),
    }
    written = []
    with style():
        for caption in captions(shown, info):
            figure = words_only(caption.text) if caption.empty else draw[caption.name]()
            for ending, content in rendered(figure).items():
                path = out / f"{caption.name}.{ending}"
                write_bytes(path, content)
                written.append(path)
    return written


def _accuracy_epsilon(shown: Shown, info: StudyInfo) -> "Figure":
    trained = {unit.epsilon for unit, _ in shown.curves if unit.epsilon is not None}
    budgets: list[float | None] = [*sorted(trained)]
    figure, drawn = panels(len(budgets) or 1)
    for panel, budget in zip(drawn, budgets or [None], strict=True):
        for unit, points in shown.curves:
            if unit.epsilon is None or unit.epsilon == budget:
                line = [(p.epsilon, p.accuracy) for p in points if p.epsilon is not None]
                found = [(epsilon, accuracy) for epsilon, accuracy in line if accuracy]
                panel.errorbar(
                    [epsilon for epsilon, _ in found],
                    [accuracy.mean for _, accuracy in found],
                    yerr=_bars([accuracy for _, accuracy in found]),
                    elinewidth=0.7,
                    label=unit.method,
                    **look(unit, info["methods"]),
                )
        if budget is not None:
            panel.axvline(budget, color=INK, linewidth=0.8, linestyle=(0, (2, 2)), zorder=0.5)
            panel.set_title(f"trained at ε = {wording.budget(budget)}")
        panel.set_xlabel(f"ε of {info['curve_attack']}")
        _budget_ticks(panel, shown)
        share_axis(panel, "y", "accuracy")
    legend(figure, drawn)
    return figure


def _training_curves(shown: Shown) -> "Figure":
    from matplotlib.ticker import MaxNLocator

    count, across = len(shown.courses), 3
    if count > 6:
        # As many beside one another as their titles leave room for.
        across = max(3, min(5, 96 // max(len(unit_text(unit)) for unit, _ in shown.courses)))
    figure, drawn = panels(count, across, height=1.3 if across > 3 else 2.1)
    for panel, (unit, courses) in zip(drawn, shown.courses, strict=True):
        for course in courses:
            for line, dashes, colour, label in (
                (course.clean, "-", COLOURS[0], "clean"),
                (course.robust, (0, (4, 1.5)), COLOURS[1], "under attack"),
            ):
                if line:
                    panel.plot(
                        [epoch for epoch, _ in line],
                        [accuracy for _, accuracy in line],
                        linestyle=dashes,
                        color=colour,
                        linewidth=1.1,
                        # A line of one point would not show.
                        marker="." if len(line) == 1 else "",
                        label=label,
                    )
            if course.best:
                panel.plot(
                    [course.best[0]],
                    [course.best[1]],
                    linestyle="",
                    marker="o",
                    markerfacecolor=PAPER,
                    markeredgecolor=INK,
                    label="best epoch",
                    zorder=4,
                )
        panel.set_title(unit_text(unit))
        panel.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
        share_axis(panel, "y", "validation" if across > 3 else "validation accuracy")
    for panel in drawn[-min(count, across) :]:
        panel.set_xlabel("epoch")
    legend(figure, drawn, last="best epoch")
    return figure


def _trade_off(shown: Shown, info: StudyInfo) -> "Figure":
    budgets = sorted({(row.norm or "", row.epsilon or 0.0) for row in shown.rows})
    # Clean accuracies lie close together: their axis begins below the lowest.
    lowest = min(row.clean.low for row in shown.rows if row.clean)
    low = max(0.0, math.floor(10 * lowest - 0.5) / 10)
    figure, drawn = panels(len(budgets), height=2.4)
    for panel, budget in zip(drawn, budgets, strict=True):
        for row in shown.rows:
            if (row.norm, row.epsilon) == budget and row.clean and row.worst:
                panel.errorbar(
                    [row.clean.mean],
                    [row.worst.mean],
                    xerr=_bars([row.clean]),
                    yerr=_bars([row.worst]),
                    elinewidth=0.8,
                    label=row.unit.method,
                    **{**look(row.unit, info["methods"]), "linestyle": ""},
                )
        panel.set_title(f"{budget[0]}, ε = {wording.budget(budget[1])}")
        share_axis(panel, "x", "clean accuracy", low, tick=0.2 if low < 0.5 else 0.1)
        share_axis(panel, "y", "worst-case accuracy")
    legend(figure, drawn)
    return figure


def _adversarial_examples(shown: Shown) -> "Figure":
    found = shown.gallery
    if found is None:
        raise ValueError("no attacked images were kept; draw the caption instead")
    names = [unit_text(unit).replace(", ", "\n") for unit, _ in found.rows]
    count = len(found.rows[0][1])
    # In inches: the names of the methods, then three images for each example.
    margin = 0.2 + 0.078 * max(len(line) for name in names for line in name.split("\n"))
    between, apart, head, foot = 0.07, 0.2, 0.42, 0.42
    size = min(0.62, ((8.1 - margin) / count - apart - 2 * between) / 3)
    step = 3 * size + 2 * between + apart
    figure, paper = canvas(margin + count * step, head + len(names) * (size + foot))
    for place, one in enumerate(found.rows[0][1]):
        left = margin + place * step
        paper.text(left, 0.18, f"test example {one.example}", fontsize=7.5)
        for column, title in enumerate(("image", "attacked", "difference")):
            middle = left + column * (size + between) + size / 2
            paper.text(middle, head - 0.06, title, fontsize=7, ha="center")
    for line, (name, (_, row)) in enumerate(zip(names, found.rows, strict=True)):
        top = head + line * (size + foot)
        paper.text(0.08, top + size / 2, name, fontsize=8.5, va="center", linespacing=1.4)
        for place, one in enumerate(row):
            left = margin + place * step
            change = 0.5 + found.magnification * (one.x_adv - one.clean)
            for column, image in enumerate((one.clean, one.x_adv, change)):
                corner = (left + column * (size + between), top)
                seen = image[:, :: found.stride, :: found.stride]
                picture(paper, seen, corner, size, VERDICTS[one.verdict] if column == 1 else None)
            words = f"{_short(one.label)} → {_short(one.said)}"
            paper.text(left, top + size + 0.15, words, fontsize=7.5)
            verdict = f"{MARKS[one.verdict]} {one.verdict}"
            paper.text(left, top + size + 0.28, verdict, fontsize=7.5)
    return figure


def _short(name: str, most: int = 12) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"


def _bars(estimates: list[Estimate]) -> list[list[float]]:
    return [
        [found.mean - found.low for found in estimates],
        [found.high - found.mean for found in estimates],
    ]


def _budget_ticks(panel: "Axes", shown: Shown) -> None:
    """Mark the budgets that were run, where they are few enough to be told apart."""
    budgets = sorted({p.epsilon for _, line in shown.curves for p in line if p.epsilon is not None})
    apart = min((b - a for a, b in itertools.pairwise(budgets)), default=1)
    if budgets and apart >= budgets[-1] / 12:
        panel.set_xticks(budgets, [wording.budget(epsilon) for epsilon in budgets])
        if any("/" in wording.budget(epsilon) for epsilon in budgets) and len(budgets) > 4:
            panel.tick_params(axis="x", labelrotation=45)
