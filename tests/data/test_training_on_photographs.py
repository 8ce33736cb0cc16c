from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from advtrain.data.imagefolder import imagefolder
from advtrain.data.prepare import prepare
from advtrain.data.store import load_split
from advtrain.methods.consistency import Consistency
from advtrain.methods.method import Method
from advtrain.methods.natural import Natural
from advtrain.methods.pgd_at import PgdAt
from advtrain.threat import ThreatModel
from advtrain.training.loop import Trained, TrainingData, train

CPU = torch.device("cpu")
SIZE = 8

pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]


def photographs(folder: Path, *, plain: bool) -> Path:
    """Two classes, dark and light; plain ones look the same in every crop."""
    generator = np.random.default_rng(0)
    for name, level in (("dark", 40), ("light", 190)):
        (folder / "raw/shades/train" / name).mkdir(parents=True)
        for number in range(12):
            pixels = generator.integers(0, 60, (1 if plain else 20, 1 if plain else 30, 3))
            pixels = np.broadcast_to(pixels + level, (20, 30, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"raw/shades/train/{name}/{number}.png")
    return folder / "raw"


def prepared(raw: Path, out: Path, decode: str) -> TrainingData:
    source = imagefolder(raw, folder="shades", image_size=SIZE, decode=decode)
    prepare(source, out, test=0.1, validation=0.3)
    return TrainingData(*(load_split(out, name, raw=raw) for name in ("train", "validation")))


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return nn.Sequential(
            *(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten()),
            *(nn.Dropout(0.2), nn.Linear(4 * (SIZE - 2) ** 2, 2)),
        )


def trained_on(
    data: TrainingData,
    workspace: Path,
    method: Method | None = None,
    on_epoch: Callable[[dict[str, float]], None] = lambda row: None,
    **recipe: object,
) -> Trained:
    return train(
        *(network(), method or PgdAt(steps=1), ThreatModel("linf", 0.05), data, 0, workspace),
        *(on_epoch, CPU),
        **{"epochs": 3, "batch_size": 5, "learning_rate": 0.05, "validation_steps": 1} | recipe,
    )  # fmt: skip


def assert_same(one: Trained, other: Trained) -> None:
    assert one.history == other.history
    for weights, others in ((one.last, other.last), (one.best, other.best)):
        assert all(torch.equal(weights[name], others[name]) for name in weights)


@pytest.mark.parametrize(
    ("method", "recipe"),
    [
        (PgdAt(steps=1), {"flip": True, "crop_padding": 1}),
        (Consistency(steps=1), {"flip": True, "cutout": 3}),
        (Natural(), {"label_smoothing": 0.1, "averaging": "swa", "swa_start": 0.3}),
    ],
    ids=["pgd_at", "consistency", "smoothed_swa"],
)
def test_where_all_crops_look_the_same_it_is_training_on_pixels(
    tmp_path: Path, method: Method, recipe: dict[str, object]
) -> None:
    raw = photographs(tmp_path, plain=True)
    pixels, decoded = (
        trained_on(
            prepared(raw, tmp_path / decode, decode), tmp_path / f"{decode}.w", method, **recipe
        )
        for decode in ("once", "every_epoch")
    )
    assert_same(decoded, pixels)


def test_random_crops_are_trained_on(tmp_path: Path) -> None:
    raw = photographs(tmp_path, plain=False)
    data = prepared(raw, tmp_path / "out", "every_epoch")
    seen: list[Tensor] = []

    class Looking(Natural):
        def perturb(self, model, batch, threat, noise) -> Tensor:
            seen.append(batch.x[batch.example.argsort()])
            return super().perturb(model, batch, threat, noise)

    trained_on(data, tmp_path / "w", Looking(), epochs=2, batch_size=len(data.train))
    first, second = seen
    assert (first != second).flatten(1).any(1).all()


def test_the_number_of_workers_changes_no_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = prepared(photographs(tmp_path, plain=False), tmp_path / "out", "every_epoch")
    runs = []
    for count in ("0", "2"):
        monkeypatch.setenv("ADVTRAIN_WORKERS", count)
        runs.append(trained_on(data, tmp_path / count, flip=True))
    assert_same(*runs)


class StoppedError(Exception):
    """Stands for anything that ends a training."""


def test_a_resumed_training_ends_with_the_same_bits(tmp_path: Path) -> None:
    data = prepared(photographs(tmp_path, plain=False), tmp_path / "out", "every_epoch")
    whole = trained_on(data, tmp_path / "whole")

    def stop(row: dict[str, float]) -> None:
        if row["epoch"] == 2:
            raise StoppedError

    with pytest.raises(StoppedError):
        trained_on(data, tmp_path / "stopped", on_epoch=stop)
    assert_same(trained_on(data, tmp_path / "stopped"), whole)


def test_a_photograph_that_changed_ends_the_training(tmp_path: Path) -> None:
    raw = photographs(tmp_path, plain=False)
    data = prepared(raw, tmp_path / "out", "every_epoch")
    path = raw / data.train.stored.files[3].as_py()
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(ValueError, match=rf"shades: {path} has .* bytes, but had"):
        trained_on(data, tmp_path / "w")


def test_a_photograph_of_other_content_ends_the_validation(tmp_path: Path) -> None:
    raw = photographs(tmp_path, plain=False)
    data = prepared(raw, tmp_path / "out", "every_epoch")
    path = raw / data.validation.stored.files[0].as_py()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"shades: {path} has as many bytes .* other content"):
        trained_on(data, tmp_path / "w")


def test_extra_data_need_pixels(tmp_path: Path) -> None:
    data = prepared(photographs(tmp_path, plain=False), tmp_path / "out", "every_epoch")
    data = data._replace(extra=data.validation)
    with pytest.raises(ValueError, match="needed as pixels; set the data set's decode to once"):
        trained_on(data, tmp_path / "w", extra_fraction=0.4)
