import csv
import json
from pathlib import Path

import yaml
from dvc_render import VegaRenderer

from advtrain.reporting.plots import PLOTS, write_plots
from advtrain.reporting.study import check_info
from advtrain.reporting.study_report import StudyReport
from tests.results import synthetic

ROOT = Path(__file__).resolve().parents[2]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_points_are_those_counted_by_hand(folder: Path, tmp_path: Path) -> None:
    info = check_info(synthetic.study_info())
    absent = check_info(synthetic.study_info(name="absent"))
    studies = [StudyReport(info, folder, tmp_path), StudyReport(absent, tmp_path / "no", tmp_path)]
    written = write_plots(studies, tmp_path)
    assert [path.name for path in written] == [f"{name}.csv" for name in PLOTS]
    own = {"study": "fake", "series": "pgd_at, ε = 0.1"}
    said = {"kind": "pgd_20", "epsilon": "0.05", "accuracy": "0.7750"}
    assert own | said in rows(tmp_path / "accuracy_epsilon.csv")
    said = {"kind": "under attack", "epoch": "2", "validation_accuracy": "0.5000"}
    assert own | said in rows(tmp_path / "training_curves.csv")
    said = {"clean_accuracy": "0.8500", "worst_case_accuracy": "0.5000"}
    assert own | said | {"kind": "attacked at 0.1"} in rows(tmp_path / "trade_off.csv")


def test_without_points_the_columns_are_there(tmp_path: Path) -> None:
    write_plots([], tmp_path)
    expected = "study,series,kind,epoch,validation_accuracy\n"
    assert (tmp_path / "training_curves.csv").read_text() == expected


def test_dvc_draws_the_same_columns() -> None:
    plots = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["report"]["plots"]
    drawn = {Path(path).stem: (one["x"], one["y"]) for plot in plots for path, one in plot.items()}
    assert drawn == PLOTS
    templates = {one["template"] for plot in plots for one in plot.values()}
    assert all((ROOT / f".dvc/plots/{name}.json").is_file() for name in templates)


def test_the_templates_put_revisions_side_by_side_and_methods_in_colours() -> None:
    plots = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["report"]["plots"]
    for plot in plots:
        for path, one in plot.items():
            points = [
                {
                    "rev": rev,
                    "study": "fake",
                    "series": "pgd_at",
                    "kind": "a",
                    one["x"]: 1,
                    one["y"]: y,
                }
                for rev, y in (("HEAD", 0.4), ("workspace", 0.5))
            ]
            drawn = VegaRenderer(
                points, path, **one, template_dir=str(ROOT / ".dvc/plots")
            ).get_filled_template()
            assert drawn["data"]["values"] == points
            assert drawn["facet"]["column"]["field"] == "rev"
            encoding = drawn["spec"]["encoding"]
            assert (encoding["x"]["field"], encoding["y"]["field"]) == (one["x"], one["y"])
            assert "<DVC_" not in json.dumps(drawn)
