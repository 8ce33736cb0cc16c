import errno
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from advtrain.results import files
from advtrain.results.files import DamagedFileError, write_table
from advtrain.results.history import read_history, write_history
from advtrain.results.outcomes import read_outcomes, read_stamps, write_outcomes
from advtrain.results.schema import CLAIMS, OUTCOMES, STAMPS

STAMPED = {name: f"the {name}" for name in STAMPS}


def columns(examples: int = 4) -> dict[str, np.ndarray | str | float]:
    index = np.arange(examples)
    return {
        "cell": "natural-s0",
        "attack": "pgd_20-linf-0.2",
        "protocol": "0123456789abcdef",
        "norm": "linf",
        "epsilon": 0.2,
        "example": index + 7,
        "label": index % 3,
        "clean_prediction": index % 3,
        "adversarial_prediction": (index + 1) % 3,
        "distance": np.full(examples, 0.2),
        "objective": index * 0.5,
        "forward": np.full(examples, 21),
        "backward": np.full(examples, 20),
        "stage": np.full(examples, ""),
        "claim": np.array(CLAIMS)[index % 4],
        "gain": np.where(index == 1, np.nan, 0.5),
        "late_gain": np.full(examples, 0.25),
    }


def test_outcomes_come_back_with_their_types_and_stamps(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "outcomes.parquet"
    write_outcomes(path, columns(), STAMPED)
    table = read_outcomes(path)
    assert table.schema.equals(OUTCOMES)
    assert table["cell"].to_pylist() == ["natural-s0"] * 4
    assert table["example"].to_pylist() == [7, 8, 9, 10]
    assert table["adversarial_prediction"].to_pylist() == [1, 2, 0, 1]
    assert table["distance"].to_pylist() == [float(np.float32(0.2))] * 4
    assert table["claim"].to_pylist() == list(CLAIMS)
    assert table["gain"].to_pylist() == [0.5, None, 0.5, 0.5]
    assert read_stamps(path) == STAMPED


def test_rows_are_sorted_and_their_bytes_do_not_depend_on_the_order(tmp_path: Path) -> None:
    given = columns(100)
    order = np.random.default_rng(0).permutation(100)
    shuffled = {k: v[order] if isinstance(v, np.ndarray) else v for k, v in given.items()}
    write_outcomes(tmp_path / "a", given, STAMPED)
    write_outcomes(tmp_path / "b", shuffled, dict(reversed(STAMPED.items())))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_no_examples_are_no_rows(tmp_path: Path) -> None:
    write_outcomes(tmp_path / "none", columns(0), STAMPED)
    assert read_outcomes(tmp_path / "none").num_rows == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": None}, r"missing \['label'\]"),
        ({"extra": np.zeros(4)}, r"unknown \['extra'\]"),
        ({"label": np.zeros(3)}, r"label has the shape \(3,\), expected \(4,\)"),
        ({"label": 1.0}, r"label has the shape \(\), expected \(4,\)"),
        ({"label": np.full(4, 40_000)}, "column label is int16"),
        ({"label": np.full(4, 0.5)}, "column label is int16"),
        ({"example": np.array([1, 2, 1, 3])}, "example 1 comes twice"),
    ],
)
def test_columns_that_do_not_fit_are_refused(
    tmp_path: Path, change: dict[str, np.ndarray | float | None], message: str
) -> None:
    given = {**columns(), **change}
    kept = {name: value for name, value in given.items() if value is not None}
    with pytest.raises(ValueError, match=message):
        write_outcomes(tmp_path / "outcomes.parquet", kept, STAMPED)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_stamp_is_refused(tmp_path: Path) -> None:
    stamps = {name: text for name, text in STAMPED.items() if name != "data"}
    with pytest.raises(ValueError, match=r"stamps of the outcomes: missing \['data'\]"):
        write_outcomes(tmp_path / "outcomes.parquet", columns(), stamps)


@pytest.mark.parametrize("place", [0.3, 0.6, 0.99])
def test_a_damaged_file_is_named_with_its_mend(tmp_path: Path, place: float) -> None:
    path = tmp_path / "outcomes.parquet"
    write_outcomes(path, columns(1000), STAMPED)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * place)])
    with pytest.raises(DamagedFileError, match=r"outcomes.parquet: damaged, .*; delete it and run"):
        read_outcomes(path)


@pytest.mark.parametrize("place", range(0, 100, 9))
def test_a_flipped_bit_in_a_page_is_found(tmp_path: Path, place: int) -> None:
    path = tmp_path / "history.parquet"
    write_history(path, [{"epoch": epoch, "loss": epoch * 0.37} for epoch in range(500)])
    found = pq.ParquetFile(path).metadata.row_group(0).column(1)
    whole = bytearray(path.read_bytes())
    # The page's own head, some tens of bytes, lies before its values.
    first, last = found.dictionary_page_offset + 60, found.data_page_offset - 1
    whole[first + (last - first) * place // 100] ^= 1
    path.write_bytes(whole)
    with pytest.raises(DamagedFileError, match=r"history.parquet: damaged"):
        read_history(path)


def test_a_missing_file_is_named_with_its_mend(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"dvc pull.*outcomes.parquet"):
        read_outcomes(tmp_path / "outcomes.parquet")


def test_a_table_with_other_columns_is_not_outcomes(tmp_path: Path) -> None:
    write_table(tmp_path / "other", pa.table({"cell": ["a"]}))
    with pytest.raises(DamagedFileError, match="expected the columns cell, attack"):
        read_outcomes(tmp_path / "other")
    with pytest.raises(DamagedFileError, match="carries no stamp attack_key"):
        read_stamps(tmp_path / "other")


@pytest.mark.parametrize(
    ("number", "words"), [(errno.ENOSPC, "the disk is full; free some space"), (errno.EIO, "mend")]
)
def test_a_write_that_fails_leaves_the_old_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    path = tmp_path / "history.parquet"
    write_history(path, [{"epoch": 1}])

    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match=rf"history.parquet: not written, .*{words}") as caught:
        write_history(path, [{"epoch": 1}, {"epoch": 2}])
    assert caught.value.errno == number
    assert read_history(path) == [{"epoch": 1}]
    assert [found.name for found in tmp_path.iterdir()] == ["history.parquet"]


def test_a_history_comes_back_row_by_row(tmp_path: Path) -> None:
    rows: list[dict[str, float | int]] = [
        {"epoch": 1, "loss": 0.5},
        {"epoch": 2, "loss": 0.25, "validation_clean_accuracy": 0.75},
        {"epoch": 3, "loss": 1},
    ]
    path = tmp_path / "history.parquet"
    write_history(path, rows)
    assert read_history(path) == rows
    table = files.read_table(path)
    assert table.schema.types == [pa.int64(), pa.float64(), pa.float64()]
    assert table["validation_clean_accuracy"].to_pylist() == [None, 0.75, None]


def test_an_empty_history_has_no_rows(tmp_path: Path) -> None:
    write_history(tmp_path / "history.parquet", [])
    assert read_history(tmp_path / "history.parquet") == []


@pytest.mark.parametrize("value", ["text", True, None])
def test_a_history_holds_numbers_alone(tmp_path: Path, value: object) -> None:
    if value is None:
        write_history(tmp_path / "history.parquet", [{"epoch": 1, "loss": None}])  # type: ignore[dict-item]
        assert read_history(tmp_path / "history.parquet") == [{"epoch": 1}]
    else:
        with pytest.raises(TypeError, match="loss is a number"):
            write_history(tmp_path / "history.parquet", [{"loss": value}])  # type: ignore[dict-item]
