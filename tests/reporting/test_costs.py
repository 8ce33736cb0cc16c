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
