"""The figures of a study: vector and pixels, the same bytes for the same rows."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from advtrain.reporting import (
    figure_accuracy_epsilon,
    figure_adapted_budgets,
    figure_adversarial_examples,
    figure_attack_overlap,
    figure_certified_radius,
    figure_class_accuracy,
    figure_cost_passes,
    figure_cost_time,
    figure_input_gradients,
    figure_loss_surface,
    figure_trade_off,
    figure_training_curves,
)
from advtrain.reporting.captions import Caption
from advtrain.reporting.panels import rendered, style, words_only
from advtrain.reporting.shown import Shown, select
from advtrain.reporting.study import check_info
from advtrain.results.collect import read_collected
from advtrain.results.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Drawing(Protocol):
    """A figure: a module `figure_<name>.py`."""

    def caption(self, shown: Shown, /) -> Caption:
        """Say what the figure shows, and its main numbers."""

    def draw(self, shown: Shown, /) -> "Figure":
        """Draw the figure, where its caption is not empty."""


FIGURES: dict[str, Drawing] = {
    "accuracy_epsilon": figure_accuracy_epsilon,
    "training_curves": figure_training_curves,
    "trade_off": figure_trade_off,
    "cost_passes": figure_cost_passes,
    "cost_time": figure_cost_time,
    "attack_overlap": figure_attack_overlap,
    "class_accuracy": figure_class_accuracy,
    "certified_radius": figure_certified_radius,
    "loss_surface": figure_loss_surface,
    "input_gradients": figure_input_gradients,
    "adapted_budgets": figure_adapted_budgets,
    "adversarial_examples": figure_adversarial_examples,
}
"""By the name of the files, in the order of the page; `graph/nodes.py` declares the same names."""


def captions(shown: Shown) -> dict[str, Caption]:
    """Write the captions of the figures, by name, in the order of the page."""
    return {name: figure.caption(shown) for name, figure in FIGURES.items()}


def write_figures(collected_folder: Path, study_info: Mapping[str, Any], out: Path) -> list[Path]:
    """Draw a study's figures, each as SVG, PDF and PNG.

    Args:
        collected_folder: the study's collected rows.
        study_info: the study in words, as in `study.StudyInfo`.
        out: the folder that gets `<name>.svg`, `<name>.pdf` and `<name>.png` for each of `FIGURES`.
            One that has nothing to show is written too, and says so.

    Returns:
        The files.
    """
    shown = select(read_collected(collected_folder), check_info(study_info))
    written = []
    with style():
        for name, caption in captions(shown).items():
            figure = words_only(caption.text) if caption.empty else FIGURES[name].draw(shown)
            for ending, content in rendered(figure).items():
                path = out / f"{name}.{ending}"
                write_bytes(path, content)
                written.append(path)
    return written
