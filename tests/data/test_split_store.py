import json
import shutil
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from PIL import Image

from advtrain.data.imagefolder import imagefolder
from advtrain.data.prepare import prepare
from advtrain.data.source import Source
from advtrain.data.store import Photographs, load_description, load_split


@pytest.fixture
def folder(uneven: Source, tmp_path: Path) -> Path:
    prepare(uneven, tmp_path)
    return tmp_path


def test_images_are_mapped_and_private(folder: Path) -> None:
    before = (folder / "train.arrow").read_bytes()
    split = load_split(folder, "train")
    split.images.zero_()
    assert (folder / "train.arrow").read_bytes() == before
    assert load_split(folder, "train").images.any()
    assert split.images.is_contiguous()


def test_split_outlives_its_file(folder: Path) -> None:
    split = load_split(folder, "test")
    kept = split.images.clone()
    (folder / "test.arrow").unlink()
    assert torch.equal(split.images, kept)


def test_rows_can_be_taken(folder: Path) -> None:
    split = load_split(folder, "test")
    assert len(split) == 20
    first = split.take(slice(5))
    assert first.example.tolist() == split.example[:5].tolist()
    rows = torch.tensor([7, 2])
    assert torch.equal(split.take(rows).images, split.images[rows])
    assert torch.equal(split.to("cpu").labels, split.labels)


def test_unknown_split(folder: Path) -> None:
    with pytest.raises(ValueError, match="no split 'val'; expected one of train, validation, test"):
        load_split(folder, "val")


@pytest.mark.parametrize("damage", ["flipped", "truncated"])
def test_damaged_file_is_named(folder: Path, damage: str) -> None:
    path = folder / "train.arrow"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content if damage == "flipped" else content[:-100])
    with pytest.raises(ValueError, match=r"train\.arrow: damaged, sha256 .* run the prepare step"):
        load_split(folder, "train")
    assert len(load_split(folder, "test")) == 20


def test_file_that_is_not_arrow(folder: Path) -> None:
    (folder / "train.arrow").write_bytes(b"something else")
    with pytest.raises(ValueError, match=r"train\.arrow: not an Arrow file"):
        load_split(folder, "train", verify=False)


def test_file_of_another_image_size(folder: Path) -> None:
    facts = load_description(folder)
    (folder / "dataset.json").write_text(json.dumps({**facts, "size": 5}))
    with pytest.raises(ValueError, match="one record batch with images of 75 bytes"):
        load_split(folder, "train")


def test_file_of_several_batches(folder: Path) -> None:
    path = folder / "train.arrow"
    with pa.memory_map(str(path)) as file:
        table = pa.ipc.open_file(file).read_all()
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=10)
    with pytest.raises(ValueError, match="expected one record batch"):
        load_split(folder, "train", verify=False)


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    """A prepared data set whose training split lists twelve photographs."""
    for name in ("cat", "dog"):
        (tmp_path / "raw/pets/train" / name).mkdir(parents=True)
        for number in range(10):
            image = Image.new("RGB", (9, 9), (number, 0, 0))
            image.save(tmp_path / "raw/pets/train" / name / f"{number}.png")
    source = imagefolder(tmp_path / "raw", folder="pets", image_size=8, decode="every_epoch")
    prepare(source, tmp_path / "out", test=0.2, validation=0.25)
    return tmp_path / "out"


def test_rows_of_photographs_can_be_taken(listed: Path) -> None:
    split = load_split(listed, "train", raw=Path("raw"))
    assert isinstance(split.stored, Photographs)
    rows = torch.tensor([7, 2])
    taken = split.take(rows).stored
    assert isinstance(taken, Photographs)
    assert taken.files.to_pylist() == [split.stored.files[row].as_py() for row in (7, 2)]
    assert taken.sizes.tolist() == split.stored.sizes[[7, 2]].tolist()
    assert taken.checksums.tolist() == split.stored.checksums[[7, 2]].tolist()
    first = split.take(slice(3)).stored
    assert len(first) == len(first.sizes) == 3
    assert first.checksums.tolist() == split.stored.checksums[:3].tolist()
    assert first.files.to_pylist() == split.stored.files[:3].to_pylist()


def test_photographs_need_a_folder(listed: Path) -> None:
    with pytest.raises(ValueError, match=r"train\.arrow: lists photographs, .*which folder of raw"):
        load_split(listed, "train")


def test_a_list_of_other_columns(listed: Path) -> None:
    shutil.copy(listed / "test.arrow", listed / "train.arrow")
    with pytest.raises(ValueError, match=r"one record batch that lists photographs.*prepare step"):
        load_split(listed, "train", raw=Path("raw"), verify=False)


def test_a_list_without_checksums_is_to_be_prepared_again(listed: Path) -> None:
    with pa.OSFile(str(listed / "train.arrow")) as file:
        batch = pa.ipc.open_file(file).get_batch(0)
    older = batch.drop_columns(["crc32"])
    path = str(listed / "train.arrow")
    with pa.OSFile(path, "wb") as sink, pa.ipc.new_file(sink, older.schema) as writer:
        writer.write_batch(older)
    with pytest.raises(ValueError, match=r"one record batch that lists photographs.*prepare step"):
        load_split(listed, "train", raw=Path("raw"), verify=False)


def test_missing_files_say_what_to_do(folder: Path) -> None:
    (folder / "train.arrow").unlink()
    with pytest.raises(FileNotFoundError, match=r"train\.arrow: not found; run the prepare step"):
        load_split(folder, "train")
    (folder / "dataset.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"dataset\.json: not found; .*prepare step first"):
        load_split(folder, "test")


@pytest.mark.parametrize(
    ("text", "message"), [("{", "not valid JSON"), ("{}", "no entry 'sha256'")]
)
def test_damaged_description(folder: Path, text: str, message: str) -> None:
    (folder / "dataset.json").write_text(text)
    with pytest.raises(ValueError, match=rf"dataset\.json: {message}.*run the prepare step again"):
        load_description(folder)
