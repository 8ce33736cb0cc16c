"""docs/performance.md is what the committed records make, and says what was not run."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import performance
from benchmarks.performance import KEPT, PAGE, page, records


def record(**changed: Any) -> dict[str, Any]:
    machine = {"processor": "A processor", "cores": 2, "bfloat16 instructions": False}
    machine |= {"kernels": "AVX2", "threads": 1, "load": [0.5, 1, 1], "python": "3.11.7"}
    return {
        "suite": "training",
        "section": "steps",
        "title": "Steps (P3).",
        "device": "cpu",
        "date": "2026-01-02",
        "quick": False,
        "commit": "0123456789abcdef",
        "machine": machine | {"torch": "2.11"},
        "load after": [0.25, 1, 1],
        "rows": [{"step": "PGD-7", "it / floor": [1.01, 0.9, 1.2]}],
        "goals": [goal("P3 PGD-7: it / floor", [1.01, 0.9, 1.2], 1.1, True)],
        "remarks": ["A remark."],
        **changed,
    }


def goal(name: str, measured: Any, bound: float, at_most: bool = False) -> dict[str, Any]:
    return {"name": name, "measured": measured, "bound": bound, "at_most": at_most}


def made(folder: Path, *told: dict[str, Any]) -> str:
    for place, one in enumerate(told):
        (folder / f"{place}.json").write_text(json.dumps(one))
    return page(records(folder))


def test_the_page_is_made_of_the_records() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(records(KEPT)), "run make performance"


def test_a_goal_has_its_figure_with_its_spread(tmp_path: Path) -> None:
    text = made(tmp_path, record())
    assert "| PGD-7: it / floor | 1.01 (0.900 to 1.20) | at most 1.1 | met | A |" in text
    assert "| P3 | A step of PGD-7 adversarial training | 1 of 1 met | 2026-01-02 |" in text
    assert "- **A**: A processor, 2 cores, python 3.11.7, torch 2.11" in text
    assert "load before and after: 0.5, 0.25, commit 0123456789ab." in text
    assert "* A remark." in text


def test_what_was_not_run_is_said(tmp_path: Path) -> None:
    text = made(tmp_path)
    assert "| G3 | AutoAttack on a GPU | not run |  |" in text
    assert "| P9 | No pass more than before | held by tests |  |" in text
    assert text.count("\nNot run.\n") == len(performance.GOALS) - 1


def test_a_missed_goal_is_said(tmp_path: Path) -> None:
    goals = [goal("P3 channels_last", 0.95, 0.9, True), goal("P3 usual / it", [1.1, 1, 2], 1.2)]
    text = made(tmp_path, record(goals=goals))
    assert "| channels_last | 0.950 | at most 0.9 | **missed** | A |" in text
    assert "| usual / it | 1.10 (1 to 2) | at least 1.2 | **missed** | A |" in text
    assert "0 of 2 met" in text


def test_a_processor_without_bfloat16_is_named(tmp_path: Path) -> None:
    text = made(tmp_path, record(goals=[goal("P3 PGD-7, bfloat16", 2.0, 0.5, True)]))
    assert "**missed** (this processor has no instructions for bfloat16)" in text


def test_the_newest_record_counts(tmp_path: Path) -> None:
    later = record(date="2026-01-03", goals=[goal("P3 later", 1.0, 1)])
    text = made(tmp_path, later, record())
    assert "| later |" in text
    assert "PGD-7: it / floor" not in text


def test_a_quick_trial_does_not_count(tmp_path: Path) -> None:
    text = made(tmp_path, record(), record(quick=True, date="2026-01-03", goals=[]))
    assert "PGD-7: it / floor" in text


def test_a_gpu_stands_beside_the_cpu(tmp_path: Path) -> None:
    on_gpu = record(device="cuda")
    on_gpu["machine"] = on_gpu["machine"] | {"gpu": "A GPU", "cuda": "13.0"}
    text = made(tmp_path, on_gpu, record())
    assert "- **A**: A processor, 2 cores" in text
    assert "- **B**: A processor, A GPU, 2 cores, python 3.11.7, cuda 13.0, torch 2.11" in text


def test_the_check_tells_an_old_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--folder", str(tmp_path), "--page", str(tmp_path / "page.md")]
    assert performance.main([*given, "--check"]) == 1
    assert performance.main(given) == 0
    assert performance.main([*given, "--check"]) == 0
    assert "up to date" in capsys.readouterr().out


def test_every_goal_of_a_committed_record_has_a_place() -> None:
    for one in records(KEPT):
        for told in one.told["goals"]:
            assert told["name"].split()[0] in performance.GOALS
