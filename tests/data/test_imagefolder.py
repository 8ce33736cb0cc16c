import shutil
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision import transforms

from advtrain.data.image_files import checksums
from advtrain.data.imagefolder import imagefolder
from advtrain.data.prepare import prepare
from advtrain.data.source import CHUNK, Part
from advtrain.data.store import Photographs, load_description, load_split

SHAPES = [(40, 30), (30, 40), (64, 33), (28, 28), (20, 25)]


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Two classes in ImageNet's layout, with images of several shapes, modes and formats."""
    generator = np.random.default_rng(0)
    for part, count in (("train", 5), ("val", 2)):
        for name in ("cat", "dog"):
            folder = tmp_path / "pets" / part / name
            folder.mkdir(parents=True)
            for number, shape in enumerate(SHAPES[:count]):
                image = Image.fromarray(generator.integers(0, 256, (*shape, 3), np.uint8))
                if number == 1:
                    image.convert("L").save(folder / f"{number}.png")
                else:
                    image.save(folder / f"{number}.JPEG", format="jpeg")
    (tmp_path / "pets" / "train" / "cat" / "notes.txt").write_text("not an image")
    return tmp_path


def decoded(part: Part, positions: list[int]) -> np.ndarray:
    return np.concatenate(list(part.read(np.asarray(positions))))


def test_layout(raw: Path) -> None:
    source = imagefolder(raw, folder="pets", image_size=21)
    assert source.name == "pets"
    assert source.classes == ("cat", "dog")
    assert (source.channels, source.size) == (3, 21)
    assert source.train.labels.tolist() == [0] * 5 + [1] * 5
    assert source.test is not None
    assert source.test.labels.tolist() == [0, 0, 1, 1]
    assert set(source.checksums) == {"pets/train", "pets/val"}


@pytest.mark.parametrize(
    ("image_size", "shorter_side", "resized"), [(21, None, 24), (16, 16, 16), (16, 33, 33)]
)
def test_crops_are_those_of_torchvision(
    raw: Path, image_size: int, shorter_side: int | None, resized: int
) -> None:
    source = imagefolder(raw, folder="pets", image_size=image_size, shorter_side=shorter_side)
    crop = transforms.Compose([transforms.Resize(resized), transforms.CenterCrop(image_size)])
    files = sorted((raw / "pets/train/cat").glob("?.*"))
    for got, file in zip(decoded(source.train, [0, 1, 2, 3, 4]), files, strict=True):
        expected = np.asarray(crop(Image.open(file).convert("RGB"))).transpose(2, 0, 1)
        assert np.array_equal(got, expected)


def test_positions_are_read_in_their_order(raw: Path) -> None:
    source = imagefolder(raw, folder="pets", image_size=8)
    everything = decoded(source.train, list(range(10)))
    assert np.array_equal(decoded(source.train, [7, 0, 3]), everything[[7, 0, 3]])


def test_without_val_the_test_split_is_a_share(raw: Path, tmp_path: Path) -> None:
    for file in (raw / "pets/val").rglob("*.*"):
        file.unlink()
    for folder in (raw / "pets/val").iterdir():
        folder.rmdir()
    (raw / "pets/val").rmdir()
    source = imagefolder(raw, folder="pets", image_size=8)
    assert source.test is None
    prepare(source, tmp_path / "out", test=0.4, validation=0.0)
    counts = load_description(tmp_path / "out")["counts"]
    assert counts == {"train": 6, "validation": 0, "test": 4, "unlabelled": 0}


def test_damaged_image_is_named(raw: Path, tmp_path: Path) -> None:
    path = raw / "pets/train/dog/2.JPEG"
    path.write_bytes(path.read_bytes()[:200])
    source = imagefolder(raw, folder="pets", image_size=8)
    with pytest.raises(ValueError, match=r"dog/2\.JPEG cannot be decoded .*replace the file"):
        prepare(source, tmp_path / "out")
    path.write_bytes(b"no image at all")
    with pytest.raises(ValueError, match=r"dog/2\.JPEG cannot be decoded"):
        prepare(source, tmp_path / "out")


def test_changed_files_change_the_checksum(raw: Path) -> None:
    before = imagefolder(raw, folder="pets").checksums
    assert imagefolder(raw, folder="pets").checksums == before
    (raw / "pets/val/cat/0.JPEG").rename(raw / "pets/val/cat/9.JPEG")
    after = imagefolder(raw, folder="pets").checksums
    assert after["pets/train"] == before["pets/train"]
    assert after["pets/val"] != before["pets/val"]


def test_wrong_folders(raw: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"train not found; .*the parameter 'folder'"):
        imagefolder(raw, folder="plants")
    with pytest.raises(ValueError, match="shorter_side 5 is less than image_size 8"):
        imagefolder(raw, folder="pets", image_size=8, shorter_side=5)
    (raw / "pets/val/dog").rename(raw / "pets/val/hound")
    with pytest.raises(ValueError, match="hold different classes, such as 'dog'"):
        imagefolder(raw, folder="pets")
    (raw / "pets/val/hound").rename(raw / "pets/val/dog")
    for file in (raw / "pets/val/dog").iterdir():
        file.unlink()
    with pytest.raises(ValueError, match=r"dog holds no images"):
        imagefolder(raw, folder="pets")
    (raw / "empty/train").mkdir(parents=True)
    with pytest.raises(ValueError, match="holds no folders"):
        imagefolder(raw, folder="empty")


def test_photographs_are_listed(raw: Path, tmp_path: Path) -> None:
    source = imagefolder(
        raw, folder="pets", image_size=8, shorter_side=10, decode="every_epoch", least_area=0.25
    )
    prepare(source, tmp_path / "out", validation=0.4)
    facts = load_description(tmp_path / "out")
    assert facts["photographs"] == {
        "splits": ["train", "validation"],
        "shorter_side": 10,
        "least_area": 0.25,
    }
    whole = sorted(path for path in (raw / "pets/train").rglob("?.*"))
    for name, count in (("train", 6), ("validation", 4)):
        listed = load_split(tmp_path / "out", name, raw=raw).stored
        assert isinstance(listed, Photographs)
        assert (listed.name, listed.raw, listed.size) == ("pets", raw, 8)
        assert (listed.shorter_side, listed.least_area) == (10, 0.25)
        files = [raw / file for file in listed.files.to_pylist()]
        assert len(files) == count
        assert [file.stat().st_size for file in files] == listed.sizes.tolist()
        assert [zlib.crc32(file.read_bytes()) for file in files] == listed.checksums.tolist()
        assert set(files) <= set(whole)
        whole = [file for file in whole if file not in files]
    assert not whole
    assert load_split(tmp_path / "out", "test").images.shape == (4, 3, 8, 8)


def test_a_list_is_of_the_same_examples_as_pixels(raw: Path, tmp_path: Path) -> None:
    for decode in ("once", "every_epoch"):
        source = imagefolder(raw, folder="pets", image_size=8, decode=decode)
        prepare(source, tmp_path / decode, validation=0.4)
    facts, listed_facts = (load_description(tmp_path / one) for one in ("once", "every_epoch"))
    assert "photographs" not in facts
    for name in ("classes", "size", "counts", "class_counts", "source_checksums"):
        assert listed_facts[name] == facts[name]
    assert listed_facts["sha256"]["test.arrow"] == facts["sha256"]["test.arrow"]
    for name in ("train", "validation"):
        pixels = load_split(tmp_path / "once", name)
        listed = load_split(tmp_path / "every_epoch", name, raw=raw)
        assert listed.example.tolist() == pixels.example.tolist()
        assert listed.labels.tolist() == pixels.labels.tolist()


def test_a_list_is_the_same_wherever_the_photographs_lie(raw: Path, tmp_path: Path) -> None:
    shutil.copytree(raw / "pets", tmp_path / "elsewhere/pets")
    for name, place in (("one", raw), ("other", tmp_path / "elsewhere")):
        prepare(imagefolder(place, folder="pets", decode="every_epoch"), tmp_path / name)
    for file in ("train.arrow", "validation.arrow", "dataset.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "other" / file).read_bytes()


def test_other_content_of_the_same_size_is_another_list(raw: Path, tmp_path: Path) -> None:
    for name in ("before", "after"):
        prepare(imagefolder(raw, folder="pets", decode="every_epoch"), tmp_path / name)
        for path in (raw / "pets/train").rglob("?.*"):
            content = path.read_bytes()
            path.write_bytes(content[: len(content) // 2].ljust(len(content), b"\0"))
    for file in ("train.arrow", "validation.arrow", "dataset.json"):
        before, after = (tmp_path / name / file for name in ("before", "after"))
        assert before.read_bytes() != after.read_bytes()


def test_the_content_of_many_files_is_told_in_their_order(tmp_path: Path) -> None:
    contents = [number.to_bytes(2) * 10 for number in range(CHUNK + 10)]
    for number, content in enumerate(contents):
        (tmp_path / str(number)).write_bytes(content)
    found = checksums([tmp_path / str(number) for number in range(len(contents))])
    assert found.tolist() == [zlib.crc32(content) for content in contents]
    assert checksums([]).tolist() == []


def test_photographs_that_are_not_listed_are_not_read(raw: Path, tmp_path: Path) -> None:
    source = imagefolder(raw, folder="pets", decode="every_epoch")
    prepare(source, tmp_path / "few", train_examples=2, validation=0.2)
    few = [
        load_split(tmp_path / "few", name, raw=raw).stored.files.to_pylist()
        for name in ("train", "validation")
    ]
    for path in (raw / "pets/train").rglob("?.*"):
        if path.relative_to(raw).as_posix() not in few[0] + few[1]:
            path.unlink()
    prepare(source, tmp_path / "again", train_examples=2, validation=0.2)
    facts, others = (load_description(tmp_path / name) for name in ("few", "again"))
    assert facts["sha256"] == others["sha256"]


def test_no_photograph_of_a_list_is_decoded_by_prepare(raw: Path, tmp_path: Path) -> None:
    path = raw / "pets/train/dog/2.JPEG"
    path.write_bytes(b"no image at all")
    prepare(imagefolder(raw, folder="pets", decode="every_epoch"), tmp_path / "out")
    assert load_description(tmp_path / "out")["counts"]["train"] == 9


def test_photographs_cannot_be_stripped_of_their_labels(raw: Path, tmp_path: Path) -> None:
    source = imagefolder(raw, folder="pets", decode="every_epoch")
    with pytest.raises(ValueError, match=r"pets: unlabelled is 0\.2, .* set unlabelled to 0, or"):
        prepare(source, tmp_path / "out", unlabelled=0.2)
    prepare(source, tmp_path / "out")
    assert len(load_split(tmp_path / "out", "unlabelled")) == 0


def test_published_sample(published: Callable[[str], Path], tmp_path: Path) -> None:
    raw = published("imagenette_sample")
    source = imagefolder(raw, folder="imagenette-sample", image_size=64)
    assert len(source.classes) == 10
    prepare(source, tmp_path, train_examples=50, test_examples=50)
    facts = load_description(tmp_path)
    assert facts["class_counts"]["test"] == [5] * 10
    test = load_split(tmp_path, "test")
    assert test.images.shape == (50, 3, 64, 64)
    assert test.images.float().std(dim=(1, 2, 3)).min() > 5
