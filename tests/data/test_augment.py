import pytest
import torch
from torch import Tensor
from torch.nn import functional

from advtrain.data.augment import augment
from advtrain.noise import Noise


def images_of(count: int, *, channels: int = 3, height: int = 8, width: int = 8) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    # From 1: a zero is padding.
    shape = (count, channels, height, width)
    return torch.randint(1, 256, shape, generator=generator, dtype=torch.uint8)


def noise_of(count: int, seed: int = 0) -> Noise:
    return Noise(seed, torch.arange(count))


def one_by_one(images: Tensor, noise: Noise, padding: int, flip: bool) -> Tensor:
    """The same, written for one image at a time."""
    height, width = images.shape[2:]
    results = []
    for image, (down, right, side) in zip(images, noise.uniform((3,)).tolist(), strict=True):
        padded = functional.pad(image, [padding] * 4)
        top, left = int(down * (2 * padding + 1)), int(right * (2 * padding + 1))
        crop = padded[:, top : top + height, left : left + width]
        results.append(crop.flip(2) if flip and side < 0.5 else crop)
    return torch.stack(results) / 255


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("padding", [0, 2, 4])
@pytest.mark.parametrize(("channels", "height", "width"), [(1, 8, 8), (3, 32, 32), (3, 5, 9)])
def test_equals_one_image_at_a_time(
    padding: int, flip: bool, channels: int, height: int, width: int
) -> None:
    images = images_of(40, channels=channels, height=height, width=width)
    got = augment(images, noise_of(40), crop_padding=padding, flip=flip)
    assert got.dtype == torch.float32
    assert got.is_contiguous()
    assert torch.equal(got, one_by_one(images, noise_of(40), padding, flip))


def test_without_augmentation_only_scales() -> None:
    images = images_of(3)
    got = augment(images, noise_of(3), crop_padding=0, flip=False)
    assert torch.equal(got, images / 255)


def test_floats_are_kept_as_they_are() -> None:
    images = images_of(6).double() / 255
    got = augment(images, noise_of(6), crop_padding=0, flip=False)
    assert torch.equal(got, images.float())
    cropped = augment(images, noise_of(6), crop_padding=2, flip=True)
    assert torch.equal(cropped, augment(images_of(6), noise_of(6), crop_padding=2, flip=True))


def test_the_input_is_not_changed() -> None:
    images = images_of(4).float() / 255
    before = images.clone()
    augment(images, noise_of(4), crop_padding=1, flip=True).zero_()
    augment(images_of(4), noise_of(4), crop_padding=0, flip=False).zero_()
    assert torch.equal(images, before)


def test_an_example_does_not_depend_on_its_batch() -> None:
    images, noise = images_of(20), noise_of(20)
    whole = augment(images, noise, crop_padding=3, flip=True)
    rows = torch.tensor([11, 3, 17])
    assert torch.equal(
        augment(images[rows], noise.take(rows), crop_padding=3, flip=True), whole[rows]
    )
    layout = images.contiguous(memory_format=torch.channels_last)
    assert torch.equal(augment(layout, noise, crop_padding=3, flip=True), whole)


def test_crops_and_flips_are_all_met_and_change_with_the_stream() -> None:
    image = images_of(1, channels=1, height=4, width=4).expand(2000, -1, -1, -1)
    got = augment(image, noise_of(2000), crop_padding=1, flip=True)
    assert len({tuple(image.flatten().tolist()) for image in got}) == 2 * 9
    flips = augment(image, noise_of(2000), crop_padding=0, flip=True)
    flipped = (flips != image / 255).flatten(1).any(1).float().mean()
    assert 0.45 < flipped < 0.55
    other = augment(image, noise_of(2000, seed=1), crop_padding=1, flip=True)
    assert not torch.equal(got, other)


def test_empty_batch() -> None:
    got = augment(images_of(0), noise_of(0), crop_padding=2, flip=True)
    assert got.shape == (0, 3, 8, 8)
    assert got.dtype == torch.float32
