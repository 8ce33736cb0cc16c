import base64
import io
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.image import imread

from advtrain.graph import nodes
from advtrain.reporting import figure_adversarial_examples
from advtrain.reporting.figures import FIGURES, write_figures
from advtrain.reporting.panels import COLOURS, INK, NATURAL, PAPER, canvas, picture
from advtrain.reporting.shown import select
from advtrain.reporting.study import check_info
from advtrain.reporting.svg import inline_svg
from advtrain.results.collect import Collected, collect, write_collected
from tests.results import synthetic


def test_the_graph_declares_every_figure() -> None:
    assert tuple(FIGURES) == nodes.FIGURES


def test_every_figure_is_drawn_in_every_format(drawn: Path) -> None:
    assert {path.name for path in drawn.iterdir()} == {
        f"{name}.{ending}" for name in FIGURES for ending in ("svg", "pdf", "png")
    }
    assert (drawn / "trade_off.pdf").read_bytes().startswith(b"%PDF")
    assert (drawn / "trade_off.png").read_bytes().startswith(b"\x89PNG")
    for name in FIGURES:
        ElementTree.parse(drawn / f"{name}.svg")


def test_the_same_rows_give_the_same_bytes_in_another_process(
    pictured_drawn: Path, pictured_folder: Path, tmp_path: Path
) -> None:
    script = (
        "import json, sys; from pathlib import Path\n"
        "from advtrain.reporting.figures import write_figures\n"
        "from tests.results.synthetic import study_info\n"
        "write_figures(Path(sys.argv[1]), study_info(), Path(sys.argv[2]))"
    )
    command = [sys.executable, "-c", script, str(pictured_folder), str(tmp_path)]
    paths = [path for path in sys.path if path]
    environment = {
        "PYTHONHASHSEED": "7",
        "PYTHONPATH": ":".join(paths),
        "HOME": str(tmp_path.parent),
    }
    subprocess.run(command, check=True, env=environment, cwd=Path(__file__).parents[2])
    for path in pictured_drawn.iterdir():
        assert path.read_bytes() == (tmp_path / path.name).read_bytes(), path.name


def test_a_study_without_numbers_has_its_files_too(tmp_path: Path) -> None:
    write_collected(collect("fake", []), tmp_path / "collected")
    written = write_figures(tmp_path / "collected", synthetic.study_info(), tmp_path / "figures")
    assert len(written) == 3 * len(FIGURES)
    text = (tmp_path / "figures" / "accuracy_epsilon.svg").read_text()
    assert "No cell of this study has been attacked by pgd_20." in text


def test_each_example_of_a_method_is_three_images(pictured_drawn: Path) -> None:
    drawing = ElementTree.parse(pictured_drawn / "adversarial_examples.svg")
    images = list(drawing.iter("{http://www.w3.org/2000/svg}image"))
    assert len(images) == 3 * 4 * 3
    sources = [image.get("{http://www.w3.org/1999/xlink}href") or "" for image in images]
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    # Of the 12 triples the clean image is the same in each row, the attacked one is another.
    assert sources[0] == sources[12] == sources[24]
    assert sources[0] != sources[1]
    words = ["".join(text.itertext()) for text in drawing.iter("{http://www.w3.org/2000/svg}text")]
    assert words.count("✗ fooled") == 4 + 1 + 2
    assert words.count("✓ right") == 0 + 2 + 2
    assert words.count("✗ wrong before") == 1
    assert "circle → cross" in words
    assert "test example 1019" in words


def test_a_difference_is_magnified_about_grey(pictured_drawn: Path) -> None:
    drawing = ElementTree.parse(pictured_drawn / "adversarial_examples.svg")
    images = list(drawing.iter("{http://www.w3.org/2000/svg}image"))
    source = images[2].get("{http://www.w3.org/1999/xlink}href") or ""
    shown = imread(io.BytesIO(base64.b64decode(source.partition(",")[2])))[..., :3]
    # Lowered and raised in turns by the whole budget, where the pixel allows it.
    change = synthetic.attacked(0, 0.2) - synthetic.pixels(0) / 255
    assert np.abs(shown - (0.5 + 2.5 * change[0])[..., None]).max() < 0.01
    assert shown[0, 1].tolist() == [1, 1, 1]
    assert shown[0, 0].tolist() == pytest.approx([0.5] * 3, abs=0.01)  # black stays black


def test_three_channels_are_colours_and_one_is_grey() -> None:
    figure, paper = canvas(2, 1)
    grey = np.full((1, 2, 2), 0.6, dtype=np.float32)
    red = np.zeros((3, 2, 2), dtype=np.float32)
    red[0] = 1
    picture(paper, grey, (0, 0), 1)
    picture(paper, red, (1, 0), 1)
    drawn = FigureCanvasAgg(figure)
    drawn.draw()
    pixels = np.asarray(drawn.buffer_rgba())
    high, wide = pixels.shape[:2]
    assert pixels[high // 2, wide // 4, :3].tolist() == [153] * 3
    assert pixels[high // 2, 3 * wide // 4, :3].tolist() == [255, 0, 0]


def test_a_study_without_images_has_none_to_draw(collected: Collected) -> None:
    shown = select(collected, check_info(synthetic.study_info()))
    with pytest.raises(ValueError, match="no attacked images were kept; draw the caption instead"):
        figure_adversarial_examples.draw(shown)


def luminance(colour: str) -> float:
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("paper", [PAPER, "#14181d"])
@pytest.mark.parametrize("colour", [*COLOURS, NATURAL])
def test_every_colour_is_seen_on_light_and_on_dark(colour: str, paper: str) -> None:
    light, dark = sorted((luminance(colour), luminance(paper)), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 3


def test_a_figure_on_the_page_takes_its_colours_and_keeps_its_ids_apart(drawn: Path) -> None:
    svg = (drawn / "trade_off.svg").read_text()
    first, second = (inline_svg(svg, name, 'say "a" & <b>') for name in ("one", "two"))
    assert first.startswith(
        '<svg id="one" role="img" aria-label="say &quot;a&quot; &amp; &lt;b&gt;"'
    )
    assert INK not in first
    assert PAPER not in first
    assert "var(--ink)" in first
    assert "http" not in first
    ids = [set(element.attrib.values()) for element in ElementTree.fromstring(first).iter()]
    assert not any(
        "#" in value and "#one" not in value and "url" in value for i in ids for value in i
    )
    own = {e.get("id") for e in ElementTree.fromstring(first).iter() if e.get("id")}
    others = {e.get("id") for e in ElementTree.fromstring(second).iter() if e.get("id")}
    assert own
    assert not own & others


def test_what_is_no_drawing_is_refused() -> None:
    with pytest.raises(ValueError, match="figure one: expected an SVG with a viewBox"):
        inline_svg("<svg></svg>", "one", "")


def test_only_the_figure_of_measured_times_may_differ_between_runs(
    collected: Collected,
) -> None:
    costs = collected.costs
    place = costs.schema.get_field_index("seconds")
    slower = pa.array([None if s is None else 2 * s + 1 for s in costs["seconds"].to_pylist()])
    other = replace(collected, costs=costs.set_column(place, costs.schema.field(place), slower))
    info = check_info(synthetic.study_info())
    differ = {
        name
        for name, figure in FIGURES.items()
        if figure.caption(select(collected, info)) != figure.caption(select(other, info))
    }
    assert differ == {"cost_time"} < set(nodes.TIMED)
