"""Split a data set once, by seed, and write it as Arrow files."""

import json
import mmap
import os
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from advtrain.data.image_files import ListedPart
from advtrain.data.source import NO_LABEL, Labels, Part, Positions, Source
from advtrain.data.store import DESCRIPTION, sha256
from advtrain.params.quantities import Count, Share, Whole

TRAIN, TEST, UNLABELLED = 0, 1, 2
"""Stream numbers: the orders of the parts are independent."""

LISTED = ("train", "validation")
"""The splits of a `ListedPart` that are written as lists of files."""

Contents = dict[str, pa.Array]
"""The columns that hold the images, or say where they are."""


def prepare(
    source: Source,
    out: Path,
    *,
    validation: Share = 0.1,
    test: Share = 0.25,
    train_examples: Count | None = None,
    test_examples: Count | None = None,
    split_seed: Whole = 0,
    unlabelled: Share = 0.0,
) -> None:
    """Write `train`, `validation`, `test` and `unlabelled.arrow`, and `dataset.json`.

    Splits are stratified, seeded and disjoint. The official test part, where there is one, is the
    test split and nothing else; otherwise a share of the whole is. Rows lie in a seeded stratified
    order, so that the first n rows of a split are a stratified sample of it, and a smaller subset
    lies within a larger one. The same arguments give the same bytes.

    The split `unlabelled` is what semi-supervised training adds: a share of the training part,
    whose labels are thrown away, or the extra data of the source, or nothing. What has no label is
    labelled -1 and lies in a random order, for a stratified one would tell the classes apart; the
    `example` still names the position in the source, where the truth can be looked up on purpose.
    `dataset.json` says under `unlabelled_labels` whether the split has labels, and its class
    counts are those of the labels that it has.

    Columns: `example` int64 (position in the source; those of an official test part follow those
    of the training part, and those of extra data follow both), `label` int16, `image`
    fixed_size_binary (C x H x W uint8), as one uncompressed record batch, so that the file maps to
    one tensor.

    A training part that is listed (`ListedPart`) gives other columns to `train` and `validation`:
    `photograph`, the file relative to the folder of raw data, `bytes`, its size, and `crc32` uint32
    of its content, in place of the image: each file of these splits is read once, and not decoded.
    `dataset.json` says under `photographs` which splits they are and how to crop them.

    Args:
        source: the data set.
        out: folder to write to; it is made if need be.
        validation: share of the training part, after the test split, that is held out; it does
            not depend on `train_examples`.
        test: share of the whole that is the test split if there is no official one.
        train_examples: train on so many only.
        test_examples: test on so many only.
        split_seed: of the orders.
        unlabelled: share of the training part, after the test split, that is stripped of its
            labels; it does not depend on `train_examples`, and the other splits but that of
            training do not depend on it. The training split loses its last rows to it: with
            `train_examples` low enough it is the same with and without.

    Raises:
        ValueError: if a subset is larger than what there is, a split would be empty, or there is
            both a share without labels and extra data, or a share without labels of a listed part.
    """
    if isinstance(source.train, ListedPart) and unlabelled:
        raise ValueError(
            f"{source.name}: unlabelled is {unlabelled:g}, but photographs that are decoded at "
            "every epoch cannot be labelled by a teacher; set unlabelled to 0, or decode to once"
        )
    if source.extra is not None and unlabelled:
        raise ValueError(
            f"{source.name}: unlabelled is {unlabelled:g}, but the data set has extra data of its "
            "own; set unlabelled to 0, or leave the parameter 'extra' out"
        )
    order = stratified_order(source.train.labels, split_seed, TRAIN)
    if source.test is None:
        held_out = round(test * len(order))
        test_part, test_rows, offset = source.train, order[:held_out], 0
        order = order[held_out:]
    else:
        test_part, offset = source.test, len(source.train)
        test_rows = stratified_order(source.test.labels, split_seed, TEST)
    held_out = round(validation * len(order))
    stripped = len(order) - round(unlabelled * len(order))
    train_rows, validation_rows = order[held_out:stripped], order[:held_out]
    train_rows = _first(source.name, "train_examples", train_rows, train_examples)
    test_rows = _first(source.name, "test_examples", test_rows, test_examples)
    for name, rows in (("train", train_rows), ("test", test_rows)):
        if not len(rows):
            raise ValueError(
                f"{source.name}: the {name} split would be empty (validation {validation}, "
                f"test {test}, unlabelled {unlabelled}); choose other shares"
            )

    out.mkdir(parents=True, exist_ok=True)
    (out / DESCRIPTION).unlink(missing_ok=True)  # It is written last: it says that all is there.
    splits = {
        "train": (source.train, train_rows, 0),
        "validation": (source.train, validation_rows, 0),
        "test": (test_part, test_rows, offset),
        "unlabelled": _unlabelled(source, order[stripped:], split_seed),
    }
    for name, (part, rows, first) in splits.items():
        if isinstance(part, ListedPart) and name in LISTED:
            contents = _listing(part, rows)
        else:
            contents = _pixels(source, part, rows, name, out)
        _write(source, part.labels[rows], rows + first, contents, out / f"{name}.arrow")
    description = {
        "name": source.name,
        "classes": list(source.classes),
        "channels": source.channels,
        "size": source.size,
        "counts": {name: len(rows) for name, (_, rows, _) in splits.items()},
        "class_counts": {
            name: _class_counts(source, part.labels[rows])
            for name, (part, rows, _) in splits.items()
        },
        "unlabelled_labels": bool((splits["unlabelled"][0].labels != NO_LABEL).any()),
        "sha256": {f"{name}.arrow": sha256(out / f"{name}.arrow") for name in splits},
        "split": {
            "validation": validation,
            "test": "official" if source.test is not None else test,
            "train_examples": train_examples,
            "test_examples": test_examples,
            "split_seed": split_seed,
            "unlabelled": "extra" if source.extra is not None else unlabelled,
        },
        "source_checksums": dict(source.checksums),
        "citation": source.citation,
    }
    if isinstance(source.train, ListedPart):
        description["photographs"] = {"splits": list(LISTED), **source.train.crops}
    text = json.dumps(description, indent=2, ensure_ascii=False) + "\n"
    partial = out / f"{DESCRIPTION}.partial"
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, out / DESCRIPTION)


def _unlabelled(source: Source, rows: Positions, seed: int) -> tuple[Part, Positions, int]:
    """What the unlabelled split is made of: a part, the rows of it, and the id of its first."""
    if source.extra is None:
        # By position first: the order of the training part tells the classes apart.
        rows = np.sort(rows)[stratified_order(np.zeros_like(rows), seed, UNLABELLED)]
        return Part(np.full_like(source.train.labels, NO_LABEL), source.train.read), rows, 0
    official = len(source.train) + (len(source.test) if source.test is not None else 0)
    order = stratified_order(source.extra.labels, seed, UNLABELLED)
    return source.extra, order, official


def stratified_order(labels: Labels, seed: int, stream: int = 0) -> Positions:
    """Order the examples so that every run of consecutive ones is stratified.

    Within a class the order is random; the k-th of n examples of a class lies at the height
    (k + u) / n of the whole, u random per class, so that any run of examples holds each class in
    its share, to within one or two examples.

    Args:
        labels: (N,) class of each example.
        seed: of the order.
        stream: orders of different streams are independent.

    Returns:
        (N,) positions, a permutation.
    """
    # Raw draws of a bit generator never change between NumPy releases; those of methods may.
    bits = np.random.PCG64(np.random.SeedSequence([seed, stream]))
    key = bits.random_raw(len(labels))
    order = np.lexsort((key, labels))
    classes, starts, counts = np.unique(labels[order], return_index=True, return_counts=True)
    lead = bits.random_raw(len(classes)) / 2.0**64
    rank = np.arange(len(labels)) - np.repeat(starts, counts)
    height = (rank + np.repeat(lead, counts)) / np.repeat(counts, counts)
    permutation: Positions = order[np.argsort(height, kind="stable")].astype(np.int64)
    return permutation


def _first(name: str, parameter: str, rows: Positions, count: int | None) -> Positions:
    if count is not None and count > len(rows):
        raise ValueError(
            f"{name}: {parameter} is {count}, but there are {len(rows)} examples to choose from "
            f"once the other splits are taken; ask for at most {len(rows)}"
        )
    return rows[:count]


def _pixels(source: Source, part: Part, rows: Positions, split: str, out: Path) -> Contents:
    """Decode images through a scratch file: never all of them are in memory."""
    shape = (source.channels, source.size, source.size)
    width, written = int(np.prod(shape)), 0
    with TemporaryFile(dir=out) as scratch:
        for images in part.read(rows):
            if images.dtype != np.uint8 or images.shape[1:] != shape:
                raise ValueError(
                    f"{source.name}: got images {images.dtype} {images.shape[1:]}, "
                    f"expected uint8 {shape}; the source module is wrong"
                )
            scratch.write(np.ascontiguousarray(images).data)
            written += len(images)
        if written != len(rows):
            raise ValueError(
                f"{source.name}: got {written} images for {split}, expected {len(rows)}; "
                "the source module is wrong"
            )
        scratch.flush()
        # An empty file cannot be mapped.
        pixels = mmap.mmap(scratch.fileno(), 0, access=mmap.ACCESS_READ) if written else b""
    buffers = [None, pa.py_buffer(pixels)]
    return {"image": pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), len(rows), buffers)}


def _listing(part: ListedPart, rows: Positions) -> Contents:
    """Name the files of the rows, whose content is left where it is, and what tells a change."""
    return {
        "photograph": pa.array((part.files[row] for row in rows), pa.string(), size=len(rows)),
        "bytes": pa.array(part.sizes[rows], pa.int64()),
        "crc32": pa.array(part.checksums(rows), pa.uint32()),
    }


def _write(
    source: Source, labels: Labels, examples: Positions, contents: Contents, path: Path
) -> None:
    """Write one split as one record batch."""
    columns = {
        "example": pa.array(examples, pa.int64()),
        "label": pa.array(_labels(source, labels, path.stem), pa.int16()),
        **contents,
    }
    batch = pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))
    partial = path.with_suffix(".partial")
    with pa.OSFile(str(partial), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    os.replace(partial, path)


def _labels(source: Source, labels: Labels, split: str) -> npt.NDArray[np.int16]:
    classes = len(source.classes)
    none_known = split == "unlabelled" and bool((labels == NO_LABEL).all())
    if not none_known and len(labels) and (labels.min() < 0 or labels.max() >= classes):
        raise ValueError(
            f"{source.name}: labels run from {labels.min()} to {labels.max()}, "
            f"expected 0 to {classes - 1}; the source files are damaged"
        )
    return labels.astype(np.int16)


def _class_counts(source: Source, labels: Labels) -> list[int]:
    known = labels[labels != NO_LABEL]
    counts: list[int] = np.bincount(known, minlength=len(source.classes)).tolist()
    return counts
