"""How figures look: colours, markers, panels beside one another, one legend."""

import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from advtrain.reporting.measure import Unit

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Between light and dark: each has a contrast of 3 or more against white and against #14181d.
# Markers and dashes say the same as the colours, for readers who see few hues and for grey prints.
COLOURS = ("#2a78c2", "#d2601a", "#0b8f68", "#b04f9e", "#a37a00", "#d1405a", "#5f7d95", "#8f6a4f")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (5, 1.5, 1.2, 1.5)))
NATURAL = "#7b828a"
INK = "#1c2127"
PAPER = "#ffffff"

STYLE: dict[str, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": INK,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.labelsize": 9,
    "axes.linewidth": 0.7,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 9,
    "figure.facecolor": PAPER,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "grid.alpha": 0.35,
    "grid.color": NATURAL,
    "grid.linewidth": 0.5,
    "image.composite_image": False,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
    "lines.markersize": 5,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "advtrain",
    "text.color": INK,
    "xtick.color": INK,
    "xtick.labelsize": 8,
    "ytick.color": INK,
    "ytick.labelsize": 8,
}
UNDATED: dict[str, dict[str, Any]] = {
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "png": {"Software": None},
}


@contextmanager
def style() -> Iterator[None]:
    """Draw with this module's settings and no one else's."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)  # type: ignore[arg-type]
        yield


def panels(count: int, across: int = 3, height: float = 2.1) -> tuple["Figure", list["Axes"]]:
    """Lay out small multiples of one size.

    Args:
        count: how many.
        across: how many beside one another, at most.
        height: of each, in inches.
    """
    from matplotlib.figure import Figure

    across = min(count, across)
    down = math.ceil(count / across)
    size = (0.4 + 7.8 * max(across, 2) / max(across, 3), 0.5 + height * down)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(down, across, squeeze=False)
    found = list(grid.flat)
    for unused in found[count:]:
        unused.remove()
    return figure, found[:count]


def share_axis(
    panel: "Axes", which: Literal["x", "y"], label: str, low: float = 0.0, tick: float = 0.2
) -> None:
    """Show shares in [low, 1] as percent; the axis upwards is named once per line of panels."""
    from matplotlib.ticker import FuncFormatter, MultipleLocator

    axis = panel.yaxis if which == "y" else panel.xaxis
    axis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.0f}"))
    axis.set_major_locator(MultipleLocator(tick))
    margin = 0.03 * (1 - low)
    (panel.set_ylim if which == "y" else panel.set_xlim)(low - margin, 1 + margin)
    place = panel.get_subplotspec()
    if which == "x" or place is None or place.is_first_col():
        axis.set_label_text(f"{label}, %")


def legend(figure: "Figure", panels: Sequence["Axes"], last: str = "") -> None:
    """Name each line once, below all panels; the one labelled `last` after the others."""
    handles: dict[str, Artist] = {}
    for panel in panels:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    if last in handles:
        handles[last] = handles.pop(last)
    columns = max(2, int(figure.get_figwidth() / 1.5))
    figure.legend(
        handles=list(handles.values()),
        labels=list(handles),
        loc="outside lower center",
        ncols=min(columns, len(handles)),
        handlelength=2.6,
    )


def look(unit: Unit, methods: Sequence[str]) -> dict[str, Any]:
    """Give a method the same colour, marker and dashes in every figure; grey without a budget."""
    if unit.norm is None:
        return {"color": NATURAL, "marker": ".", "linestyle": (0, (1, 1))}
    place = methods.index(unit.method) if unit.method in methods else len(methods)
    return {
        "color": COLOURS[place % len(COLOURS)],
        "marker": MARKERS[place % len(MARKERS)],
        "linestyle": DASHES[place % len(DASHES)],
    }


def canvas(width: float, height: float) -> tuple["Figure", "Axes"]:
    """Make a figure whose coordinates are inches, from its upper left corner."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    paper = figure.add_axes((0, 0, 1, 1))
    paper.set_axis_off()
    paper.set(xlim=(0, width), ylim=(height, 0), autoscale_on=False)
    return figure, paper


def picture(
    paper: "Axes",
    image: NDArray[np.float32],
    corner: tuple[float, float],
    size: float,
    frame: dict[str, Any] | None = None,
) -> None:
    """Place an image on a canvas, pixel by pixel.

    Args:
        paper: the canvas.
        image: (C, H, W) in [0, 1]; three channels are red, green and blue, others are drawn grey.
        corner: its upper left one, in inches.
        size: of its longer side, in inches.
        frame: the line around it.
    """
    from matplotlib.patches import Rectangle

    high, wide = (size * side / max(image.shape[1:]) for side in image.shape[1:])
    left, top = corner
    colours = len(image) == 3
    paper.imshow(
        np.clip(image.transpose(1, 2, 0) if colours else image.mean(0), 0, 1),
        extent=(left, left + wide, top + high, top),
        aspect="auto",
        interpolation="none",
        cmap="gray",
        vmin=0,
        vmax=1,
    )
    line = frame or {"edgecolor": NATURAL, "linewidth": 0.4}
    out = line["linewidth"] / 2 / 72  # of half the line, so that it covers no pixel
    around = (left - out, top - out), wide + 2 * out, high + 2 * out
    paper.add_patch(Rectangle(*around, fill=False, joinstyle="miter", **line))


def words_only(text: str) -> "Figure":
    """Draw a text in a figure's place."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 0.8))
    figure.text(0.5, 0.5, text, ha="center", va="center")
    return figure


def rendered(figure: "Figure") -> dict[str, bytes]:
    """Draw a figure as SVG, PDF and PNG, without a date."""
    # The layout is found once and kept for the three.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    contents = {}
    for ending, metadata in UNDATED.items():
        content = io.BytesIO()
        figure.savefig(content, format=ending, metadata=metadata, dpi=160)
        contents[ending] = content.getvalue()
    return contents
