from dataclasses import replace
from typing import Any

import pytest

from advtrain.reporting.layout import selection_sheet
from advtrain.reporting.measure import Measured, Unit, measure, units
from advtrain.reporting.results import ResultRow, result_rows
from advtrain.reporting.selection import SelectionRow, selection_data, selection_rows
from advtrain.reporting.study import StudyInfo, check_info
from advtrain.reporting.wording import percent_words
from advtrain.results.collect import Collected
from tests.reporting.made import evaluated, measured
from tests.results import synthetic


def info(**changes: Any) -> StudyInfo:
    return check_info(synthetic.study_info(**changes))


def results_of(cells: list[Measured], told: StudyInfo) -> tuple[list[Unit], list[ResultRow]]:
    grouped = units(cells, told)
    return grouped, result_rows(grouped, told)


def rows_of(cells: list[Measured], **changes: Any) -> list[SelectionRow]:
    told = info(**changes)
    return selection_rows(*results_of(cells, told), told)


def both(seed: int, last: float, best: float, best_epoch: int = 20) -> Measured:
    return measured(
        f"pgd_at-linf-0.2-s{seed}",
        [
            evaluated("pgd_20-linf-0.2", last, clean=0.9),
            evaluated("pgd_20-linf-0.2-best", best, clean=0.8),
        ],
        best_epoch=best_epoch,
    )


def words(row: SelectionRow) -> list[str]:
    return [flag.words(percent_words) for flag in row.flags]


def test_the_gap_is_that_counted_by_hand(rich: Collected) -> None:
    # tests/results/synthetic.py: in the worst case the last weights of pgd_at at 0.1 err on 9 and
    # 11 of 20 examples, the best on 3 and 5.
    (row,) = rows_of(measure(rich))
    assert (row.unit.name, row.norm, row.epsilon) == ("pgd_at-linf-0.1", "linf", 0.1)
    assert row.gap is not None
    assert row.gap.mean == pytest.approx(0.3)
    assert row.gap.spread == pytest.approx(0.0)
    last, best = row.worst
    assert last is not None
    assert best is not None
    assert (last.mean, best.mean) == (pytest.approx(0.5), pytest.approx(0.8))
    # One seed at a time: (6 -+ 1.96 sqrt(7 - 36/22)) / 22 begins at 0.066, above 1 point.
    assert words(row) == [
        "robust overfitting: worst-case accuracy 85.0 % at the best epoch, 55.0 % at the last "
        "(seed 0)",
        "robust overfitting: worst-case accuracy 75.0 % at the best epoch, 45.0 % at the last "
        "(seed 1)",
    ]


def test_seeds_are_paired_and_their_spread_is_that_of_the_gaps() -> None:
    (row,) = rows_of([both(0, 0.5, 0.54, 20), both(1, 0.6, 0.62, 28)])
    assert row.gap is not None
    assert row.gap.mean == pytest.approx(0.03)
    # 4 and 2 points; the accuracies themselves spread by more.
    assert row.gap.spread == pytest.approx(0.02 / 2**0.5)
    assert row.gap.examples == 100
    assert words(row) == []
    data = selection_data([row]).to_pylist()[0]
    assert (data["best_epochs"], data["epochs"]) == ([20, 28], [30, 30])
    assert data["gap"] == pytest.approx(0.03)
    assert data["clean_accuracy_last"] == pytest.approx(0.9)
    assert data["clean_accuracy_best"] == pytest.approx(0.8)


def test_a_gap_can_be_negative_and_is_written_in_points() -> None:
    told = info()
    rows = rows_of([both(0, 0.60, 0.55)])
    (row,) = rows
    assert row.gap is not None
    assert row.gap.mean == pytest.approx(-0.05)
    cells = dict(
        zip(
            (c.title for c in selection_sheet(rows, told).columns),
            selection_sheet(rows, told).rows[0],
            strict=True,
        )
    )
    # -5/102 -+ 1.96 sqrt(6 - 25/102) / 102
    assert (cells["gap, points"].text, cells["gap, points"].detail) == ("−5.0", "[−9.5, −0.3]")
    assert cells["best epoch"].text == "20 of 30"
    assert cells["worst case: last, %"].origin == "pgd_at-linf-0.2-s0"


def gap_cell(rows: list[SelectionRow]) -> tuple[str, str]:
    sheet = selection_sheet(rows, info())
    place = [column.title for column in sheet.columns].index("gap, points")
    return sheet.rows[0][place].text, sheet.rows[0][place].detail


def test_the_same_weights_have_a_gap_of_0_without_an_interval() -> None:
    rows = rows_of([both(0, 0.5, 0.5, 30), both(1, 0.6, 0.6, 30)])
    assert gap_cell(rows) == ("0.0", "same weights")
    (data,) = selection_data(rows).to_pylist()
    assert [data[f"gap{end}"] for end in ("", "_low", "_high", "_spread")] == [0, 0, 0, 0]
    assert data["examples"] == 100
    (data,) = selection_data(rows_of([both(0, 0.5, 0.5, 30)])).to_pylist()
    assert (data["gap_low"], data["gap_high"], data["gap_spread"]) == (0, 0, None)
    assert "Same weights: the best epoch is the last in every seed" in (
        selection_sheet(rows, info()).reading
    )


def test_one_seed_with_other_weights_is_enough_for_an_interval() -> None:
    rows = rows_of([both(0, 0.5, 0.5, 30), both(1, 0.6, 0.6, 29)])
    # 1.96 sqrt(1) / 102
    assert gap_cell(rows) == ("0.0 ± 0.0", "[−1.9, 1.9]")
    unknown = replace(both(0, 0.5, 0.5), best_epoch=None)
    assert gap_cell(rows_of([unknown])) == ("0.0", "[−1.9, 1.9]")


def test_a_stopped_training_kept_the_weights_before_its_last_epoch() -> None:
    stopped = replace(both(0, 0.5, 0.5, 29), status="stopped", cause="overfitting")
    assert gap_cell(rows_of([stopped])) == ("0.0", "same weights")
    collapsed = replace(both(0, 0.5, 0.5, 29), status="collapsed", cause="the loss was nan")
    assert gap_cell(rows_of([collapsed]))[1] == "[−1.9, 1.9]"


def test_last_weights_that_collapsed_are_said_to_have() -> None:
    def clean(last: float, best: float) -> Measured:
        return measured(
            "pgd_at-linf-0.2-s0",
            [
                evaluated("pgd_20-linf-0.2", 0.2, clean=last),
                evaluated("pgd_20-linf-0.2-best", 0.2, clean=best),
            ],
        )

    chance = "is not distinguishable from chance, 25.0 %"
    (row,) = rows_of([clean(0.25, 0.9)])
    assert words(row) == [f"collapsed: last weights, clean accuracy 25.0 % {chance}"]
    (row,) = rows_of([clean(0.9, 0.25)])
    assert words(row) == [f"collapsed: best weights, clean accuracy 25.0 % {chance}"]
    (row,) = rows_of([clean(0.25, 0.25)])
    assert words(row) == [f"collapsed: clean accuracy 25.0 % {chance}"]


def test_the_two_are_compared_over_the_attacks_that_both_met() -> None:
    cells = [
        measured(
            "pgd_at-linf-0.2-s0",
            [
                evaluated("pgd_20-linf-0.2", 0.5),
                evaluated("cw_20-linf-0.2", 0.1),
                evaluated("pgd_20-linf-0.2-best", 0.6),
            ],
        )
    ]
    (row,) = rows_of(cells)
    assert [found.mean for found in row.worst if found] == [0.5, 0.6]


def test_weights_that_were_not_attacked_leave_the_row_without_numbers_and_with_the_cause() -> None:
    whole = both(0, 0.5, 0.5)
    half = measured("pgd_at-linf-0.2-s1", [evaluated("pgd_20-linf-0.2", 0.5)])
    failure = {
        "cell": "pgd_at-linf-0.2-s1/pgd_20-linf-0.2-best",
        "stage": "attack",
        "state": "failed",
        "cause": "no memory",
    }
    (row,) = rows_of([whole, half], failures=[failure])
    assert [cell.cell for cell in row.cells] == ["pgd_at-linf-0.2-s0"]
    assert words(row) == ["failed: best weights, pgd_20, no memory (seed 1)"]


def test_natural_training_has_its_gap_and_is_not_called_overfitted() -> None:
    cell = measured(
        "natural-s0",
        [evaluated("pgd_20-linf-0.2", 0.0), evaluated("pgd_20-linf-0.2-best", 0.3)],
    )
    (row,) = rows_of([cell])
    assert row.gap is not None
    assert row.gap.mean == pytest.approx(0.3)
    assert words(row) == []


def test_the_results_say_it_of_the_last_weights_alone() -> None:
    told = info()
    _, results = results_of([both(0, 0.4, 0.6)], told)
    said = {row.weights: [flag.kind for flag in row.flags] for row in results}
    assert said == {"last": ["robust overfitting"], "best": []}


def test_with_one_kind_of_weights_there_are_no_rows() -> None:
    assert rows_of([measured("natural-s0", [evaluated("pgd_20-linf-0.2", 0.0)])]) == []
    assert rows_of([measured("natural-s0", [evaluated("pgd_20-linf-0.2-best", 0.0)])]) == []
    assert selection_data([]).num_rows == 0
