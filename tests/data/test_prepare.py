import json
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from advtrain.data import source as source_module
from advtrain.data.prepare import prepare, stratified_order
from advtrain.data.source import Part, Source, part_of
from advtrain.data.store import SPLITS, Split, load_description, load_split


def splits_of(folder: Path) -> dict[str, Split]:
    return {name: load_split(folder, name) for name in SPLITS}


def ids(split: Split) -> list[int]:
    return split.example.tolist()


@given(
    counts=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    seed=st.integers(0, 2**40),
    window=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_every_run_of_the_order_is_stratified(
    counts: list[int], seed: int, window: tuple[float, float]
) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    order = stratified_order(labels, seed)
    assert sorted(order) == list(range(len(labels)))
    start, stop = (round(edge * len(labels)) for edge in sorted(window))
    got = np.bincount(labels[order[start:stop]], minlength=len(counts))
    expected = (stop - start) * np.asarray(counts) / len(labels)
    # One example per class of rounding for the class, and as many for the length of the run.
    assert (abs(got - expected) <= 1 + len(counts) * np.asarray(counts) / len(labels)).all()


def test_order_depends_on_seed_and_stream() -> None:
    labels = np.arange(50) % 5
    first = stratified_order(labels, 0).tolist()
    assert stratified_order(labels, 0).tolist() == first
    assert stratified_order(labels, 1).tolist() != first
    assert stratified_order(labels, 0, 1).tolist() != first


def test_order_is_pinned() -> None:
    # A change of this order changes every prepared data set, hence every result.
    labels = np.asarray([0, 0, 0, 0, 1, 1, 1, 2])
    assert stratified_order(labels, 0).tolist() == [3, 6, 2, 1, 4, 7, 0, 5]


def test_rows_are_the_source_examples(uneven: Source, tmp_path: Path) -> None:
    prepare(uneven, tmp_path)
    assert uneven.test is not None
    everything = np.concatenate(
        [*uneven.train.read(np.arange(100)), *uneven.test.read(np.arange(20))]
    )
    labels = np.concatenate([uneven.train.labels, uneven.test.labels])
    for split in splits_of(tmp_path).values():
        assert torch.equal(split.images, torch.from_numpy(everything[split.example]))
        assert torch.equal(split.labels, torch.from_numpy(labels[split.example]))
        assert split.images.dtype == torch.uint8
        assert split.labels.dtype == split.example.dtype == torch.int64


def test_official_test_part_is_the_test_split(uneven: Source, tmp_path: Path) -> None:
    prepare(uneven, tmp_path, test=0.5)
    splits = splits_of(tmp_path)
    assert sorted(ids(splits["test"])) == list(range(100, 120))
    assert sorted(ids(splits["train"]) + ids(splits["validation"])) == list(range(100))
    assert load_description(tmp_path)["split"]["test"] == "official"


def test_without_official_part_the_shares_are_disjoint(uneven: Source, tmp_path: Path) -> None:
    prepare(replace(uneven, test=None), tmp_path, validation=0.2, test=0.5)
    splits = splits_of(tmp_path)
    assert sorted(chain(*map(ids, splits.values()))) == list(range(100))
    counts = load_description(tmp_path)["class_counts"]
    assert {name: sum(count) for name, count in counts.items()} == {
        "train": 40,
        "validation": 10,
        "test": 50,
        "unlabelled": 0,
    }
    for name, expected in {
        "train": [24, 12, 4],
        "validation": [6, 3, 1],
        "test": [30, 15, 5],
    }.items():
        assert np.abs(np.subtract(counts[name], expected)).max() <= 1


def test_same_arguments_give_the_same_bytes(uneven: Source, tmp_path: Path) -> None:
    for folder, seed in (("first", 3), ("second", 3), ("other", 4)):
        prepare(uneven, tmp_path / folder, train_examples=40, split_seed=seed, unlabelled=0.2)
    files = [*(f"{split}.arrow" for split in SPLITS), "dataset.json"]
    assert sorted(path.name for path in (tmp_path / "first").iterdir()) == sorted(files)
    for file in files:
        first, second, other = (
            (tmp_path / folder / file).read_bytes() for folder in ("first", "second", "other")
        )
        assert first == second
        assert first != other


def test_bytes_do_not_depend_on_how_the_source_streams(
    uneven: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(uneven, tmp_path / "whole")
    monkeypatch.setattr(source_module, "CHUNK", 7)
    prepare(uneven, tmp_path / "pieces")
    for split in SPLITS:
        file = f"{split}.arrow"
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "pieces" / file).read_bytes()


def test_subsets_are_nested_and_leave_the_other_splits(uneven: Source, tmp_path: Path) -> None:
    chosen = {}
    for train, test in ((10, 5), (30, 10), (None, None)):
        folder = tmp_path / str(train)
        prepare(uneven, folder, train_examples=train, test_examples=test)
        chosen[train] = splits_of(folder)
        if train is not None:
            assert (len(chosen[train]["train"]), len(chosen[train]["test"])) == (train, test)
    for split in ("train", "test"):
        smallest, middle, whole = (ids(chosen[size][split]) for size in (10, 30, None))
        assert smallest == whole[: len(smallest)]
        assert middle == whole[: len(middle)]
    assert len({tuple(ids(chosen[size]["validation"])) for size in chosen}) == 1
    assert set(chosen[10]["train"].labels.tolist()) == {0, 1, 2}


def test_facts(uneven: Source, tmp_path: Path) -> None:
    source = replace(uneven, checksums={"file": "md5:0"})
    prepare(source, tmp_path, validation=0.25, test_examples=10, split_seed=2)
    facts = load_description(tmp_path)
    assert facts["name"] == "uneven"
    assert facts["classes"] == ["many", "some", "few"]
    assert (facts["channels"], facts["size"]) == (3, 4)
    assert facts["counts"] == {"train": 75, "validation": 25, "test": 10, "unlabelled": 0}
    assert facts["split"] == {
        "validation": 0.25,
        "test": "official",
        "train_examples": None,
        "test_examples": 10,
        "split_seed": 2,
        "unlabelled": 0.0,
    }
    assert facts["source_checksums"] == {"file": "md5:0"}
    assert facts["citation"] == "nobody"


def test_files_are_one_uncompressed_batch(uneven: Source, tmp_path: Path) -> None:
    prepare(uneven, tmp_path)
    with pa.memory_map(str(tmp_path / "train.arrow")) as file:
        reader = pa.ipc.open_file(file)
        assert reader.num_record_batches == 1
        assert reader.schema == pa.schema(
            [("example", pa.int64()), ("label", pa.int16()), ("image", pa.binary(48))]
        )
        assert reader.get_batch(0).num_rows == 90


def test_no_validation_is_an_empty_split(uneven: Source, tmp_path: Path) -> None:
    prepare(uneven, tmp_path, validation=0.0)
    assert load_split(tmp_path, "validation").images.shape == (0, 3, 4, 4)
    assert len(load_split(tmp_path, "train")) == 100


def test_interrupted_preparation_leaves_nothing_that_loads(uneven: Source, tmp_path: Path) -> None:
    prepare(uneven, tmp_path)

    def fails(positions: object) -> object:
        raise ValueError("image 7 is damaged")

    broken = replace(uneven, train=Part(uneven.train.labels, fails))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="image 7"):
        prepare(broken, tmp_path, split_seed=1)
    with pytest.raises(FileNotFoundError, match="was not prepared"):
        load_split(tmp_path, "train")


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"train_examples": 91}, r"uneven: train_examples is 91, but there are 90 .*at most 90"),
        ({"test_examples": 21}, r"uneven: test_examples is 21, but there are 20 .*at most 20"),
        ({"validation": 1.0}, r"uneven: the train split would be empty"),
    ],
)
def test_impossible_sizes(
    uneven: Source, tmp_path: Path, parameters: dict[str, float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        prepare(uneven, tmp_path, **parameters)  # type: ignore[arg-type]
    assert not any(tmp_path.iterdir())


def test_a_test_split_is_needed(uneven: Source, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the test split would be empty"):
        prepare(replace(uneven, test=None), tmp_path, test=0.0)


def test_wrong_source_is_named(uneven: Source, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"uneven: got images uint8 .*expected uint8 \(3, 5, 5\)"):
        prepare(replace(uneven, size=5), tmp_path)
    with pytest.raises(ValueError, match=r"labels run from 0 to 2, expected 0 to 1"):
        prepare(replace(uneven, classes=("many", "some")), tmp_path)
    stops_early = Part(uneven.train.labels, lambda positions: uneven.train.read(positions[:-1]))
    with pytest.raises(ValueError, match=r"got 89 images for train, expected 90"):
        prepare(replace(uneven, train=stops_early), tmp_path)


def test_part_needs_a_label_per_image() -> None:
    with pytest.raises(ValueError, match=r"got 2 images and labels of shape \(3,\)"):
        part_of(np.zeros((2, 1, 4, 4), np.uint8), [0, 1, 2])


def test_description_is_readable_text(uneven: Source, tmp_path: Path) -> None:
    prepare(replace(uneven, citation="Müller"), tmp_path)
    text = (tmp_path / "dataset.json").read_text(encoding="utf-8")
    assert "Müller" in text
    assert json.loads(text)["citation"] == "Müller"
