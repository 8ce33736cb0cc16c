from dataclasses import replace

import pytest

from advtrain.reporting.costs import cost_rows, costs_data
from advtrain.reporting.layout import costs_sheet
from advtrain.reporting.measure import Unit, measure, units
from advtrain.reporting.study import check_info
from advtrain.results.collect import Collected
from advtrain.results.schema import COSTS
from tests.results import synthetic

INFO = check_info(synthetic.study_info())


def test_costs_are_those_counted_by_hand(grouped: list[Unit], collected: Collected) -> None:
    rows = {row.unit.name: row for row in cost_rows(grouped, collected.costs)}
    natural, pgd = rows["natural"], rows["pgd_at-linf-0.2"]
    assert natural.seconds == 11.0
    assert natural.spread == pytest.approx(2**0.5)
    assert natural.ratio == 1.0
    assert pgd.seconds == 121.0
    assert pgd.ratio == pytest.approx(11.0)
    assert (pgd.forward, pgd.backward) == (33.0, 33.0)
    # Half a second for each of 8 and 6 evaluations.
    assert (natural.attack, pgd.attack) == (4.0, 3.0)
    assert pgd.devices == ("cpu",)


def test_certificates_are_timed_beside_the_attacks(rich: Collected) -> None:
    grouped = units(measure(rich), check_info(synthetic.study_info()))
    rows = {row.unit.name: row for row in cost_rows(grouped, rich.costs)}
    found = rows["pgd_at-linf-0.1"]
    # A quarter of a second for each of 2 certificates, half for each of 6 + 3 attacks.
    assert (found.attack, found.certify) == (4.5, 0.5)
    assert found.seconds == 121.0
    assert rows["natural"].certify is None
    heads = [c.title for c in costs_sheet(list(rows.values()), INFO).columns]
    assert "all certificates, s" in heads
    without = [row for row in rows.values() if row.certify is None]
    assert "all certificates, s" not in [c.title for c in costs_sheet(without, INFO).columns]


def test_without_times_there_are_passes(grouped: list[Unit]) -> None:
    (row, *_) = cost_rows(grouped, COSTS.empty_table())
    assert (row.seconds, row.spread, row.ratio, row.attack, row.seeds) == (*(None,) * 4, 0)
    assert row.forward == 3.0
    assert costs_data([row]).to_pylist()[0]["training_seconds"] is None


def test_without_natural_training_there_is_no_ratio(
    grouped: list[Unit], collected: Collected
) -> None:
    rows = cost_rows([unit for unit in grouped if unit.epsilon], collected.costs)
    assert {row.ratio for row in rows} == {None}


def test_a_cell_with_an_evaluation_not_timed_has_no_total(
    grouped: list[Unit], collected: Collected
) -> None:
    rows = collected.costs.to_pylist()
    for row in rows:
        if row["cell"] == "natural-s0" and row["evaluation"] == "fgsm-linf-0.1":
            row["seconds"] = None
    costs = COSTS.empty_table().from_pylist(rows, COSTS)
    natural = cost_rows(grouped[:1], costs)[0]
    assert natural.attack == 4.0
    for row in rows:
        row["seconds"] = None if row["stage"] == "attack" else row["seconds"]
    assert cost_rows(grouped[:1], COSTS.empty_table().from_pylist(rows, COSTS))[0].attack is None


def test_a_failed_cell_is_a_row_with_its_cause(collected: Collected) -> None:
    failures = [
        {"cell": f"trades-linf-0.1-s{s}", "stage": "train", "state": "failed", "cause": "killed"}
        for s in (0, 1)
    ]
    info = check_info(synthetic.study_info(failures=failures))
    row = cost_rows(units(measure(collected), info), collected.costs)[-1]
    assert (row.unit.method, row.seconds, row.forward) == ("trades", None, None)
    assert row.causes == ("failed: killed",)


def with_measures(collected: Collected) -> Collected:
    """Of natural training both seeds were measured, of PGD-AT at 0.2 one."""
    rows = collected.costs.to_pylist()
    shares = {"data_share": 0.1, "update_share": 0.2, "validation_share": 0.1}
    for row in rows:
        if row["stage"] == "train" and row["cell"].startswith("natural-s"):
            seed = int(row["cell"][-1])
            row |= {**shares, "attack_share": 0.6, "images_per_second": 100.0 + 50 * seed}
            row["peak_memory_bytes"] = (1 << 20) * (seed + 3)
        if row["stage"] == "train" and row["cell"] == "pgd_at-linf-0.2-s1":
            row |= {**shares, "attack_share": 0.6, "images_per_second": 12.0}
    return replace(collected, costs=COSTS.empty_table().from_pylist(rows, COSTS))


def test_what_was_measured_of_the_seeds(grouped: list[Unit], collected: Collected) -> None:
    rows = {row.unit.name: row for row in cost_rows(grouped, with_measures(collected).costs)}
    natural, pgd = rows["natural"], rows["pgd_at-linf-0.2"]
    assert natural.shares == pytest.approx(
        {"data": 0.1, "attack": 0.6, "update": 0.2, "validation": 0.1}
    )
    assert (natural.images, natural.memory) == (125.0, 4 << 20)
    assert (pgd.seeds, pgd.images, pgd.memory) == (2, 12.0, None)
    data = costs_data([natural]).to_pylist()[0]
    assert data["attack_share"] == pytest.approx(0.6)
    assert (data["images_per_second"], data["peak_memory_bytes"]) == (125.0, 4 << 20)


def test_columns_that_nobody_measured_are_not_shown(
    grouped: list[Unit], collected: Collected
) -> None:
    measured = ("data, %", "attack, %", "update, %", "validation, %", "images/s")
    without = costs_sheet(cost_rows(grouped, collected.costs), INFO)
    assert not {column.title for column in without.columns} & {*measured, "peak memory, MiB"}
    assert "images/s" not in without.reading
    sheet = costs_sheet(cost_rows(grouped, with_measures(collected).costs), INFO)
    heads = [column.title for column in sheet.columns]
    assert {len(row) for row in sheet.rows} == {len(heads)}
    natural = dict(zip(heads, (cell.text for cell in sheet.rows[0]), strict=True))
    assert [natural[head] for head in measured] == ["10.0", "60.0", "20.0", "10.0", "125"]
    assert natural["peak memory, MiB"] == "4"
    assert "images/s" in sheet.reading
    other = dict(zip(heads, (cell.text for cell in sheet.rows[1]), strict=True))
    assert {other[head] for head in measured} == {"–"}
