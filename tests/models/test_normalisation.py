import pytest
import torch
from torch import nn

from advtrain.models.normalisation import TABLES, Normalize, normalize
from advtrain.params.signatures import signature

MODELS = ["small_cnn", "preact_resnet", "wide_resnet", "resnet"]


def images_of(count: int, channels: int, size: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, channels, size, size, generator=generator)


@pytest.mark.parametrize("table", sorted(TABLES))
def test_tables_shift_and_scale_each_channel(table: str) -> None:
    mean, std = TABLES[table]
    assert len(mean) == len(std)
    x = images_of(2, len(mean))
    got = normalize(table, len(mean))(x)
    for channel, (shift, scale) in enumerate(zip(mean, std, strict=True)):
        assert torch.allclose(got[:, channel], (x[:, channel] - shift) / scale)


def test_both_cifar_tables_are_there() -> None:
    assert TABLES["cifar10"][1] == (0.2471, 0.2435, 0.2616)
    assert TABLES["cifar10_image_std"][1] == (0.2023, 0.1994, 0.2010)
    assert TABLES["cifar10"][0] == TABLES["cifar10_image_std"][0]


def test_none_changes_nothing() -> None:
    x = images_of(2, 3)
    assert torch.equal(normalize("none", 3)(x), x)


@pytest.mark.parametrize("channels", [1, 3])
def test_per_image_standardises_each_image(channels: int) -> None:
    x = images_of(5, channels) * torch.linspace(0.1, 1, 5)[:, None, None, None]
    got = normalize("per_image", channels)(x).flatten(1)
    assert torch.allclose(got.mean(1), torch.zeros(5), atol=1e-5)
    assert torch.allclose(got.std(1, correction=0), torch.ones(5), atol=1e-5)


def test_per_image_is_finite_at_a_constant_image() -> None:
    x = torch.full((2, 3, 4, 4), 0.5, requires_grad=True)
    out = normalize("per_image", 3)(x)
    (gradient,) = torch.autograd.grad(out[:, 0].sum(), x)
    assert torch.equal(out, torch.zeros_like(out))
    assert gradient.isfinite().all()
    # TensorFlow's bound: the deviation counts as at least 1 / sqrt(C H W) grey levels.
    step = torch.zeros(1, 3, 4, 4)
    step[0, 0, 0, 0] = 1e-6
    scale = normalize("per_image", 3)(0.5 + step).max() / (1e-6 * 47 / 48)
    assert scale.item() == pytest.approx(255 * 48**0.5, rel=0.05)


def test_tables_travel_with_the_weights() -> None:
    trained = nn.Sequential(normalize("cifar10", 3), nn.Flatten())
    other = nn.Sequential(normalize("cifar10_image_std", 3), nn.Flatten())
    other.load_state_dict(trained.state_dict())
    x = images_of(2, 3)
    assert torch.equal(other(x), trained(x))
    with pytest.raises(RuntimeError, match=r"Unexpected key.*0\.mean"):
        nn.Sequential(normalize("none", 3), nn.Flatten()).load_state_dict(trained.state_dict())


def test_memory_format_is_kept() -> None:
    x = images_of(2, 3).contiguous(memory_format=torch.channels_last)
    for name in ("cifar10", "per_image", "none"):
        assert normalize(name, 3)(x).is_contiguous(memory_format=torch.channels_last)


def test_tables_are_not_trained() -> None:
    assert not list(Normalize((0.5,), (0.5,)).parameters())


@pytest.mark.parametrize(
    ("table", "channels", "message"),
    [
        ("cifar", 3, "normalisation 'cifar' is unknown; expected none, per_image, cifar10"),
        ("cifar10", 1, "for 3 channels, the images have 1; expected none, per_image, mnist"),
        ("mnist", 3, "for 1 channels, the images have 3; expected none, per_image, cifar10"),
    ],
)
def test_wrong_tables(table: str, channels: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        normalize(table, channels)


@pytest.mark.parametrize("model", MODELS)
def test_signatures_offer_every_table(model: str) -> None:
    assert signature("models", model)["normalisation"].choices == ("none", "per_image", *TABLES)
