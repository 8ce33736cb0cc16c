"""The made-up study of the report's benchmark is one that the report takes."""

from pathlib import Path

from advtrain.reporting.html import write_report
from advtrain.reporting.study import check_info
from advtrain.reporting.study_report import StudyReport
from advtrain.results.collect import write_collected
from benchmarks.report import LEVELS, made_study, told


def test_the_made_study_has_its_cells_and_makes_a_page(tmp_path: Path) -> None:
    collected = made_study(methods=1, seeds=2)
    assert collected.cells.num_rows == 2 + 2 * len(LEVELS)
    write_collected(collected, tmp_path / "collected")
    info = check_info(told(methods=1))
    write_report([StudyReport(info, tmp_path / "collected", tmp_path)], tmp_path / "index.html")
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "lineage-thousand-method_00-linf-8_255-s1" in page
    assert "collapsed</span>" not in page.split("<main")[1].split("</details>", 1)[1]


def test_the_made_rows_are_the_same_each_time() -> None:
    assert made_study(1, 1).outcomes.equals(made_study(1, 1).outcomes)
