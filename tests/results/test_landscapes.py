from pathlib import Path

import numpy as np
import pytest

from advtrain.results.collect import Collected, collect, read_cell, read_collected, write_collected
from advtrain.results.landscapes import LANDSCAPES, read_landscapes, write_landscapes
from advtrain.results.schema import STAMPS
from tests.results import synthetic
from tests.results.synthetic import PICTURED, PROBE, SHAPE, SIDE, STUDY

CELL = "pgd_at-linf-0.2-s0"
STAMPED = dict.fromkeys(STAMPS, "said")


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> Collected:
    root = tmp_path_factory.mktemp("pictured")
    synthetic.write_pictured_tree(root)
    records = synthetic.read_pictured_records(root)
    return collect(STUDY, records, prepared=synthetic.prepared(root))


def test_a_row_is_an_image_its_gradient_and_the_loss_around_it(tmp_path: Path) -> None:
    columns, facts = synthetic.landscape(CELL)
    write_landscapes(tmp_path / "a.parquet", columns, facts, STAMPED)
    first, second = read_landscapes(tmp_path / "a.parquet").to_pylist()  # by example
    assert (first["example"], second["example"]) == (1000, 1019)
    assert (first["norm"], first["epsilon"], first["reach"]) == ("linf", 0.2, 2.0)
    assert (second["label"], second["label_name"], second["side"]) == (3, "line", SIDE)
    shape = second["channels"], second["height"], second["width"]
    assert shape == SHAPE
    image = np.frombuffer(second["image"], np.uint8).reshape(shape)
    assert (image == synthetic.pixels(19)).all()
    scaled = np.frombuffer(second["gradient"], "<f2").reshape(shape)
    assert scaled.max() == 1
    np.testing.assert_allclose(
        second["largest"] * scaled, columns["gradient"][1], rtol=1e-3, atol=1e-4
    )
    loss = np.frombuffer(second["loss"], "<f4").reshape(SIDE, SIDE)
    assert (loss == columns["loss"][1]).all()


def test_a_gradient_of_zero_stays_zero(tmp_path: Path) -> None:
    columns, facts = synthetic.landscape("fgsm_mixed-linf-0.2-s0")
    write_landscapes(tmp_path / "a.parquet", columns, facts, STAMPED)
    _, row = read_landscapes(tmp_path / "a.parquet").to_pylist()
    assert row["largest"] == 0
    assert not np.frombuffer(row["gradient"], "<f2").any()


def test_a_gradient_that_is_no_number_stays_none(tmp_path: Path) -> None:
    columns, facts = synthetic.landscape(CELL)
    columns["gradient"][0] = np.nan
    write_landscapes(tmp_path / "a.parquet", columns, facts, STAMPED)
    row, _ = read_landscapes(tmp_path / "a.parquet").to_pylist()
    assert np.isnan(np.frombuffer(row["gradient"], "<f2")).all()


def test_those_of_all_cells_are_collected_and_read_again(
    tmp_path: Path, collected: Collected
) -> None:
    rows = collected.landscapes
    assert rows.num_rows == 10 * PICTURED
    assert (
        rows["cell"].to_pylist()[:4]
        == ["fgsm_mixed-linf-0.1-s0"] * 2 + ["fgsm_mixed-linf-0.1-s1"] * 2
    )
    # Without a budget of its own, a cell is shown in units of the study's largest.
    epsilons = dict(zip(rows["cell"].to_pylist(), rows["epsilon"].to_pylist(), strict=True))
    assert (epsilons["natural-s0"], epsilons["pgd_at-linf-0.1-s0"]) == (0.2, 0.1)
    write_collected(collected, tmp_path)
    assert read_collected(tmp_path).landscapes.equals(rows)


def test_those_of_other_weights_are_refused(tmp_path: Path) -> None:
    synthetic.write_training(tmp_path, STUDY, CELL, "pgd_at", 0.2, 0)
    synthetic.write_probe(tmp_path, STUDY, CELL)
    path = tmp_path / "results/probe" / STUDY / CELL / PROBE / "landscapes.parquet"
    write_landscapes(path, *synthetic.landscape(CELL), STAMPED)
    with pytest.raises(ValueError, match="gradients carries the checkpoint stamp said, expected"):
        collect(STUDY, [read_cell(tmp_path, STUDY, CELL, [], [], [PROBE])])


def test_a_study_without_probes_has_an_empty_table() -> None:
    assert collect(STUDY, []).landscapes.equals(LANDSCAPES.empty_table())
