"""Random crop and flip of a batch, as tensor operations."""

import torch
from torch import Tensor
from torch.nn import functional

from advtrain.noise import Noise


def augment(images: Tensor, noise: Noise, *, crop_padding: int, flip: bool) -> Tensor:
    """Pad with zeros, crop at random to the old size, flip left to right with probability 1/2.

    An example's crop and flip depend on its noise alone; the crop is the same with and without
    flips.

    Args:
        images: (N, C, H, W), uint8 or float in [0, 1].
        noise: of the N examples; the caller folds in the epoch and the purpose.
        crop_padding: pixels on each side; 0 is no crop.
        flip: whether to flip.

    Returns:
        (N, C, H, W) float32 in [0, 1], contiguous.
    """
    if crop_padding or flip:
        images = _gather(images, noise.uniform((3,)), crop_padding, flip)
    floats = images.to(torch.float32).contiguous()
    return floats if images.is_floating_point() else floats.div(255)


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
