import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision import transforms
from torchvision.transforms.v2 import functional

from advtrain.data.imagefolder import imagefolder
from advtrain.data.prepare import prepare
from advtrain.data.store import Photographs, Split, load_split
from advtrain.data.stream import RATIOS, TRIES, fetch, random_box, workers
from advtrain.noise import Noise

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")
SIZE = 16

pytestmark = [
    # The machine of a test may have one core only.
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
    # Python 3.12 warns of every fork of a process with threads; pyarrow has started one.
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Two classes of ten smooth photographs of several shapes, for training alone."""
    generator = np.random.default_rng(0)
    for name in ("cat", "dog"):
        folder = tmp_path / "raw/pets/train" / name
        folder.mkdir(parents=True)
        for number in range(10):
            coarse = generator.integers(0, 256, (4, 4, 3), np.uint8)
            shape = (40 + 3 * number, 60 - 2 * number)
            Image.fromarray(coarse).resize(shape).save(folder / f"{number}.JPEG", format="jpeg")
    return tmp_path / "raw"


@pytest.fixture
def folder(raw: Path, tmp_path: Path) -> Path:
    source = imagefolder(raw, folder="pets", image_size=SIZE, decode="every_epoch")
    prepare(source, tmp_path / "out", test=0.2, validation=0.25)
    return tmp_path / "out"


@pytest.fixture
def train(raw: Path, folder: Path) -> Split:
    return load_split(folder, "train", raw=raw)


@pytest.fixture
def decoding(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    return lambda count: monkeypatch.setenv("ADVTRAIN_WORKERS", str(count))


def noise_of(split: Split, epoch: int = 1) -> Callable[[Tensor], Noise]:
    return lambda rows: Noise(7, split.example[rows]).fold_in(epoch)


def fetched(
    split: Split, chosen: list[list[int]], noise: Callable[[Tensor], Noise] | None, **given: int
) -> list[Tensor]:
    rows = [torch.tensor(some) for some in chosen]
    return list(fetch(split.stored, rows, noise_of=noise, device=CPU, **given))


def path_of(split: Split, row: int) -> Path:
    assert isinstance(split.stored, Photographs)
    return split.stored.raw / split.stored.files[row].as_py()


def test_pixels_are_yielded_by_rows() -> None:
    pixels = torch.arange(5 * 3 * 2 * 2, dtype=torch.uint8).reshape(5, 3, 2, 2)
    split = Split(pixels, torch.zeros(5), torch.arange(5))
    first, second = fetched(split, [[3, 1], [0]], None)
    assert torch.equal(first, pixels[[3, 1]])
    assert torch.equal(second, pixels[[0]])
    (viewed,) = fetched(split, [[3, 1]], None, views=2)
    assert torch.equal(viewed, pixels[[3, 1, 3, 1]])


def test_photographs_are_not_pixels(train: Split) -> None:
    assert len(train) == 12
    with pytest.raises(ValueError, match=r"pets: .* decoded at every epoch, .* set .* to once"):
        _ = train.images
    assert len(train.to("cpu").take(slice(3)).stored) == 3


def test_centres_are_those_that_would_be_prepared(raw: Path, train: Split, tmp_path: Path) -> None:
    source = imagefolder(raw, folder="pets", image_size=SIZE)
    prepare(source, tmp_path / "pixels", test=0.2, validation=0.25)
    pixels = load_split(tmp_path / "pixels", "train")
    assert train.example.tolist() == pixels.example.tolist()
    assert train.labels.tolist() == pixels.labels.tolist()
    (images,) = fetched(train, [list(range(12))], None)
    assert torch.equal(images, pixels.images)


def test_the_test_split_is_pixels(folder: Path, raw: Path, tmp_path: Path) -> None:
    prepare(imagefolder(raw, folder="pets", image_size=SIZE), tmp_path / "pixels", test=0.2)
    test, pixels = load_split(folder, "test"), load_split(tmp_path / "pixels", "test")
    assert torch.equal(test.images, pixels.images)


@pytest.mark.parametrize("number", [0, 1, 3])
def test_the_number_of_workers_changes_no_pixel(
    train: Split, decoding: Callable[[int], None], number: int
) -> None:
    chosen = [[4, 0, 9], [11, 5, 2], [7]]
    decoding(0)
    expected = fetched(train, chosen, noise_of(train))
    decoding(number)
    got = fetched(train, chosen, noise_of(train))
    assert [images.shape for images in got] == [(3, 3, SIZE, SIZE)] * 2 + [(1, 3, SIZE, SIZE)]
    assert all(torch.equal(*both) for both in zip(got, expected, strict=True))
    assert not multiprocessing.active_children()


def test_the_minibatch_changes_no_pixel(train: Split) -> None:
    (whole,) = fetched(train, [list(range(12))], noise_of(train))
    pieces = fetched(train, [[5], [2, 11, 8], [0]], noise_of(train))
    assert torch.equal(torch.cat(pieces), whole[[5, 2, 11, 8, 0]])


def test_each_epoch_has_its_own_crops(train: Split) -> None:
    (first,), (again,), (second,) = (
        fetched(train, [[0, 1, 2]], noise_of(train, epoch)) for epoch in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert all((one != other).any() for one, other in zip(first, second, strict=True))


def test_each_view_has_its_own_crop(train: Split) -> None:
    def two_views(rows: Tensor) -> Noise:
        return Noise(7, torch.cat([train.example[rows], train.example[rows] + 1000])).fold_in(1)

    chosen = [[0, 1, 2], [3, 4]]
    viewed = fetched(train, chosen, two_views, views=2)
    once = fetched(train, chosen, noise_of(train))
    for images, expected in zip(viewed, once, strict=True):
        assert torch.equal(images[: len(expected)], expected)
        assert (images[len(expected) :] != expected).flatten(1).any(1).all()


def test_a_crop_is_the_box_resized_as_torchvision_does(train: Split) -> None:
    noise = noise_of(train)(torch.tensor([3])).fold_in(3)  # the stream of crops
    photograph = Image.open(path_of(train, 3)).convert("RGB")
    box = random_box(*photograph.size, noise.uniform((TRIES + 1, 2))[0].numpy(), 0.08)
    left, top, right, bottom = box
    expected = functional.resized_crop(
        photograph, top, left, bottom - top, right - left, [SIZE, SIZE]
    )
    (images,) = fetched(train, [[3]], noise_of(train))
    assert np.array_equal(images[0].permute(1, 2, 0).numpy(), np.asarray(expected))


def test_boxes_are_distributed_as_those_of_torchvision() -> None:
    width, height, count = 500, 375, 2000
    drawn = Noise(0, torch.arange(count)).uniform((TRIES + 1, 2)).numpy()
    boxes = np.asarray([random_box(width, height, one, 0.08) for one in drawn], dtype=float)
    torch.manual_seed(0)
    image = torch.empty(3, height, width)
    theirs = np.asarray(
        [
            transforms.RandomResizedCrop.get_params(image, [0.08, 1.0], list(RATIOS))
            for _ in range(count)
        ],
        dtype=float,
    )

    def facts(left, top, wide, tall) -> list[np.ndarray]:
        return [left, top, wide * tall / width / height, np.log(wide / tall)]

    ours = facts(*boxes[:, :2].T, *(boxes[:, 2:] - boxes[:, :2]).T)
    their_facts = facts(*theirs[:, [1, 0, 3, 2]].T)
    for our, their in zip(ours, their_facts, strict=True):
        error = np.sqrt((our.var() + their.var()) / count)
        assert abs(our.mean() - their.mean()) < 4 * error
        assert abs(our.std() / their.std() - 1) < 0.1


@pytest.mark.parametrize(("width", "height"), [(500, 375), (30, 400), (400, 30), (1, 1), (1, 50)])
@pytest.mark.parametrize("least_area", [0.0, 0.08, 1.0])
def test_a_box_lies_in_the_photograph(width: int, height: int, least_area: float) -> None:
    for drawn in Noise(1, torch.arange(50)).uniform((TRIES + 1, 2)).numpy():
        left, top, right, bottom = random_box(width, height, drawn, least_area)
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height


def test_a_narrow_photograph_gives_its_centre() -> None:
    drawn = np.full((TRIES + 1, 2), 0.5, np.float32)
    assert random_box(300, 30, drawn, 1.0) == (130, 0, 170, 30)
    assert random_box(30, 300, drawn, 1.0) == (0, 130, 30, 170)


def test_the_global_generators_are_left_alone(train: Split) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    fetched(train, [[0], [1]], noise_of(train))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("number", [0, 2])
def test_a_damaged_photograph_is_named(
    raw: Path, train: Split, decoding: Callable[[int], None], number: int, tmp_path: Path
) -> None:
    decoding(number)
    path = path_of(train, 5)
    path.write_bytes(b"x" * path.stat().st_size)
    source = imagefolder(raw, folder="pets", image_size=SIZE, decode="every_epoch")
    prepare(source, tmp_path / "damaged", test=0.2, validation=0.25)
    train = load_split(tmp_path / "damaged", "train", raw=raw)
    with pytest.raises(ValueError, match=rf"^pets: {path} cannot be decoded .*replace the file"):
        fetched(train, [[0, 1], [5], [2]], noise_of(train))
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("number", [0, 2])
def test_a_photograph_of_another_size_is_named(
    train: Split, decoding: Callable[[int], None], number: int
) -> None:
    decoding(number)
    path = path_of(train, 5)
    size = path.stat().st_size
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(
        ValueError, match=rf"^pets: {path} has {size + 4} bytes, but had {size} .*prepare"
    ):
        fetched(train, [[5]], None)


@pytest.mark.parametrize("number", [0, 2])
def test_a_photograph_of_other_content_is_named(
    train: Split, decoding: Callable[[int], None], number: int
) -> None:
    decoding(number)
    path = path_of(train, 5)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2].ljust(len(content), b"\0"))
    fetched(train, [[0, 1], [2]], noise_of(train))
    with pytest.raises(
        ValueError, match=rf"^pets: {path} has as many bytes .*other content.*put back.* prepare"
    ):
        fetched(train, [[0, 1], [5], [2]], noise_of(train))
    path.write_bytes(content)
    fetched(train, [[5]], noise_of(train))


def test_a_missing_photograph_is_named(train: Split) -> None:
    path = path_of(train, 2)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=rf"^pets: {path} not found, .*correct raw_data"):
        fetched(train, [[2]], noise_of(train))


def test_an_epoch_that_is_left_ends_its_workers(
    train: Split, decoding: Callable[[int], None]
) -> None:
    decoding(2)
    rows = [torch.tensor([row]) for row in range(8)]
    stream = fetch(train.stored, rows, noise_of=noise_of(train), device=CPU)
    next(stream)
    assert multiprocessing.active_children()
    stream.close()  # type: ignore[attr-defined]
    assert not multiprocessing.active_children()


def test_a_worker_that_dies_is_told_with_a_mend(
    train: Split, decoding: Callable[[int], None]
) -> None:
    decoding(1)
    rows = [torch.tensor([row]) for row in range(12)]

    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    deadly = replace(train.stored, files=_Deadly(die))  # type: ignore[type-var]
    with pytest.raises(RuntimeError, match="DataLoader worker|ADVTRAIN_WORKERS"):
        list(fetch(deadly, rows, noise_of=None, device=CPU))


class _Deadly:
    """A column of files whose reader dies."""

    def __init__(self, die: Callable[..., None]) -> None:
        self.die = die

    def __getitem__(self, row: int) -> None:
        self.die()


KILLED = """
import os, signal, sys, time
from pathlib import Path
import torch
from advtrain.data.store import load_split
from advtrain.data.stream import fetch
split = load_split(Path(sys.argv[1]), "train", raw=Path(sys.argv[2]))
rows = [torch.tensor([row]) for row in range(12)]
stream = fetch(split.stored, rows, noise_of=None, device=torch.device("cpu"))
next(stream)
import multiprocessing
print(*(child.pid for child in multiprocessing.active_children()), flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone ends a child with its parent")
def test_workers_die_with_a_training_that_is_killed(folder: Path, raw: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", KILLED, str(folder), str(raw)],
        env={**os.environ, "ADVTRAIN_WORKERS": "2", "PYTHONPATH": str(ROOT / "src")},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    with process.stdout:
        children = [int(pid) for pid in process.stdout.readline().split()]
        assert len(children) == 2
        process.kill()
        process.wait()
        # Their own watch looks at the parent every five seconds; here they must be gone before.
        deadline = time.monotonic() + 3
        while any(_is_alive(pid) for pid in children) and time.monotonic() < deadline:
            time.sleep(0.05)
    assert not any(_is_alive(pid) for pid in children)


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_the_number_of_workers_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ADVTRAIN_WORKERS", raising=False)
    assert workers() >= 1
    monkeypatch.setenv("ADVTRAIN_WORKERS", "0")
    assert workers() == 0
    for wrong in ("-1", "many", "1.5"):
        monkeypatch.setenv("ADVTRAIN_WORKERS", wrong)
        with pytest.raises(ValueError, match=f"ADVTRAIN_WORKERS: expected .* got '{wrong}'"):
            workers()


def test_nothing_is_asked_for(train: Split) -> None:
    assert fetched(train, [], noise_of(train)) == []


def test_published_sample(published: Callable[[str], Path], tmp_path: Path) -> None:
    raw = published("imagenette_sample")
    source = imagefolder(raw, folder="imagenette-sample", image_size=96, decode="every_epoch")
    prepare(source, tmp_path, train_examples=60, test_examples=50, validation=0.1)
    train = load_split(tmp_path, "train", raw=raw)
    (images,) = fetched(train, [list(range(20))], noise_of(train))
    assert images.shape == (20, 3, 96, 96)
    assert images.float().std(dim=(1, 2, 3)).min() > 5
    assert load_split(tmp_path, "test").images.shape == (50, 3, 96, 96)


@pytest.mark.gpu
def test_a_cuda_device_gets_the_same_pixels(train: Split, decoding: Callable[[int], None]) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    cuda = torch.device("cuda")
    decoding(2)
    chosen = [torch.tensor(some) for some in ([4, 0, 9], [11, 5, 2], [7])]
    expected = list(fetch(train.stored, chosen, noise_of=noise_of(train), device=CPU))
    there = train.to(cuda)
    rows = [some.to(cuda) for some in chosen]
    got = list(fetch(there.stored, rows, noise_of=noise_of(there), device=cuda))
    assert all(images.device.type == "cuda" for images in got)
    assert all(torch.equal(a.cpu(), b) for a, b in zip(got, expected, strict=True))
