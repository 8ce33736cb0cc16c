"""Random augmentation of a batch: crop and flip, policies of colours and shapes, cutout."""

from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from advtrain.noise import Noise

Policy = Literal["none", "autoaugment", "randaugment"]
"""A random sequence of changes of colour and shape; `autoaugment` is that found for CIFAR-10."""

# Streams beside that of crops and flips, which is the same with and without the others.
POLICY, CUTOUT = 1, 2


def augment(
    images: Tensor,
    noise: Noise,
    *,
    crop_padding: int,
    flip: bool,
    cutout: int = 0,
    policy: Policy = "none",
) -> Tensor:
    """Crop and flip at random, apply a policy, cut a square out; in this order.

    The crop is of the old size, from the image padded with zeros; the flip, left to right, has
    probability 1/2. The order is that of Tack et al. 2022, whose stronger augmentation is crop,
    flip, AutoAugment and a cutout of half the image's side.

    What an example meets depends on its image and its noise alone; each of the four is the same
    with and without the others.

    Args:
        images: (N, C, H, W), uint8 or float in [0, 1].
        noise: of the N examples; the caller folds in the epoch and the purpose.
        crop_padding: pixels on each side; 0 is no crop.
        flip: whether to flip.
        cutout: side of the square in pixels (DeVries and Taylor 2017): its centre is uniform in the
            image, what lies outside is lost, its pixels become 0; 0 is no square.
        policy: AutoAugment (Cubuk et al. 2019) or RandAugment (Cubuk et al. 2020) as torchvision
            has them; needs uint8 images of 1 or 3 channels.

    Returns:
        (N, C, H, W) float32 in [0, 1], contiguous.

    Raises:
        ValueError: for images that a policy cannot change, or another policy.
    """
    if crop_padding or flip:
        images = _gather(images, noise.uniform((3,)), crop_padding, flip)
    if policy != "none":
        images = _apply(policy, images, noise.fold_in(POLICY))
    floats = images.to(torch.float32).contiguous()
    floats = floats if images.is_floating_point() else floats.div(255)
    if cutout:
        floats = floats.masked_fill(_square(images, noise.fold_in(CUTOUT), cutout), 0)
    return floats


def _gather(images: Tensor, drawn: Tensor, padding: int, flip: bool) -> Tensor:
    """Read each output pixel from its place in the padded image: one gather for the batch."""
    count, channels, height, width = images.shape
    down, right, side = drawn.unbind(1)
    rows = torch.arange(height, device=images.device).expand(count, -1)
    columns = torch.arange(width, device=images.device).expand(count, -1)
    if flip:
        columns = torch.where(side[:, None] < 0.5, columns.flip(1), columns)
    rows = rows + (down * (2 * padding + 1)).long()[:, None]
    columns = columns + (right * (2 * padding + 1)).long()[:, None]
    places = rows[:, :, None] * (width + 2 * padding) + columns[:, None, :]
    padded = functional.pad(images, [padding] * 4).flatten(2)
    gathered = padded.gather(2, places.flatten(1)[:, None].expand(-1, channels, -1))
    return gathered.reshape(images.shape)


def _square(images: Tensor, noise: Noise, side: int) -> Tensor:
    """(N, 1, H, W) bool: the pixels of a square around a random one."""
    covered = []
    for length, drawn in zip(images.shape[2:], noise.uniform((2,)).unbind(1), strict=True):
        first = (drawn * length).long()[:, None] - side // 2
        places = torch.arange(length, device=images.device)
        covered.append((places >= first) & (places < first + side))
    rows, columns = covered
    return (rows[:, :, None] & columns[:, None, :])[:, None]


def _apply(policy: Policy, images: Tensor, noise: Noise) -> Tensor:
    """Change one image after the other, each with torch's generator seeded from its own noise."""
    if images.dtype != torch.uint8 or images.shape[1] not in (1, 3):
        raise ValueError(
            f"policy {policy!r} changes uint8 images of 1 or 3 channels, got {images.dtype} of "
            f"{images.shape[1]}; set the recipe's policy to none for these data"
        )
    transform = _transform(policy)
    high, low = (noise.uniform((2,)) * 2**24).long().unbind(1)
    changed = []
    # On the CPU, so that an example meets the same pixels whatever the device of the training.
    with torch.random.fork_rng([]):
        for image, seed in zip(images.cpu(), (high * 2**24 + low).tolist(), strict=True):
            # Not torch.manual_seed, which would seed the generators of every device.
            torch.default_generator.manual_seed(seed)
            changed.append(transform(image))
    return torch.stack(changed).to(images.device) if changed else images


@cache
def _transform(policy: Policy) -> Any:
    """The transform of a policy; torchvision takes seconds to import, which few trainings need."""
    from torchvision.transforms import v2

    if policy == "autoaugment":
        return v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10)
    if policy == "randaugment":
        return v2.RandAugment()
    raise ValueError(f"policy {policy!r} is unknown; expected none, autoaugment or randaugment")
