import json
from pathlib import Path

from advtrain.reporting.measure import units
from advtrain.reporting.metrics import cell_metrics, write_metrics
from advtrain.reporting.study import check_info
from advtrain.reporting.study_report import StudyReport
from tests.reporting.made import evaluated, measured
from tests.results import synthetic


def test_metrics_are_those_counted_by_hand(folder: Path, tmp_path: Path) -> None:
    info = check_info(synthetic.study_info())
    absent = check_info(synthetic.study_info(name="absent"))
    reports = [
        StudyReport(info, folder, tmp_path),
        StudyReport(absent, tmp_path / "nowhere", tmp_path),
    ]
    write_metrics(reports, tmp_path / "metrics.json")
    found = json.loads((tmp_path / "metrics.json").read_text())
    assert found["absent"] == {}
    assert len(found["fake"]) == 10
    assert found["fake"]["pgd_at-linf-0.1-s1"] == {
        "clean_accuracy": 0.8,
        "robust_accuracy": {
            "pgd_20-linf-0.05": 0.75,
            "fgsm-linf-0.1": 0.6,
            "pgd_20-linf-0.1": 0.5,
            "cw_20-linf-0.1": 0.5,
            "pgd_20-linf-0.2": 0.1,
            "pgd_20-linf-0.3": 0.0,
        },
        "worst_case": {"linf-0.1": 0.45},
    }


def test_the_gap_and_the_certified_accuracy_are_metrics(rich_folder: Path, tmp_path: Path) -> None:
    info = check_info(synthetic.study_info())
    write_metrics([StudyReport(info, rich_folder, tmp_path)], tmp_path / "metrics.json")
    found = json.loads((tmp_path / "metrics.json").read_text())["fake"]
    cell = found["pgd_at-linf-0.1-s0"]
    assert cell["worst_case"] == {"linf-0.1": 0.55, "linf-0.1-best": 0.85}
    assert cell["worst_case_best_minus_last"] == {"linf-0.1": 0.3}
    assert cell["certified_accuracy"] == {
        "ibp-linf-0.1": 0.35,
        "smoothing_025-l2-0": 0.9,
        "smoothing_025-l2-0.25": 0.75,
        "smoothing_025-l2-0.5": 0.5,
        "smoothing_025-l2-0.75": 0.25,
    }
    assert "certified_accuracy" not in found["natural-s0"]


def test_shares_have_six_places_and_weights_stay_apart() -> None:
    cell = measured(
        "natural-s0",
        [
            evaluated("pgd_20-linf-8_255-best", 0.5, examples=3),
            evaluated("pgd_20-linf-8_255", 1 / 3, examples=3),
        ],
    )
    info = check_info(synthetic.study_info(attacks=["pgd_20"], curve_attack=None))
    found = cell_metrics(units([cell], info), info)["natural-s0"]
    assert found["robust_accuracy"]["pgd_20-linf-8_255"] == 0.333333
    assert set(found["worst_case"]) == {"linf-8_255", "linf-8_255-best"}


def test_a_transformation_and_an_attack_on_fewer_examples_leave_a_worst_case() -> None:
    cell = measured(
        "natural-s0",
        [
            evaluated("pgd_20-linf-8_255", 0.5, examples=8),
            evaluated("autoattack-linf-8_255", 0.5, examples=4),
            evaluated("rotations-spatial", 0.25, examples=8),
        ],
    )
    names = ["pgd_20", "autoattack", "rotations"]
    info = check_info(synthetic.study_info(attacks=names, curve_attack=None))
    assert set(cell_metrics(units([cell], info), info)["natural-s0"]["worst_case"]) == {
        "linf-8_255"
    }
