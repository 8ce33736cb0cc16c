"""The modules that read torchvision's files: on small false files, and on the published ones."""

import hashlib
import importlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
from scipy.io import savemat
from torchvision import datasets

from advtrain.data.prepare import prepare
from advtrain.data.source import Part, Source
from advtrain.data.store import load_description, load_split

SIZES = {"cifar10": 32, "cifar100": 32, "svhn": 32, "mnist": 28, "fashion_mnist": 28}
CLASSES = {"cifar10": 10, "cifar100": 100, "svhn": 10, "mnist": 10, "fashion_mnist": 10}


def read(name: str, raw: Path) -> Source:
    function: Callable[[Path], Source] = getattr(
        importlib.import_module(f"advtrain.data.{name}"), name
    )
    return function(raw)


def images_of(part: Part) -> np.ndarray[Any, Any]:
    return np.concatenate(list(part.read(np.arange(len(part)))))


def false_images(count: int, channels: int, size: int, seed: int) -> np.ndarray[Any, Any]:
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (count, channels, size, size), np.uint8)


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def false_cifar(name: str, raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = datasets.CIFAR10 if name == "cifar10" else datasets.CIFAR100
    key = "labels" if name == "cifar10" else "fine_labels"
    folder = raw / dataset.base_folder
    folder.mkdir()
    for seed, listed in enumerate(("train_list", "test_list")):
        entries = []
        for number, (file, _) in enumerate(getattr(dataset, listed)):
            images = false_images(4, 3, 32, seed=10 * seed + number)
            entry = {"data": images.reshape(4, -1), key: [0, 1, 2, 3]}
            (folder / file).write_bytes(pickle.dumps(entry))
            entries.append([file, md5(folder / file)])
        monkeypatch.setattr(dataset, listed, entries)
    meta = dict(dataset.meta)
    names = [f"class {number}" for number in range(CLASSES[name])]
    (folder / meta["filename"]).write_bytes(pickle.dumps({meta["key"]: names}))
    monkeypatch.setattr(dataset, "meta", {**meta, "md5": md5(folder / meta["filename"])})


def false_idx(name: str, raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = raw / ("MNIST/raw" if name == "mnist" else "FashionMNIST/raw")
    folder.mkdir(parents=True)
    for seed, (stem, count) in enumerate((("train", 6), ("t10k", 4))):
        header = b"\0\0\x08\x03" + np.asarray([count, 28, 28], ">u4").tobytes()
        images = false_images(count, 1, 28, seed=10 * seed).tobytes()
        (folder / f"{stem}-images-idx3-ubyte").write_bytes(header + images)
        header = b"\0\0\x08\x01" + np.asarray([count], ">u4").tobytes()
        (folder / f"{stem}-labels-idx1-ubyte").write_bytes(header + bytes(range(count)))
    module = importlib.import_module(f"advtrain.data.{name}")
    monkeypatch.setattr(module, "MD5", {file: md5(folder / file) for file in module.MD5})


def false_svhn(name: str, raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = dict(datasets.SVHN.split_list)
    for seed, part in enumerate(("train", "test")):
        url, file, _ = listed[part]
        images = false_images(4, 3, 32, seed=10 * seed)
        labels = np.asarray([[10], [1], [2], [3]], np.uint8)  # The files write 0 as 10.
        savemat(raw / file, {"X": images.transpose(2, 3, 1, 0), "y": labels})
        listed[part] = [url, file, md5(raw / file)]
    monkeypatch.setattr(datasets.SVHN, "split_list", listed)


FALSE = {
    "cifar10": false_cifar,
    "cifar100": false_cifar,
    "mnist": false_idx,
    "fashion_mnist": false_idx,
    "svhn": false_svhn,
}


@pytest.fixture(params=sorted(FALSE))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise URLError("no network")

    for module in ("cifar", "mnist"):
        monkeypatch.setattr(f"torchvision.datasets.{module}.download_and_extract_archive", fail)
    monkeypatch.setattr("torchvision.datasets.svhn.download_url", fail)


@pytest.mark.usefixtures("no_network")
def test_false_files_are_read(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FALSE[name](name, tmp_path, monkeypatch)
    source = read(name, tmp_path)
    assert source.name == name
    assert len(source.classes) == CLASSES[name]
    assert source.size == SIZES[name]
    assert source.test is not None
    first = false_images(6 if "mnist" in name else 4, source.channels, source.size, seed=0)
    assert np.array_equal(images_of(source.train)[: len(first)], first)
    held = false_images(4, source.channels, source.size, seed=10)
    assert np.array_equal(images_of(source.test), held)
    assert source.test.labels.tolist() == [0, 1, 2, 3]
    assert all((tmp_path / file).is_file() for file in source.checksums)
    assert all(digest.startswith("md5:") for digest in source.checksums.values())


@pytest.mark.usefixtures("no_network")
def test_missing_files_without_network(name: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        read(name, tmp_path)
    message = str(caught.value)
    assert message.startswith(f"{name}: {tmp_path}")
    assert "not found, and the download failed" in message
    assert "no network" in message
    assert f"under {tmp_path}, or run again with network" in message


@pytest.mark.usefixtures("no_network")
def test_damaged_files_are_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FALSE[name](name, tmp_path, monkeypatch)
    for file in read(name, tmp_path).checksums:
        path = tmp_path / file
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(ValueError, match=rf"{name}: .*{path.name} is damaged, md5 is"):
            read(name, tmp_path)
        path.write_bytes(content)


def test_file_that_is_not_idx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    false_idx("mnist", tmp_path, monkeypatch)
    images = tmp_path / "MNIST/raw/train-images-idx3-ubyte"
    images.write_bytes(b"\0\0\x08\x01" + images.read_bytes()[4:])
    module = importlib.import_module("advtrain.data.mnist")
    monkeypatch.setitem(module.MD5, images.name, md5(images))
    with pytest.raises(ValueError, match="magic number 0x801, expected 0x803"):
        read("mnist", tmp_path)


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "fashion_mnist", "mnist"])
def test_published_files(name: str, published: Callable[[str], Path], tmp_path: Path) -> None:
    source = read(name, published(name))
    assert source.test is not None
    assert (len(source.train) + len(source.test)) == (60_000 if "cifar" in name else 70_000)
    assert np.bincount(source.test.labels).size == CLASSES[name]
    prepare(source, tmp_path, train_examples=1000, test_examples=500)
    facts = load_description(tmp_path)
    assert facts["counts"]["train"] == 1000
    train, test = load_split(tmp_path, "train"), load_split(tmp_path, "test")
    assert train.example.max() < len(source.train) <= test.example.min()
    # The published means of the training set, which the normalisation tables carry.
    mean = train.images.float().mean(dim=(0, 2, 3)) / 255
    expected = {
        "cifar10": (0.4914, 0.4822, 0.4465),
        "cifar100": (0.5071, 0.4865, 0.4409),
        "mnist": (0.1307,),
        "fashion_mnist": (0.2860,),
    }[name]
    assert mean.tolist() == pytest.approx(expected, abs=0.03)
    counts = np.asarray(facts["class_counts"]["train"])
    shares = np.bincount(source.train.labels) / len(source.train)
    assert np.abs(counts - 1000 * shares).max() <= 2
