"""Weights that torchvision publishes, from a file made here: nothing is downloaded."""

import hashlib
import io
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchvision import models

from advtrain.models.resnet import resnet
from advtrain.models.small_cnn import small_cnn
from advtrain.training.pretrained import start_from

NAME = "resnet18/IMAGENET1K_V1"


@pytest.fixture(scope="module")
def published() -> dict[str, Tensor]:
    """Return the weights of a file as old as torchvision's, without the counters of BatchNorm."""
    torch.manual_seed(7)
    weights = models.resnet18(weights=None, num_classes=10).state_dict()
    return {n: w for n, w in weights.items() if not n.endswith("num_batches_tracked")}


@pytest.fixture
def file(published: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put the file where torchvision would, under a name that holds its hash."""
    buffer = io.BytesIO()
    torch.save(published, buffer)
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    url = f"https://download.invalid/models/resnet18-{digest[:8]}.pth"
    monkeypatch.setattr(models.ResNet18_Weights.IMAGENET1K_V1.value, "url", url)
    path = tmp_path / "hub/checkpoints" / url.rsplit("/", 1)[1]
    path.parent.mkdir(parents=True)
    path.write_bytes(buffer.getvalue())
    return path


def network(classes: int = 10, channels: int = 3, depth: int = 18) -> nn.Sequential:
    normalisation = "imagenet" if channels == 3 else "none"
    return resnet(
        channels=channels, size=16, classes=classes, depth=depth, normalisation=normalisation
    )


def test_the_weights_land_in_torchvisions_network(file: Path, published: dict[str, Tensor]) -> None:
    model = network()
    start_from(model, NAME)
    own = model[1].state_dict()
    assert all(own[name].equal(weight) for name, weight in published.items())


def test_a_head_of_other_classes_stays_fresh(file: Path, published: dict[str, Tensor]) -> None:
    model = network(classes=4)
    fresh = {name: weight.clone() for name, weight in model[1].state_dict().items()}
    start_from(model, NAME)
    own = model[1].state_dict()
    for name, weight in published.items():
        assert own[name].equal(fresh[name] if name.startswith("fc.") else weight), name


def test_other_images_are_refused(file: Path) -> None:
    with pytest.raises(ValueError, match=r"conv1.weight has the shape \(64, 3, 7, 7\), the model"):
        start_from(network(channels=1), NAME)


@pytest.mark.parametrize("model", [network(depth=34), small_cnn(channels=3, size=16, classes=10)])
def test_another_network_is_refused(file: Path, model: nn.Module) -> None:
    with pytest.raises(ValueError, match="no part of the model has the weights conv1.weight ..."):
        start_from(model, NAME)


def test_a_damaged_file_is_refused(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    with pytest.raises(ValueError, match=r"damaged, its sha256 begins with .*; delete it and run"):
        start_from(network(), NAME)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet19/IMAGENET1K_V1", "torchvision has no model 'resnet19'"),
        ("resnet18/IMAGENET1K_V9", "publishes IMAGENET1K_V1 for resnet18, not 'IMAGENET1K_V9'"),
        ("resnet18/DEFAULT", "publishes IMAGENET1K_V1 for resnet18, not 'DEFAULT'"),
    ],
)
def test_a_name_that_torchvision_does_not_know(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"torchvision:{name}: .*{message}"):
        start_from(network(), name)


def test_without_the_file_and_without_a_network(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refused)
    file.unlink()
    with pytest.raises(
        OSError, match=f"no route to host.*; fetch it elsewhere and put it at {file}"
    ):
        start_from(network(), NAME)


def test_the_file_is_downloaded_once(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = file.read_bytes()
    asked = []

    def download(url: str, target: str, *, progress: bool) -> None:
        asked.append(url)
        Path(target).write_bytes(content)

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    file.unlink()
    start_from(network(), NAME)
    start_from(network(), NAME)
    assert asked == [models.ResNet18_Weights.IMAGENET1K_V1.url]
