from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from advtrain.results.certified import read_certified, write_certified
from advtrain.results.files import DamagedFileError, write_table
from advtrain.results.outcomes import Value, read_outcomes, read_stamps
from advtrain.results.schema import CERTIFIED, STAMPS

STAMPED = {name: f"the {name}" for name in STAMPS}


def columns(examples: int = 4) -> dict[str, Value]:
    index = np.arange(examples)
    return {
        "cell": "ibp-linf-0.2-s0",
        "certificate": "ibp-linf-0.2",
        "norm": "linf",
        "epsilon": 0.2,
        "example": index + 7,
        "label": index % 3,
        "prediction": index % 3 - 1,
        "radius": np.where(index % 2, 0.7, 0.0),
        "forward": np.full(examples, 3),
        "backward": np.full(examples, 0),
    }


def test_rows_come_back_with_their_types_and_stamps(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "certified.parquet"
    write_certified(path, columns(), STAMPED)
    table = read_certified(path)
    assert table.schema.equals(CERTIFIED)
    assert table["certificate"].to_pylist() == ["ibp-linf-0.2"] * 4
    assert table["prediction"].to_pylist() == [-1, 0, 1, -1]
    assert table["epsilon"].to_pylist() == [0.2] * 4
    assert read_stamps(path) == STAMPED


def test_a_radius_keeps_its_digits(tmp_path: Path) -> None:
    # As float32, .7 is below .7: an example that is verified at .7 would not be.
    write_certified(tmp_path / "rows", columns(), STAMPED)
    assert read_certified(tmp_path / "rows")["radius"].to_pylist() == [0.0, 0.7, 0.0, 0.7]


def test_a_certificate_without_a_budget_has_none(tmp_path: Path) -> None:
    for given in (None, np.full(4, None)):
        write_certified(tmp_path / "rows", {**columns(), "epsilon": given}, STAMPED)
        assert read_certified(tmp_path / "rows")["epsilon"].to_pylist() == [None] * 4


def test_rows_are_sorted_and_their_bytes_do_not_depend_on_the_order(tmp_path: Path) -> None:
    given, order = columns(100), np.random.default_rng(0).permutation(100)
    shuffled = {k: v[order] if isinstance(v, np.ndarray) else v for k, v in given.items()}
    write_certified(tmp_path / "a", given, STAMPED)
    write_certified(tmp_path / "b", shuffled, dict(reversed(STAMPED.items())))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"distance": np.zeros(4)}, r"columns of the certified rows: .* unknown \['distance'\]"),
        ({"radius": np.zeros(3)}, r"radius has the shape \(3,\), expected \(4,\)"),
        ({"radius": 0.2}, r"radius has the shape \(\), expected \(4,\)"),
        ({"radius": np.array([0.1, None, 0.1, 0.1])}, "radius has no value in 1 rows"),
        ({"norm": None}, "column norm has no value in 4 rows"),
        ({"prediction": np.full(4, 40_000)}, "column prediction is int16"),
        ({"example": np.array([1, 2, 1, 3])}, "example 1 comes twice"),
    ],
)
def test_columns_that_do_not_fit_are_refused(
    tmp_path: Path, change: dict[str, Value], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        write_certified(tmp_path / "certified.parquet", {**columns(), **change}, STAMPED)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_stamp_is_refused(tmp_path: Path) -> None:
    stamps = {name: text for name, text in STAMPED.items() if name != "data"}
    with pytest.raises(ValueError, match=r"stamps of the certified rows: missing \['data'\]"):
        write_certified(tmp_path / "certified.parquet", columns(), stamps)


def test_other_tables_are_not_certified_rows(tmp_path: Path) -> None:
    write_table(tmp_path / "other", pa.table({"cell": ["a"]}))
    with pytest.raises(DamagedFileError, match="expected the columns cell, certificate"):
        read_certified(tmp_path / "other")
    write_certified(tmp_path / "certified", columns(), STAMPED)
    with pytest.raises(DamagedFileError, match="expected the columns cell, attack"):
        read_outcomes(tmp_path / "certified")
