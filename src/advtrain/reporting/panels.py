"""How figures look: colours, markers, panels beside one another, one legend."""

import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from advtrain.reporting.measure import Unit
from advtrain.reporting.statistics import Estimate

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
HEAT = ("#f3f7fb", "#7fb0dc", "#2a78c2", "#0b2f57")
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
WIDTHS = {1: 3.5, 2: 5.25, 3: 7.0}
"""In inches, of so many panels beside one another: a column, and up to the width of a page."""

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
    figure = Figure(figsize=(WIDTHS[min(across, 3)], 0.1 + height * down), layout="constrained")
    grid = figure.subplots(down, across, squeeze=False)
    found = list(grid.flat)
    for unused in found[count:]:
        unused.remove()
    return figure, found[:count]


def share_axis(
    panel: "Axes",
    which: Literal["x", "y"],
    label: str,
    low: float = 0.0,
    tick: float = 0.2,
    high: float = 1.0,
) -> None:
    """Show shares in [low, high] as percent; the axis upwards is named once per line of panels."""
    from matplotlib.ticker import FuncFormatter, MultipleLocator

    axis = panel.yaxis if which == "y" else panel.xaxis
    axis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.0f}"))
    axis.set_major_locator(MultipleLocator(tick))
    margin = 0.03 * (high - low)
    (panel.set_ylim if which == "y" else panel.set_xlim)(low - margin, high + margin)
    place = panel.get_subplotspec()
    if which == "x" or place is None or place.is_first_col():
        axis.set_label_text(f"{label}, %")


def legend(figure: "Figure", panels: Sequence["Axes"], last: Sequence[str] = ()) -> None:
    """Name each line once, below all panels; those labelled `last` after the others."""
    handles: dict[str, Artist] = {}
    for panel in panels:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    for label in last:
        if label in handles:
            handles[label] = handles.pop(label)
    if handles:
        # In inches: the line before a name and the space after it, and the longest name.
        wide = 0.6 + 0.075 * max(len(label) for label in handles)
        columns = min(max(1, int(figure.get_figwidth() / wide)), len(handles))
        # The panels keep their height.
        lines = math.ceil(len(handles) / columns)
        figure.set_figheight(figure.get_figheight() + 0.1 + 0.19 * lines)
        figure.legend(
            handles=list(handles.values()),
            labels=list(handles),
            loc="outside lower center",
            ncols=columns,
            handlelength=2.6,
            columnspacing=1.2,
        )


def look(unit: Unit, methods: Sequence[str]) -> dict[str, Any]:
    """Give a method the same colour, marker and dashes in every figure; grey without a budget."""
    place = methods.index(unit.method) if unit.method in methods else len(methods)
    if unit.norm is None:
        marker = MARKERS[place % len(MARKERS)] if place else "."
        return {"color": NATURAL, "marker": marker, "linestyle": (0, (1, 1))}
    return {
        "color": COLOURS[place % len(COLOURS)],
        "marker": MARKERS[place % len(MARKERS)],
        # Other dashes when the colours begin again.
        "linestyle": DASHES[(place + place // len(COLOURS)) % len(DASHES)],
    }


def bars(estimates: Sequence[Estimate]) -> list[list[float]]:
    """Return how far the intervals reach below and above, as `errorbar` takes them."""
    return [
        [found.mean - found.low for found in estimates],
        [found.high - found.mean for found in estimates],
    ]


def heat_map(
    panel: "Axes",
    shares: NDArray[np.float64],
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    numbers: bool,
) -> None:
    """Show shares as darker squares, with the number in percent in each.

    Args:
        panel: the axes.
        shares: (rows, columns) in [0, 1]; NaN where there is nothing.
        rows: their names.
        columns: their names.
        numbers: there is room for numbers.
    """
    from matplotlib.colors import LinearSegmentedColormap

    colours = LinearSegmentedColormap.from_list("shares", HEAT)
    down, across = shares.shape
    panel.pcolormesh(
        np.arange(across + 1) - 0.5,
        np.arange(down + 1) - 0.5,
        np.ma.masked_invalid(shares),
        cmap=colours,
        vmin=0,
        vmax=1,
        edgecolors=PAPER,
        linewidth=0.6,
    )
    for place in np.argwhere(np.isfinite(shares)) if numbers else ():
        row, column = place.tolist()
        share = float(shares[row, column])
        panel.text(
            *(column, row, f"{100 * share:.0f}"),
            # Not ink: the squares stay as they are on a dark page.
            color=HEAT[-1] if share < 0.5 else HEAT[0],
            fontsize=6.5,
            ha="center",
            va="center",
        )
    panel.set_xticks(range(across), columns)
    panel.set_yticks(range(down), rows)
    panel.set(xlim=(-0.5, across - 0.5), ylim=(down - 0.5, -0.5))
    panel.grid(visible=False)
    panel.tick_params(length=0)
    for spine in panel.spines.values():
        spine.set_visible(False)


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


def names_width(names: Sequence[str]) -> float:
    """Return how wide the names beside lines of pictures are, in inches."""
    return 0.078 * max(len(line) for name in names for line in name.split("\n"))


def words_only(text: str) -> "Figure":
    """Draw a text in a figure's place."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 0.8))
    figure.text(0.5, 0.5, text, ha="center", va="center")
    return figure


def rendered(figure: "Figure") -> dict[str, bytes]:
    """Draw a figure as SVG, PDF and PNG, without a date."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_pdf import FigureCanvasPdf
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    FigureCanvasAgg(figure)  # what the layout measures texts with
    # The layout is found once and kept for the three; `savefig` would draw each of them twice.
    if layout := figure.get_layout_engine():
        for panel in figure.axes:
            for drawn in (*panel.lines, *panel.collections, *panel.patches):
                drawn.set_in_layout(False)  # it is inside the axes, and there may be thousands
        layout.execute(figure)
        figure.set_layout_engine("none")
    canvases = {"svg": FigureCanvasSVG, "pdf": FigureCanvasPdf, "png": FigureCanvasAgg}
    contents = {}
    for ending, metadata in UNDATED.items():
        content = io.BytesIO()
        figure.set_dpi(160)
        getattr(canvases[ending](figure), f"print_{ending}")(content, metadata=metadata)
        contents[ending] = content.getvalue()
    return contents
