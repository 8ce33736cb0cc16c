import ast
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from advtrain.data import augment as module
from advtrain.data.augment import POLICY, Policy, augment
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


@pytest.mark.parametrize(("height", "width"), [(8, 8), (5, 9)])
@pytest.mark.parametrize("side", [1, 2, 3, 4, 100])
def test_cutout_blanks_one_square_that_is_cut_at_the_border(
    side: int, height: int, width: int
) -> None:
    images = images_of(3000, channels=2, height=height, width=width)
    got = augment(images, noise_of(3000), crop_padding=0, flip=False, cutout=side)
    expected = set()
    for row in range(height):
        for column in range(width):
            square = torch.zeros(height, width, dtype=torch.bool)
            top, left = row - side // 2, column - side // 2
            square[max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)] = True
            expected.add(tuple(square.flatten().tolist()))
    blank = got == 0
    assert torch.equal(blank[:, 0], blank[:, 1])
    assert {tuple(square) for square in blank[:, 0].flatten(1).tolist()} == expected
    assert torch.equal(got, (images / 255).masked_fill(blank, 0))


def test_the_centre_of_the_square_is_uniform() -> None:
    images = images_of(8000, channels=1, height=4, width=4)
    got = augment(images, noise_of(8000), crop_padding=0, flip=False, cutout=1)
    # 500 are expected of each of the 16 pixels, with a standard deviation of 22.
    assert (got == 0).sum(0).sub(500).abs().max() < 90


def test_the_square_goes_with_no_crop() -> None:
    noise = noise_of(2000)
    got = augment(images_of(2000, channels=1), noise, crop_padding=0, flip=False, cutout=1)
    crops = (noise.uniform((3,))[:, :2] * 8).long()
    # They agree by chance, 1 in 8; drawn from the same numbers they would always.
    assert ((got == 0).nonzero()[:, 2:] == crops).float().mean() < 0.2


def test_crops_and_flips_are_the_same_with_and_without_cutout() -> None:
    images, noise = images_of(50), noise_of(50)
    without = augment(images, noise, crop_padding=2, flip=True)
    got = augment(images, noise, crop_padding=2, flip=True, cutout=3)
    changed = got != without
    assert changed.any(1).flatten(1).sum(1).max() <= 9
    assert (got[changed] == 0).all()
    alone = augment(torch.ones(50, 3, 8, 8), noise, crop_padding=0, flip=False, cutout=3)
    assert torch.equal(got, without * alone)


POLICIES = [name for name in get_args(Policy) if name != "none"]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_policy_does_not_depend_on_the_batch_or_the_generators(
    policy: Policy, channels: int
) -> None:
    images, noise = images_of(40, channels=channels), noise_of(40)
    found = torch.get_rng_state()
    whole = augment(images, noise, crop_padding=1, flip=True, policy=policy, cutout=2)
    assert torch.equal(torch.get_rng_state(), found)
    assert whole.dtype == torch.float32
    assert whole.is_contiguous()
    assert whole.shape == images.shape
    assert 0 <= whole.min() < whole.max() <= 1
    with torch.random.fork_rng():
        torch.manual_seed(99)
        rows = torch.tensor([31, 3, 17])
        part = augment(
            images[rows], noise.take(rows), crop_padding=1, flip=True, policy=policy, cutout=2
        )
    assert torch.equal(part, whole[rows])


@pytest.mark.parametrize("policy", POLICIES)
def test_a_policy_meets_the_cropped_and_flipped_image(policy: Policy) -> None:
    images, noise = images_of(40), noise_of(40)
    base = augment(images, noise, crop_padding=2, flip=True)
    again = augment(
        base.mul(255).round().to(torch.uint8), noise, crop_padding=0, flip=False, policy=policy
    )
    got = augment(images, noise, crop_padding=2, flip=True, policy=policy)
    assert torch.equal(got, again)
    assert not torch.equal(got, base)
    # The square is cut last: nothing that the policy does fills it.
    cut = augment(images, noise, crop_padding=2, flip=True, policy=policy, cutout=4)
    square = augment(torch.ones(40, 3, 8, 8), noise, crop_padding=0, flip=False, cutout=4)
    assert torch.equal(cut, got * square)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_policy_changes_an_image_in_many_ways(policy: Policy) -> None:
    image = images_of(1).expand(300, -1, -1, -1)
    got = augment(image, noise_of(300), crop_padding=0, flip=False, policy=policy)
    kinds = {tuple(changed.flatten().tolist()) for changed in got}
    assert len(kinds) > 30
    other = augment(image, noise_of(300, seed=1), crop_padding=0, flip=False, policy=policy)
    assert not torch.equal(got, other)


def test_policies_are_those_of_torchvision() -> None:
    from torchvision.transforms import v2

    images, noise = images_of(30), noise_of(30)
    for policy, transform in [
        ("autoaugment", v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10)),
        ("randaugment", v2.RandAugment()),
    ]:
        got = augment(images, noise, crop_padding=0, flip=False, policy=policy)
        for row, (high, low) in enumerate(noise.fold_in(POLICY).uniform((2,)).tolist()):
            with torch.random.fork_rng([]):
                torch.manual_seed(int(high * 2**48 + low * 2**24))
                assert torch.equal(got[row], transform(images[row]) / 255)


@pytest.mark.parametrize(
    "images", [images_of(2, channels=2), images_of(2).float() / 255], ids=["2 channels", "floats"]
)
def test_images_that_a_policy_cannot_change_are_named(images: Tensor) -> None:
    with pytest.raises(ValueError, match="changes uint8 images of 1 or 3 channels, got torch"):
        augment(images, noise_of(2), crop_padding=0, flip=False, policy="autoaugment")


def test_an_unknown_policy_is_named() -> None:
    with pytest.raises(ValueError, match="policy 'augmix' is unknown; expected none, autoaug"):
        augment(images_of(2), noise_of(2), crop_padding=0, flip=False, policy="augmix")


def test_an_empty_batch_meets_every_option() -> None:
    got = augment(
        images_of(0), noise_of(0), crop_padding=2, flip=True, cutout=2, policy="randaugment"
    )
    assert got.shape == (0, 3, 8, 8)
    assert got.dtype == torch.float32


def test_torchvision_is_imported_by_a_policy_alone() -> None:
    # It takes seconds, and every command that trains or validates imports the module.
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    imported = [ast.unparse(part) for part in tree.body if isinstance(part, ast.ImportFrom)]
    assert imported
    assert not any("torchvision" in line for line in imported)
