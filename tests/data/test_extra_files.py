"""Extra images in files of other people's making: read, or refused in words."""

import os
import pickle
import tracemalloc
import zipfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from advtrain.data.cifar10 import cifar10
from advtrain.data.cifar100 import cifar100
from advtrain.data.extra_files import read_extra
from advtrain.data.prepare import prepare
from advtrain.data.source import Part
from advtrain.data.store import load_description, load_split
from tests.data.test_torchvision_sources import false_cifar

CLASSES = ("cat", "dog", "owl")
Arrays = dict[str, Any]


def read(raw: Path, extra: str) -> tuple[Part, dict[str, str]]:
    return read_extra("pets", raw, extra, CLASSES, size=4)


def images_of(part: Part) -> np.ndarray[Any, Any]:
    return np.concatenate(list(part.read(np.arange(len(part)))))


def some_images(count: int = 6, size: int = 4) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)


LABELS = np.asarray([2, 0, 1, 1, 0, 2])


def published_pickle(**changed: Any) -> Arrays:
    """What `ti_500K_pseudo_labeled.pickle` holds, smaller."""
    return {
        "data": some_images(),
        "extrapolated_targets": LABELS,
        "ti_index": np.arange(6) + 10**7,
        "prediction_model": "../vanilla",
        "prediction_model_epoch": 200,
        **changed,
    }


# --- What is understood -------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["pickle", "pkl"])
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickle_of_pseudo_labels(tmp_path: Path, protocol: int, suffix: str) -> None:
    content = published_pickle(selected=np.float32(0.5))
    path = tmp_path / f"ti.{suffix}"
    path.write_bytes(pickle.dumps(content, protocol))
    part, checksums = read(tmp_path, path.name)
    assert np.array_equal(images_of(part), some_images().transpose(0, 3, 1, 2))
    assert part.labels.tolist() == LABELS.tolist()
    assert part.labels.dtype == np.int64
    assert checksums == {path.name: f"sha256:{sha256(path.read_bytes()).hexdigest()}"}


def test_pickle_that_numpy_1_wrote(tmp_path: Path) -> None:
    # Protocol 3 names a function as two lines of text, so that the name can be replaced.
    content = pickle.dumps(published_pickle(), 3)
    assert b"cnumpy._core.multiarray\n" in content
    (tmp_path / "ti.pickle").write_bytes(
        content.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
    )
    assert read(tmp_path, "ti.pickle")[0].labels.tolist() == LABELS.tolist()


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("kind", ["u1", "<i4", ">i8", "<i8", "<u8"])
def test_arrays_of_any_layout(tmp_path: Path, kind: str, order: Any) -> None:
    images = np.asarray(some_images(), order=order)
    content = {"data": images, "extrapolated_targets": LABELS.astype(kind)}
    (tmp_path / "ti.pickle").write_bytes(pickle.dumps(content))
    np.savez(tmp_path / "g.npz", image=images, label=LABELS.astype(kind))
    for extra in ("ti.pickle", "g.npz"):
        part, _ = read(tmp_path, extra)
        assert np.array_equal(images_of(part), some_images().transpose(0, 3, 1, 2))
        assert part.labels.tolist() == LABELS.tolist()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_archive_of_generated_images(tmp_path: Path, save: Callable[..., None]) -> None:
    save(tmp_path / "1m.npz", image=some_images(), label=LABELS)
    part, checksums = read(tmp_path / "elsewhere", str(tmp_path / "1m.npz"))  # An absolute path.
    assert np.array_equal(images_of(part), some_images().transpose(0, 3, 1, 2))
    assert part.labels.tolist() == LABELS.tolist()
    digest = sha256((tmp_path / "1m.npz").read_bytes()).hexdigest()
    assert checksums == {str(tmp_path / "1m.npz"): f"sha256:{digest}"}
    # In the order that is asked for, and the images behind others in the archive.
    save(tmp_path / "more.npz", label=LABELS, other=np.zeros(1000), image=some_images())
    part, _ = read(tmp_path, "more.npz")
    (got,) = part.read(np.asarray([4, 0]))
    assert np.array_equal(got, some_images()[[4, 0]].transpose(0, 3, 1, 2))


def test_folder_without_labels(tmp_path: Path) -> None:
    folder = tmp_path / "found"
    folder.mkdir()
    for number, image in enumerate(some_images()):
        Image.fromarray(image).save(folder / f"{number}.png")
    (folder / "notes.txt").write_text("not an image")
    part, checksums = read(tmp_path, "found")
    assert part.labels.tolist() == [-1] * 6
    assert np.array_equal(images_of(part), some_images().transpose(0, 3, 1, 2))
    (folder / "5.png").rename(folder / "6.png")
    assert list(checksums) == ["found"]
    assert read(tmp_path, "found")[1] != checksums


def test_folder_of_classes(tmp_path: Path) -> None:
    # Not all classes need be there, and the label is the class's, not the folder's place.
    for number, name in enumerate(["owl", "dog", "owl"]):
        (tmp_path / "made" / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(some_images()[number]).save(tmp_path / "made" / name / f"{number}.png")
    part, _ = read(tmp_path, "made")
    assert part.labels.tolist() == [1, 2, 2]
    assert np.array_equal(images_of(part), some_images()[[1, 0, 2]].transpose(0, 3, 1, 2))


@pytest.mark.parametrize(
    ("file", "share"), [("stored.npz", 0.1), ("compressed.npz", 1.2), ("ti.pickle", 1.2)]
)
def test_images_are_in_memory_once_at_most(tmp_path: Path, file: str, share: float) -> None:
    images, labels = some_images(count=2500, size=32), np.zeros(2500, np.uint8)
    np.savez(tmp_path / "stored.npz", image=images, label=labels)
    np.savez_compressed(tmp_path / "compressed.npz", image=images, label=labels)
    content = {"data": images, "extrapolated_targets": labels}
    (tmp_path / "ti.pickle").write_bytes(pickle.dumps(content, 4))
    del content
    tracemalloc.start()
    part, _ = read_extra("pets", tmp_path, file, CLASSES, size=32)
    highest = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(part) == 2500
    # Besides, a megabyte for what reads the file.
    assert highest < share * images.nbytes + 2**20


# --- What is refused ----------------------------------------------------------------------------


def write_pickle(path: Path, content: object) -> None:
    path.write_bytes(pickle.dumps(content))


@pytest.mark.parametrize("kind", ["pickle", "npz"])
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"data": some_images() / 255}, r"the images are float64 \(6, 4, 4, 3\), expected uint8"),
        (
            {"data": some_images().transpose(0, 3, 1, 2)},
            r"the images are uint8 \(6, 3, 4, 4\), expected uint8 \(N, 4, 4, 3\); convert them",
        ),
        ({"data": some_images(size=8)}, r"the images are uint8 \(6, 8, 8, 3\), expected"),
        ({"data": some_images()[0]}, r"the images are uint8 \(4, 4, 3\)"),
        (
            {"extrapolated_targets": LABELS / 1},
            r"the labels are float64 \(6,\), expected whole numbers \(N,\); convert them",
        ),
        ({"extrapolated_targets": LABELS[:, None]}, r"the labels are int64 \(6, 1\), expected"),
        (
            {"extrapolated_targets": LABELS[:5]},
            "got 6 images and 5 labels, expected as many of both",
        ),
        (
            {"data": some_images(0), "extrapolated_targets": LABELS[:0]},
            "got 0 images and 0 labels, expected as many of both, and 1 or more",
        ),
        (
            {"extrapolated_targets": LABELS + 1},
            r"the labels run from 1 to 3, expected 0 to 2; is the file for another data set\?",
        ),
        ({"extrapolated_targets": LABELS - 1}, "the labels run from -1 to 1, expected 0 to 2"),
    ],
)
def test_wrong_arrays(tmp_path: Path, kind: str, changed: Arrays, message: str) -> None:
    content = published_pickle(**changed)
    path = tmp_path / f"extra.{kind}"
    if kind == "pickle":
        write_pickle(path, content)
    else:
        np.savez(path, image=content["data"], label=content["extrapolated_targets"])
    with pytest.raises(ValueError, match=rf"pets: .*extra\.{kind}: {message}"):
        read(tmp_path, path.name)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"data": some_images()}, "it holds 'data', no 'extrapolated_targets'"),
        ({}, "it holds nothing, no 'data'"),
        ([1, 2], "it holds a list"),
        (published_pickle(data=[1, 2]), "it holds a list where an array is expected"),
        (
            published_pickle(data=np.asarray([None, "text"], dtype=object)),
            "it holds an array of object, expected numbers",
        ),
        (published_pickle(extrapolated_targets=np.asarray(["cat"])), "it holds an array of <U3"),
        (published_pickle(data=Path("x")), r"it names pathlib\S*, which is no part of an array"),
        (published_pickle(other={1, 2}, path=Path), r"it names pathlib\S*, which is no part"),
    ],
)
def test_pickle_of_something_else(tmp_path: Path, content: object, message: str) -> None:
    write_pickle(tmp_path / "extra.pickle", content)
    with pytest.raises(
        ValueError,
        match=r"pets: .*extra\.pickle: not a pickled dict of the arrays 'data' and "
        rf"'extrapolated_targets' \({message}.*\); fetch or make it again",
    ):
        read(tmp_path, "extra.pickle")


class Runs:
    """Pickles to a call of any function."""

    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call[0], self.call[1:]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_no_code_of_a_pickle_is_run(tmp_path: Path, protocol: int) -> None:
    content = published_pickle(other=Runs(os.mkdir, str(tmp_path / "made")))
    (tmp_path / "extra.pickle").write_bytes(pickle.dumps(content, protocol))
    with pytest.raises(ValueError, match=r"it names \w+\.mkdir, which is no part of an array"):
        read(tmp_path, "extra.pickle")
    assert not (tmp_path / "made").exists()
    pickle.loads(pickle.dumps(content, protocol))
    assert (tmp_path / "made").exists()


def test_numpy_is_not_called_by_a_pickle(tmp_path: Path) -> None:
    # An array of objects over given bytes would be a pointer of the file's choosing.
    content = published_pickle(data=Runs(np.ndarray, (1,), np.dtype("O"), b"\1" * 8))
    write_pickle(tmp_path / "extra.pickle", content)
    with pytest.raises(ValueError, match=r"'NoneType' object is not callable"):
        read(tmp_path, "extra.pickle")


@pytest.mark.parametrize("kind", ["pickle", "npz"])
@pytest.mark.parametrize("damage", ["garbage", "empty", "truncated"])
def test_damaged_files(tmp_path: Path, kind: str, damage: str) -> None:
    path = tmp_path / f"extra.{kind}"
    if kind == "pickle":
        write_pickle(path, published_pickle())
    else:
        np.savez(path, image=some_images(), label=LABELS)
    whole = path.read_bytes()
    path.write_bytes({"garbage": b"something", "empty": b"", "truncated": whole[:-200]}[damage])
    with pytest.raises(ValueError, match=rf"extra\.{kind}: not a.*fetch or make it again"):
        read(tmp_path, path.name)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_flipped_bit_of_an_archive(tmp_path: Path, save: Callable[..., None]) -> None:
    path = tmp_path / "extra.npz"
    # More than is read ahead of the array's header.
    save(path, image=some_images(count=300), label=np.zeros(300, np.int64))
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("image.npy")
    content = bytearray(path.read_bytes())
    content[info.header_offset + 30 + len("image.npy") + 20 + info.compress_size - 8] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"extra\.npz: not an archive of the arrays 'image' and"):
        read(tmp_path, "extra.npz")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"images": some_images(), "label": LABELS}, "it holds 'images', 'label', no 'image'"),
        ({"image": some_images(), "y": LABELS}, "it holds 'image', 'y', no 'label'"),
        ({}, "it holds nothing, no 'image'"),
        ({"image": np.asarray([None]), "label": LABELS}, "Object arrays cannot be loaded"),
    ],
)
def test_archive_of_something_else(tmp_path: Path, content: Arrays, message: str) -> None:
    np.savez(tmp_path / "extra.npz", **content)
    with pytest.raises(
        ValueError,
        match=r"pets: .*extra\.npz: not an archive of the arrays 'image' and 'label' "
        rf"\({message}.*\); fetch or make it again",
    ):
        read(tmp_path, "extra.npz")


def test_missing_or_unknown_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"pets: .*ti\.pickle not found; .*'extra'"):
        read(tmp_path, "ti.pickle")
    (tmp_path / "extra.tar").write_bytes(b"")
    with pytest.raises(
        ValueError,
        match=r"extra\.tar is no kind of extra images; expected one of "
        r"\.npz, \.pickle, \.pkl, or a folder of images",
    ):
        read(tmp_path, "extra.tar")


def test_wrong_folders(tmp_path: Path) -> None:
    folder = tmp_path / "found"
    folder.mkdir()
    with pytest.raises(ValueError, match="pets: .*found holds no images"):
        read(tmp_path, "found")
    (folder / "horse").mkdir()
    with pytest.raises(ValueError, match=r"horse is named as no class of pets \('cat', 'dog', "):
        read(tmp_path, "found")
    (folder / "horse").rename(folder / "cat")
    with pytest.raises(ValueError, match="pets: .*cat holds no images"):
        read(tmp_path, "found")
    Image.fromarray(some_images(size=5)[0]).save(folder / "cat" / "0.png")
    part, _ = read(tmp_path, "found")
    with pytest.raises(ValueError, match=r"0\.png is 5 x 5 pixels, expected 4 x 4; resize the"):
        images_of(part)
    (folder / "cat/0.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"pets: .*0\.png cannot be decoded"):
        images_of(part)
    Image.fromarray(some_images()[0]).save(folder / "1.png")
    with pytest.raises(ValueError, match="found holds both images and folders; put all images"):
        read(tmp_path, "found")


# --- As a parameter of CIFAR --------------------------------------------------------------------


@pytest.mark.parametrize(("name", "function"), [("cifar10", cifar10), ("cifar100", cifar100)])
def test_cifar_with_extra_images(
    name: str, function: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    false_cifar(name, tmp_path, monkeypatch)
    write_pickle(
        tmp_path / "ti.pickle", {"data": some_images(size=32), "extrapolated_targets": LABELS}
    )
    without, source = function(tmp_path), function(tmp_path, extra="ti.pickle")
    assert without.extra is None
    assert set(source.checksums) - set(without.checksums) == {"ti.pickle"}
    prepare(source, tmp_path / "out", validation=0.0)
    official = len(source.train) + len(source.test)
    split = load_split(tmp_path / "out", "unlabelled")
    assert sorted(split.example.tolist()) == list(range(official, official + 6))
    assert split.labels.tolist() == LABELS[split.example - official].tolist()
    assert np.array_equal(
        split.images, some_images(size=32).transpose(0, 3, 1, 2)[split.example - official]
    )
    facts = load_description(tmp_path / "out")
    assert facts["unlabelled_labels"] is True
    digest = sha256((tmp_path / "ti.pickle").read_bytes()).hexdigest()
    assert facts["source_checksums"]["ti.pickle"] == f"sha256:{digest}"


def test_published_cifar10_with_extra_images(
    published: Callable[[str], Path], tmp_path: Path
) -> None:
    np.savez(tmp_path / "1m.npz", image=some_images(size=32), label=LABELS)
    source = cifar10(published("cifar10"), extra=str(tmp_path / "1m.npz"))
    prepare(source, tmp_path / "out", train_examples=100, test_examples=100, validation=0.01)
    split = load_split(tmp_path / "out", "unlabelled")
    assert sorted(split.example.tolist()) == list(range(60_000, 60_006))
    assert split.labels.tolist() == LABELS[split.example - 60_000].tolist()


def test_published_cifar10_stripped_of_labels(
    published: Callable[[str], Path], tmp_path: Path
) -> None:
    source = cifar10(published("cifar10"))
    prepare(source, tmp_path, train_examples=100, test_examples=100, unlabelled=0.02)
    split = load_split(tmp_path, "unlabelled")
    assert len(split) == 1000
    assert set(split.labels.tolist()) == {-1}
    truth = np.bincount(source.train.labels[split.example])
    assert np.abs(truth - 100).max() <= 1
    assert not set(split.example.tolist()) & set(load_split(tmp_path, "train").example.tolist())
