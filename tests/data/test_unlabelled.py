"""The fourth split: a share stripped of its labels, or extra data, or nothing."""

from collections import Counter
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from advtrain.data.prepare import prepare, stratified_order
from advtrain.data.source import NO_LABEL, Part, Source, part_of
from advtrain.data.store import SPLITS, Split, load_description, load_split


def ids(folder: Path, split: str) -> list[int]:
    example: list[int] = load_split(folder, split).example.tolist()
    return example


def pixels_of(part: Part) -> torch.Tensor:
    return torch.from_numpy(np.concatenate(list(part.read(np.arange(len(part))))))


@pytest.fixture
def extra() -> Part:
    generator = np.random.default_rng(1)
    labels = generator.permutation(np.repeat([0, 1, 2], [20, 10, 10]))
    return part_of(generator.integers(0, 256, (40, 3, 4, 4), np.uint8), labels)


def without_labels(part: Part) -> Part:
    return Part(np.full_like(part.labels, NO_LABEL), part.read)


def test_by_hand(tmp_path: Path) -> None:
    labels = [0, 0, 0, 0, 1, 1, 1, 2]
    images = np.arange(8, dtype=np.uint8).reshape(8, 1, 1, 1)
    source = Source("small", ("a", "b", "c"), 1, 1, part_of(images, labels), None, "nobody")
    order = stratified_order(np.asarray(labels), 0).tolist()
    assert order == [3, 6, 2, 1, 4, 7, 0, 5]
    prepare(source, tmp_path, test=0.25, validation=1 / 6, unlabelled=1 / 3)
    assert ids(tmp_path, "test") == [3, 6]
    assert ids(tmp_path, "validation") == [2]
    assert ids(tmp_path, "train") == [1, 4, 7]
    assert sorted(ids(tmp_path, "unlabelled")) == [0, 5]
    split = load_split(tmp_path, "unlabelled")
    assert split.images.flatten().tolist() == split.example.tolist()
    assert split.labels.tolist() == [-1, -1]


def test_nothing_is_an_empty_split(uneven: Source, tmp_path: Path) -> None:
    prepare(uneven, tmp_path)
    split = load_split(tmp_path, "unlabelled")
    assert split.images.shape == (0, 3, 4, 4)
    assert split.labels.dtype == split.example.dtype == torch.int64
    assert len(split) == len(split.labels) == len(split.example) == 0
    facts = load_description(tmp_path)
    assert facts["counts"]["unlabelled"] == 0
    assert facts["unlabelled_labels"] is False
    assert facts["split"]["unlabelled"] == 0.0


@pytest.mark.parametrize("official", [True, False])
def test_the_other_splits_do_not_depend_on_it(
    uneven: Source, tmp_path: Path, official: bool
) -> None:
    source = uneven if official else replace(uneven, test=None)
    prepare(source, tmp_path / "without", validation=0.2)
    prepare(source, tmp_path / "with", validation=0.2, unlabelled=0.5)
    for split in ("validation", "test"):
        file = f"{split}.arrow"
        assert (tmp_path / "with" / file).read_bytes() == (tmp_path / "without" / file).read_bytes()
    train, whole = ids(tmp_path / "with", "train"), ids(tmp_path / "without", "train")
    assert train == whole[: len(train)]
    assert sorted(ids(tmp_path / "with", "unlabelled")) == sorted(whole[len(train) :])
    everything = sorted(chain(*(ids(tmp_path / "with", split) for split in SPLITS)))
    assert everything == list(range(120 if official else 100))


def test_it_does_not_depend_on_the_number_of_training_examples(
    uneven: Source, tmp_path: Path
) -> None:
    for count in (20, None):
        prepare(uneven, tmp_path / str(count), train_examples=count, unlabelled=0.3)
    few, all_ = ((tmp_path / name / "unlabelled.arrow").read_bytes() for name in ("20", "None"))
    assert few == all_
    assert ids(tmp_path / "20", "train") == ids(tmp_path / "None", "train")[:20]
    prepare(uneven, tmp_path / "labelled", train_examples=20)
    assert (tmp_path / "20/train.arrow").read_bytes() == (
        tmp_path / "labelled/train.arrow"
    ).read_bytes()


def test_it_is_stratified(uneven: Source, tmp_path: Path) -> None:
    prepare(uneven, tmp_path, validation=0.1, unlabelled=0.5)
    truth = np.bincount(uneven.train.labels[ids(tmp_path, "unlabelled")], minlength=3)
    assert np.abs(truth - [30, 15, 5]).max() <= 1
    left = load_description(tmp_path)["class_counts"]["train"]
    assert np.abs(np.subtract(left, [24, 12, 4])).max() <= 2


def test_labels_are_thrown_away(uneven: Source, tmp_path: Path) -> None:
    prepare(uneven, tmp_path, unlabelled=0.4)
    with pa.memory_map(str(tmp_path / "unlabelled.arrow")) as file:
        rows = pa.ipc.open_file(file).get_batch(0)
        assert rows.schema == pa.schema(
            [("example", pa.int64()), ("label", pa.int16()), ("image", pa.binary(48))]
        )
        assert rows.num_rows == 40
        assert rows.column("label").buffers()[1].to_pybytes()[:80] == b"\xff" * 80
    facts = load_description(tmp_path)
    assert facts["unlabelled_labels"] is False
    assert facts["class_counts"]["unlabelled"] == [0, 0, 0]
    split = load_split(tmp_path, "unlabelled")
    assert torch.equal(split.images, pixels_of(uneven.train)[split.example])


def test_the_order_does_not_tell_the_classes_apart(tmp_path: Path) -> None:
    labels = np.arange(1000) % 10
    images = np.zeros((1000, 1, 1, 1), np.uint8)
    source = Source("ten", tuple("0123456789"), 1, 1, part_of(images, labels), None, "nobody")
    prepare(source, tmp_path, validation=0.0, test=0.1, unlabelled=5 / 9)

    def most_common(split: str) -> float:
        """The share of rows that are of the class met most often at their place modulo 10."""
        example = np.asarray(ids(tmp_path, split))
        held = [Counter((example[place::10] % 10).tolist()) for place in range(10)]
        return sum(max(counter.values()) for counter in held) / len(example)

    assert most_common("train") == 1  # A stratified order of balanced classes repeats itself.
    assert most_common("unlabelled") < 0.4
    # Neither does it, once the shuffle is undone, which anybody can who knows the seed.
    example = ids(tmp_path, "unlabelled")
    shuffle = stratified_order(np.zeros(len(example), np.int64), 0, 2)
    assert [sorted(example)[place] for place in shuffle] == example


def test_extra_data_are_the_split(uneven: Source, extra: Part, tmp_path: Path) -> None:
    prepare(replace(uneven, extra=extra), tmp_path / "with", validation=0.2)
    prepare(uneven, tmp_path / "without", validation=0.2)
    for split in ("train", "validation", "test"):
        file = f"{split}.arrow"
        assert (tmp_path / "with" / file).read_bytes() == (tmp_path / "without" / file).read_bytes()
    split = load_split(tmp_path / "with", "unlabelled")
    assert sorted(split.example.tolist()) == list(range(120, 160))
    assert torch.equal(split.images, pixels_of(extra)[split.example - 120])
    assert split.labels.tolist() == extra.labels[split.example - 120].tolist()
    first: Split = split.take(slice(20))
    assert np.abs(np.bincount(first.labels) - [10, 5, 5]).max() <= 1
    facts = load_description(tmp_path / "with")
    assert facts["unlabelled_labels"] is True
    assert facts["class_counts"]["unlabelled"] == [20, 10, 10]
    assert facts["split"]["unlabelled"] == "extra"


def test_extra_data_without_labels(uneven: Source, extra: Part, tmp_path: Path) -> None:
    source = replace(uneven, test=None, extra=without_labels(extra))
    prepare(source, tmp_path)
    split = load_split(tmp_path, "unlabelled")
    # No official test part: the ids follow those of the training part.
    assert sorted(split.example.tolist()) == list(range(100, 140))
    assert torch.equal(split.images, pixels_of(extra)[split.example - 100])
    assert split.labels.tolist() == [-1] * 40
    facts = load_description(tmp_path)
    assert facts["unlabelled_labels"] is False
    assert facts["class_counts"]["unlabelled"] == [0, 0, 0]


@pytest.mark.parametrize("wrong", [3, -2, -1])
def test_labels_of_extra_data_are_classes(
    uneven: Source, extra: Part, tmp_path: Path, wrong: int
) -> None:
    extra.labels[7] = wrong  # -1 for one example alone is no label either.
    low, high = min(wrong, 0), max(wrong, 2)
    with pytest.raises(ValueError, match=f"uneven: labels run from {low} to {high}, expected 0 to"):
        prepare(replace(uneven, extra=extra), tmp_path)


def test_only_the_unlabelled_split_may_lack_labels(uneven: Source, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="labels run from -1 to -1, expected 0 to 2"):
        prepare(replace(uneven, train=without_labels(uneven.train)), tmp_path)


def test_a_share_and_extra_data_do_not_go_together(
    uneven: Source, extra: Part, tmp_path: Path
) -> None:
    with pytest.raises(
        ValueError,
        match=r"unlabelled is 0\.1, but the data set has extra data .*"
        r"set unlabelled to 0, or leave the parameter 'extra' out",
    ):
        prepare(replace(uneven, extra=extra), tmp_path, unlabelled=0.1)


@pytest.mark.parametrize(("validation", "unlabelled"), [(0.5, 0.5), (0.6, 0.7), (0.0, 1.0)])
def test_nothing_left_to_train_on(
    uneven: Source, tmp_path: Path, validation: float, unlabelled: float
) -> None:
    with pytest.raises(
        ValueError,
        match=rf"the train split would be empty \(validation {validation}, test 0\.25, "
        rf"unlabelled {unlabelled}\); choose other shares",
    ):
        prepare(uneven, tmp_path, validation=validation, unlabelled=unlabelled)


def test_fewer_training_examples_are_left(uneven: Source, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"train_examples is 71, but there are 70 .*at most 70"):
        prepare(uneven, tmp_path, train_examples=71, unlabelled=0.2)
