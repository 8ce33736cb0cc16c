import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from advtrain.reporting.figures import write_figures
from advtrain.reporting.panels import COLOURS, INK, NATURAL, PAPER
from advtrain.reporting.svg import inline_svg
from advtrain.results.collect import collect, write_collected
from tests.results import synthetic

NAMES = ("accuracy_epsilon", "training_curves", "trade_off")


def test_every_figure_is_drawn_in_every_format(drawn: Path) -> None:
    assert {path.name for path in drawn.iterdir()} == {
        f"{name}.{ending}" for name in NAMES for ending in ("svg", "pdf", "png")
    }
    assert (drawn / "trade_off.pdf").read_bytes().startswith(b"%PDF")
    assert (drawn / "trade_off.png").read_bytes().startswith(b"\x89PNG")
    for name in NAMES:
        ElementTree.parse(drawn / f"{name}.svg")


def test_the_same_rows_give_the_same_bytes_in_another_process(
    drawn: Path, folder: Path, tmp_path: Path
) -> None:
    script = (
        "import json, sys; from pathlib import Path\n"
        "from advtrain.reporting.figures import write_figures\n"
        "from tests.results.synthetic import study_info\n"
        "write_figures(Path(sys.argv[1]), study_info(), Path(sys.argv[2]))"
    )
    command = [sys.executable, "-c", script, str(folder), str(tmp_path)]
    paths = [path for path in sys.path if path]
    environment = {
        "PYTHONHASHSEED": "7",
        "PYTHONPATH": ":".join(paths),
        "HOME": str(tmp_path.parent),
    }
    subprocess.run(command, check=True, env=environment, cwd=Path(__file__).parents[2])
    for path in drawn.iterdir():
        assert path.read_bytes() == (tmp_path / path.name).read_bytes(), path.name


def test_a_study_without_numbers_has_its_files_too(tmp_path: Path) -> None:
    write_collected(collect("fake", []), tmp_path / "collected")
    written = write_figures(tmp_path / "collected", synthetic.study_info(), tmp_path / "figures")
    assert len(written) == 9
    text = (tmp_path / "figures" / "accuracy_epsilon.svg").read_text()
    assert "No cell of this study has been attacked by pgd_20." in text


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
