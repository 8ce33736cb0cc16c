from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from advtrain.published.registry import read_registry
from advtrain.reporting.layout import costs_sheet, published_sheet
from advtrain.reporting.measure import Measured, units
from advtrain.reporting.published import (
    PublishedRow,
    cell_departures,
    published_data,
    published_rows,
)
from advtrain.reporting.study import StudyInfo
from tests.reporting.made import certified, evaluated, measured
from tests.reporting.poster import cell_rows, poster_info

REGISTRY = read_registry()
FREE = {"free_8": "free"}
NAMED = {"free_8": ["free/free_8"]}
PGD = "pgd_20-linf-8_255"


def cell(
    robust: float = 0.4682,
    *,
    clean: float = 0.8596,
    seed: int = 0,
    examples: int = 10_000,
    attack: str = PGD,
    **given: Any,
) -> Measured:
    one = evaluated(attack, robust, clean=clean, examples=examples)
    return measured(f"free_8-linf-8_255-s{seed}", [one], **given)


def rows_of(cells: list[Measured], info: StudyInfo, **changes: Any) -> dict[str, PublishedRow]:
    table = cell_rows(cells, info, **changes)
    relative = {unit.name: 1.0 for unit in units(cells, info)}
    rows = published_rows(units(cells, info), table, info, REGISTRY, relative)
    return {row.number.column: row for row in rows}


def free(*cells: Measured, **changes: Any) -> dict[str, PublishedRow]:
    return rows_of(list(cells), poster_info(FREE, published=NAMED), **changes)


def test_every_number_of_the_training_has_a_row() -> None:
    found = free(cell())
    assert list(found) == ["clean", "PGD-20", "PGD-100", "CW-100", "10xPGD-20", "minutes"]
    assert (found["PGD-20"].number.value, found["PGD-20"].evaluation) == (0.4682, PGD)
    assert found["PGD-20"].departures == ()
    assert {column: row.says for column, row in found.items()} == {
        "clean": "reproduced",
        "PGD-20": "reproduced",
        # The nearest attack of ours has 20 steps.
        "PGD-100": "not comparable",
        "CW-100": "not run",
        "10xPGD-20": "not comparable",
        "minutes": "not comparable",
    }


@pytest.mark.parametrize(
    ("robust", "says"),
    [(0.4682, "reproduced"), (0.4582, "reproduced"), (0.4581, "deviates"), (0.4783, "deviates")],
)
def test_a_point_is_within_the_noise_and_more_is_not(robust: float, says: str) -> None:
    row = free(cell(robust))["PGD-20"]
    assert row.noise == pytest.approx(0.01)  # half the interval of 10,000 examples is less
    assert row.says == says


def test_two_deviations_over_seeds_are_noise() -> None:
    two = [cell(robust, seed=seed) for seed, robust in enumerate((0.42, 0.46))]
    row = free(*two)["PGD-20"]
    assert row.difference == pytest.approx(-0.0282)
    assert row.noise == pytest.approx(2 * 0.04 / 2**0.5)
    assert row.says == "reproduced"


def test_the_deviation_that_was_published_counts_where_it_is_larger() -> None:
    row = free(cell(0.45))["PGD-20"]
    assert row.says == "deviates"
    assert replace(row, number=replace(row.number, spread=0.01)).says == "reproduced"


def test_half_the_interval_is_noise_where_the_source_states_no_examples() -> None:
    info = poster_info(FREE, published={"free_8": ["robustbench/free"]})
    row = rows_of([cell(clean=0.84, examples=400)], info)["clean"]
    assert row.noise == pytest.approx((row.ours.high - row.ours.low) / 2 if row.ours else None)
    assert row.noise > 0.03
    assert row.says == "reproduced"


def test_fewer_examples_than_stated_are_not_comparable() -> None:
    row = free(cell(examples=1000))["PGD-20"]
    assert [str(one) for one in row.departures] == ["attack.examples: 10000 → 1000"]
    assert row.says == "not comparable"


@pytest.mark.parametrize("change", [{"recipe": {"epochs": 80}}, {"depth": 28}])
def test_a_smaller_scale_is_never_reproduced(change: dict[str, Any]) -> None:
    rows = free(cell(), **change).values()
    assert {row.says for row in rows} == {"not comparable", "not run"}


def test_a_training_that_collapsed_is_not_a_reproduction() -> None:
    # The two deviations of such seeds would let any mean pass.
    cells = [
        cell(0.4682),
        cell(0.0, clean=0.1, seed=1, status="collapsed", cause="loss is not a number"),
    ]
    row = free(*cells)["PGD-20"]
    assert row.noise is not None
    assert row.difference is not None
    assert abs(row.difference) < row.noise
    assert row.says == "deviates"
    assert [flag.kind for flag in row.flags] == ["collapsed"]


def test_the_attack_that_differs_least_stands_beside() -> None:
    evaluations = [
        evaluated("pgd_20-linf-4_255", 0.6, examples=10_000),
        evaluated("pgd_10-linf-8_255", 0.5, examples=10_000),
        evaluated("pgd_100-linf-8_255", 0.4619, examples=10_000),
        evaluated(PGD, 0.4682, examples=1000),
        evaluated("autoattack-linf-8_255", 0.4, examples=10_000),
    ]
    found = free(measured("free_8-linf-8_255-s0", evaluations))
    assert found["PGD-100"].evaluation == "pgd_100-linf-8_255"
    assert found["PGD-100"].says == "reproduced"
    # On fewer examples, but the same attack; at half the budget it is another one.
    assert found["PGD-20"].evaluation == PGD
    assert found["10xPGD-20"].evaluation == PGD


def test_the_weights_that_are_meant_are_compared() -> None:
    info = poster_info(
        {"pgd_at_10": "pgd_at"}, published={"pgd_at_10": ["robust_overfitting/fgsm"]}
    )
    own = {"pgd_at_10": {"steps": 10}}
    info["published"] = {"pgd_at_10": ["robust_overfitting/pgd_at_wrn_34_10"]}
    evaluations = [
        evaluated(PGD, 0.48, clean=0.87, examples=10_000),
        evaluated(f"{PGD}-best", 0.55, clean=0.86, examples=10_000),
    ]
    cells = [measured("pgd_at_10-linf-8_255-s0", evaluations)]
    table = cell_rows(cells, info, own=own)
    rows = published_rows(units(cells, info), table, info, REGISTRY, {})
    found = {(row.number.row, row.number.column): row for row in rows}
    last, best = (found[f"WRN-34-10, {which}", "clean"] for which in ("last", "best"))
    assert (last.weights, best.weights) == ("last", "best")
    # Their best weights were chosen by the test set.
    assert "selection: best test → best validation" in map(str, best.departures)
    assert not [one for one in last.departures if one.field == "selection"]


def test_a_cell_that_failed_is_not_run_and_says_why() -> None:
    failure = {
        "cell": "free_8-linf-8_255-s0",
        "stage": "train",
        "state": "failed",
        "cause": "out of memory",
    }
    info = poster_info(FREE, published=NAMED, failures=[failure])
    rows = published_rows(units([], info), cell_rows([], info), info, REGISTRY, {})
    row = rows[0]
    assert row.says == "not run"
    assert [flag.words(str) for flag in row.flags] == ["failed: out of memory"]


def test_a_certificate_is_asked_about_the_published_radius() -> None:
    info = poster_info({"gaussian": "gaussian"}, published={"gaussian": ["smoothing/cifar10_025"]})
    radius = np.repeat([0.0, 0.3, 0.6, 0.9], [200, 85, 80, 135])
    cells = [measured("gaussian-s0", [], [certified("smoothing_025-l2", radius)])]
    found = rows_of(cells, info)
    ours = {column: row.ours.mean for column, row in found.items() if row.ours}
    assert ours == pytest.approx({"radius .25": 0.6, "radius .5": 0.43, "radius .75": 0.27})
    # The recipe is the poster's, and the attack's fields are as published.
    assert not [one for one in found["radius .5"].departures if one.field.startswith("attack")]


def test_a_verified_accuracy_stands_beside_that_of_the_same_budget() -> None:
    info = poster_info({"ibp": "ibp"}, published={"ibp": ["ibp/ibp_8"]})
    proofs = [
        certified("ibp-linf-2_255", [2 / 255] * 44 + [0.0] * 56),
        certified("ibp-linf-8_255", [8 / 255] * 32 + [0.0] * 68),
        certified("smoothing_025-l2", [1.0] * 100),
    ]
    cells = [measured("ibp-linf-8_255-s0", [evaluated(PGD, 0.4)], proofs)]
    row = rows_of(cells, info)["verified 8"]
    assert (row.evaluation, row.ours and row.ours.mean) == ("ibp-linf-8_255", 0.32)
    assert not [one for one in row.departures if one.field.startswith("attack")]


def test_a_time_stands_beside_passes_and_is_never_compared() -> None:
    row = free(cell())["minutes"]
    assert (row.ours, row.says, row.relative) == (None, "not comparable", 1.0)
    assert row.published_relative == pytest.approx(785 / 780)
    minutes = {"free_8": [row.number]}
    sheet = costs_sheet([], poster_info(FREE), minutes)
    assert "published, min" in [column.title for column in sheet.columns]
    assert "published, min" not in [c.title for c in costs_sheet([], poster_info(FREE)).columns]


def test_the_sheet_says_what_differs_and_the_files_hold_shares() -> None:
    info = poster_info(FREE, published=NAMED)
    rows = list(free(cell(0.45), cell(0.46, seed=1), recipe={"epochs": 80}).values())
    sheet = published_sheet(rows, info)
    line = {column.title: one for column, one in zip(sheet.columns, sheet.rows[1], strict=True)}
    assert line["published"].text == "46.82"
    assert line["ours"].text == "45.50 ± 0.71"
    assert line["difference, points"].text == "−1.32"
    assert line["verdict"].text == "not comparable"
    assert line["notes"].notes == (
        "training, theirs → ours: weight steps: 80000 → 31280",
        f"ours: {PGD}",
    )
    data = published_data(rows).to_pylist()[1]
    assert data["published"] == 0.4682
    assert data["ours"] == pytest.approx(0.455)
    assert data["verdict"] == "not comparable"
    assert data["differences"] == ["weight steps: 80000 → 31280"]
    assert "nesterov" in data["not_stated"]


def test_no_attack_is_named_beside_a_clean_accuracy() -> None:
    info = poster_info(FREE, published=NAMED)
    found = free(cell(), recipe={"epochs": 80})
    clean, robust = (published_sheet([found[one]], info).rows[0] for one in ("clean", "PGD-20"))
    assert clean[-1].notes == robust[-1].notes[:1]
    assert robust[-1].notes[1] == f"ours: {PGD}"
    # The rows that it is read from are named in the files.
    assert published_data([found["clean"]])["evaluation"].to_pylist() == [PGD]


def test_without_published_trainings_there_are_no_rows() -> None:
    info = poster_info(FREE)
    assert free(cell()) != {}
    assert (
        published_rows(units([cell()], info), cell_rows([cell()], info), info, REGISTRY, {}) == []
    )
    assert "names no published training" in published_sheet([], info).reading


def test_a_cells_own_differences_are_listed_for_its_lineage() -> None:
    info = poster_info(FREE, published=NAMED)
    (row,) = cell_rows([cell()], info, recipe={"weight_decay": 5e-4}).to_pylist()
    found = cell_departures(row, info, REGISTRY)
    assert {name: [str(one) for one in of] for name, of in found.items()} == {
        "free/free_8": ["weight decay: 0.0002 → 0.0005"]
    }
