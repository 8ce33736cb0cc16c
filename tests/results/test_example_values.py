from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from advtrain.results.collect import Collected, collect, read_cell, read_collected, write_collected
from advtrain.results.example_values import EXTREME, distribution_rows, extreme_rows
from advtrain.results.files import DamagedFileError, write_table
from advtrain.results.images import PreparedSplit, prepared_split
from tests.results import synthetic
from tests.results.synthetic import EXAMPLES, NAMES, STUDY

CELL = "pgd_at-linf-0.2-s0"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("learnt")
    synthetic.write_training(found, STUDY, CELL, "pgd_at", 0.2, 0)
    synthetic.write_training(found, STUDY, "natural-s0", "natural", None, 0)
    synthetic.write_splits(found)
    synthetic.write_values(found, STUDY, CELL)
    return found


@pytest.fixture(scope="module")
def collected(root: Path) -> Collected:
    records = [read_cell(root, STUDY, cell, []) for cell in (CELL, "natural-s0")]
    return collect(STUDY, records, prepared=synthetic.prepared(root))


@pytest.fixture(scope="module")
def train(root: Path) -> PreparedSplit:
    return prepared_split(synthetic.prepared(root), "train")


def test_each_epoch_is_summed_up_over_its_examples(collected: Collected) -> None:
    rows = collected.example_values.to_pylist()
    assert [(row["cell"], row["value"], row["epoch"]) for row in rows] == [
        (CELL, "epsilon", epoch) for epoch in (1, 2, 3)
    ]
    first, _, last = rows
    assert (first["examples"], first["zeros"], last["zeros"]) == (21, EXAMPLES // 2, 1)
    # 0, 0.03 .. 0.6: the 11th of 21 is the median, the second is the first at or above 5 %.
    numbers = [last[f"quantile_{percent}"] for percent in (0, 5, 25, 50, 75, 95, 100)]
    assert numbers == pytest.approx([0, 0.03, 0.15, 0.3, 0.45, 0.57, 0.6])
    assert last["mean"] == pytest.approx(0.3)


def test_the_extremes_of_the_last_epoch_are_shown(collected: Collected) -> None:
    rows = collected.extremes.to_pylist()
    found = {
        end: [(row["example"], row["number"]) for row in rows if row["end"] == end]
        for end in ("smallest", "largest")
    }
    assert found["smallest"] == [(i, pytest.approx(0.03 * i)) for i in range(EXTREME)]
    # Example 20 has the largest value, and is not in the split.
    assert found["largest"] == [(19 - i, pytest.approx(0.03 * (19 - i))) for i in range(EXTREME)]
    row = next(row for row in rows if row["example"] == 18)
    assert (row["label"], row["label_name"]) == (2, NAMES[2])
    assert row["image"] == synthetic.pixels(18).tobytes()
    assert (row["channels"], row["height"], row["width"]) == synthetic.SHAPE


def test_of_equal_values_the_lowest_ids_are_shown(train: PreparedSplit) -> None:
    example = np.array([7, 3, 12, 9, 1, 15, 11, 2])
    values = pa.table({"example": example, "epoch": np.full(8, 1), "epsilon": np.zeros(8)})
    rows = extreme_rows(CELL, values, train).to_pylist()
    assert [row["example"] for row in rows] == [1, 2, 3, 7, 9, 11] * 2


def test_without_pixels_nothing_is_shown_and_all_is_counted(root: Path) -> None:
    found = collect(STUDY, [read_cell(root, STUDY, CELL, [])])
    assert (found.extremes.num_rows, found.example_values.num_rows) == (0, 3)


def test_a_training_without_an_epoch_has_no_distribution(train: PreparedSplit) -> None:
    nothing = pa.table({name: pa.array([], kind) for name, kind in (
        ("example", pa.int64()), ("epoch", pa.int64()), ("epsilon", pa.float64())
    )})  # fmt: skip
    assert distribution_rows(CELL, nothing).num_rows == 0
    assert extreme_rows(CELL, nothing, train).num_rows == 0


def test_the_rows_are_read_again(tmp_path: Path, collected: Collected) -> None:
    write_collected(collected, tmp_path)
    found = read_collected(tmp_path)
    assert found.example_values.equals(collected.example_values)
    assert found.extremes.equals(collected.extremes)


def test_values_of_nothing_are_refused(tmp_path: Path) -> None:
    synthetic.write_training(tmp_path, STUDY, CELL, "pgd_at", 0.2, 0)
    synthetic.write_values(tmp_path, STUDY, CELL)
    path = tmp_path / "results/train" / STUDY / CELL / "examples.parquet"
    write_table(path, pa.table({"example": [1]}))
    with pytest.raises(DamagedFileError, match="expected the columns example, epoch and a value"):
        collect(STUDY, [read_cell(tmp_path, STUDY, CELL, [])])
