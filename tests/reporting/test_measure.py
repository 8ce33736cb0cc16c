from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from advtrain.reporting.measure import Unit, locate, measure, units
from advtrain.reporting.study import Failure, check_info
from advtrain.results.collect import Collected
from tests.results import synthetic


def failure(cell: str, state: str = "failed") -> Failure:
    return {"cell": cell, "stage": "train", "state": state, "cause": "out of memory"}


def test_an_evaluation_says_who_was_right(collected: Collected) -> None:
    found = {cell.cell: cell for cell in measure(collected)}
    cell = found["pgd_at-linf-0.1-s1"]
    (cw,) = (one for one in cell.evaluations if one.name == "cw_20-linf-0.1")
    assert (cw.attack, cw.norm, cw.epsilon, cw.weights) == ("cw_20", "linf", 0.1, "last")
    assert cw.clean.tolist() == [False] * 4 + [True] * 16
    assert cw.robust.tolist() == [False] * 9 + [True] * 10 + [False]
    assert cw.example.tolist() == list(range(1000, 1020))
    assert cw.backwards == 20


def test_an_evaluation_says_how_it_was_made_and_what_it_found(collected: Collected) -> None:
    found = {cell.cell: cell for cell in measure(collected)}
    made = {one.name: one for one in found["pgd_at-linf-0.1-s1"].evaluations}
    cw, fgsm = made["cw_20-linf-0.1"], made["fgsm-linf-0.1"]
    assert (cw.module, cw.parameters, cw.precision) == (
        *("cw", {"steps": 20, "restarts": 1}, "float32"),
    )
    assert cw.passes.tolist() == [41] * 20
    assert cw.claim.tolist() == ["confirmed"] * 9 + ["none"] * 10 + ["confirmed"]
    assert cw.stage.tolist() == [""] * 20
    assert (cw.gain.tolist(), cw.late_gain[0]) == ([2.0] * 20, pytest.approx(0.02))
    assert np.isnan(fgsm.gain).all()
    assert np.isnan(fgsm.late_gain).all()


def test_probed_gradients_are_those_of_their_cell(rich: Collected) -> None:
    found = {cell.cell: cell for cell in measure(rich)}
    assert found["natural-s0"].probe is None
    looked = found["pgd_at-linf-0.1-s1"].probe
    assert looked is not None
    assert looked.example.tolist() == list(range(1000, 1010))
    assert looked.clean.all()
    assert looked.margin_gradient.tolist() == [5.0] * 10
    assert looked.probabilities.tolist() == [False] * 10


def test_passes_are_per_training_example(collected: Collected) -> None:
    found = {cell.cell: cell for cell in measure(collected)}
    assert found["natural-s0"].forward == 3.0
    assert found["pgd_at-linf-0.1-s0"].backward == 33.0


def test_cells_are_grouped_by_all_but_the_seed(grouped: list[Unit]) -> None:
    assert [unit.name for unit in grouped] == [
        "natural",
        "pgd_at-linf-0.1",
        "pgd_at-linf-0.2",
        "fgsm_mixed-linf-0.1",
        "fgsm_mixed-linf-0.2",
    ]
    assert [cell.name.seed for cell in grouped[1].cells] == [0, 1]
    assert {unit.seeds for unit in grouped} == {(0, 1)}
    assert {unit.weights for unit in grouped} == {("last",)}


def test_a_failed_cell_joins_its_unit_or_makes_one(collected: Collected) -> None:
    failures = [
        failure("fake/natural-s2"),
        failure("trades-linf-8_255-s0", "missing"),
        failure("prepare:blobs"),
    ]
    info = check_info(synthetic.study_info(failures=failures))
    found = {unit.name: unit for unit in units(measure(collected), info)}
    assert found["natural"].seeds == (0, 1, 2)
    assert len(found["natural"].cells) == 2
    assert found["trades-linf-8_255"].cells == ()
    assert found["trades-linf-8_255"].weights == ("last",)
    assert list(found)[-1] == "trades-linf-8_255"
    assert len(found) == 6


@pytest.mark.parametrize("cell", ["prepare:blobs", "", "natural-s0/what"])
def test_a_failure_of_no_cell_belongs_nowhere(cell: str) -> None:
    assert locate(failure(cell), "fake") is None


def test_a_failed_evaluation_knows_its_cell() -> None:
    found = locate(failure("fake/natural-s0/pgd_20-linf-8_255"), "fake")
    assert found is not None
    assert found.cell.label == "natural"
    assert found.certificate is None
    assert found.attack is not None
    assert found.attack.epsilon == 8 / 255
    assert not found.of_the_cell


def test_a_failed_certificate_is_no_attack() -> None:
    told: Failure = {**failure("fake/natural-s0/smoothing_025-l2"), "stage": "certify"}
    found = locate(told, "fake")
    assert found is not None
    assert found.attack is None
    assert found.certificate is not None
    assert (found.certificate.attack, found.certificate.epsilon) == ("smoothing_025", None)


def test_rows_that_come_in_pieces_are_put_together(collected: Collected, tmp_path: Path) -> None:
    pq.write_table(collected.outcomes, tmp_path / "outcomes.parquet", row_group_size=33)
    pieces = pq.read_table(tmp_path / "outcomes.parquet")
    assert pieces["cell"].num_chunks > 1
    split = measure(replace(collected, outcomes=pieces))
    for ours, theirs in zip(split, measure(collected), strict=True):
        assert [(e.name, e.robust.tolist()) for e in ours.evaluations] == [
            (e.name, e.robust.tolist()) for e in theirs.evaluations
        ]
