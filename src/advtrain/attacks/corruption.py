"""Common corruptions: noise, blur, weather and compression, which no adversary chooses."""

import functools
import io
import math
from collections.abc import Callable
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from advtrain.attacks.attack import Attacked, check_norm
from advtrain.attacks.frozen import crafting
from advtrain.attacks.objectives import cross_entropy
from advtrain.noise import Noise
from advtrain.threat import Transformation

NORMS = ("corruption",)

Kind = Literal[
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
]

Border = Callable[[Tensor, int], Tensor]
"""(positions, side) -> the positions inside [0, side) that are read in place of those outside."""


def corruption(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: Transformation,
    noise: Noise,
    *,
    kind: Kind = "gaussian_noise",
    severity: Literal[1, 2, 3, 4, 5] = 3,
) -> Attacked:
    """One of the 15 common corruptions of CIFAR-10-C (Hendrycks and Dietterich 2019, section 3).

    "Benchmarking neural network robustness to common corruptions and perturbations". The constants
    are those of the official `make_cifar_c.py`, for images of 32 x 32 pixels; lengths in pixels
    stay as they are in images of other sizes, except in elastic_transform and pixelate, which the
    official code states relative to the side. Of 1 or 3 channels; jpeg_compression knows no others.

    Departs from the official code: numbers are drawn for each example by itself, and intermediate
    and final images are not rounded to 8 bits (shot_noise and jpeg_compression round their input,
    and jpeg_compression its output, as they must). Up to that, every kind follows the official
    formula, but for

    * frost, which lays photographs of frost over the image: here it is a procedural texture, the
      ridges of a plasma fractal. Its accuracies cannot be compared with CIFAR-10-C's;
    * motion_blur, and the streaks of snow, which ImageMagick computes: here from its published
      algorithm (a half Gaussian along a line of whole pixels), not compared with the program;
    * glass_blur, whose official loop swaps pixels in views of one array and thereby copies them:
      here they are copied, as in the published files;
    * elastic_transform, whose affine part OpenCV samples at multiples of 1/32 pixel: here exactly.

    The mean change of an image grows with the severity but for four kinds, whose published
    constants do not order it: glass_blur (2 repetitions at 4 and 5, 1 before), motion_blur (3 and 4
    are the same), frost (which hides more, but also darkens) and elastic_transform (which bends
    more, but moves less as a whole). On images of few pixels, pixelate and zoom_blur have equal
    severities, too: 8 pixels magnified by 1.06 are 8.

    Args:
        model: maps (N, C, H, W) in [0, 1] to (N, K) logits.
        x: (N, C, H, W) in [0, 1].
        y: (N,) int64 labels.
        threat: `Transformation("corruption")`.
        noise: for these N examples.
        kind: which corruption.
        severity: 1 to 5.

    Returns:
        The corrupted images and the cross-entropy there, whatever the verdict; 1 forward pass.

    Raises:
        ValueError: for another threat, kind or severity, or channels that JPEG does not know.
    """
    check_norm("corruption", threat, NORMS)
    x_adv = corrupted(x, noise, kind, severity)
    with crafting(model), torch.no_grad():
        value = cross_entropy(model(x_adv), y)
    return Attacked(x_adv, value, torch.ones_like(y), torch.zeros_like(y))


def corrupted(x: Tensor, noise: Noise, kind: Kind, severity: int) -> Tensor:
    """The images alone.

    Args:
        x: (N, C, H, W) in [0, 1].
        noise: for these N examples.
        kind: which corruption.
        severity: 1 to 5.

    Returns:
        (N, C, H, W) in [0, 1], a new tensor.
    """
    if kind not in CORRUPTIONS:
        raise ValueError(f"corruption has the kinds {', '.join(CORRUPTIONS)}, got {kind!r}")
    corrupt, constants = CORRUPTIONS[kind]
    if not 1 <= severity <= len(constants):
        raise ValueError(f"corruption has the severities 1 to {len(constants)}, got {severity}")
    return corrupt(x, noise, *constants[severity - 1]).clamp(0, 1)


# Noise


def _gaussian_noise(x: Tensor, noise: Noise, deviation: float) -> Tensor:
    return x + deviation * noise.normal(tuple(x.shape[1:])).to(x.dtype)


def _shot_noise(x: Tensor, noise: Noise, photons: int) -> Tensor:
    """Poisson counts of mean `photons` * x, by inverting the distribution function."""
    table = _poisson(photons).to(x.device)
    level = (255 * x).round().long()
    # Row after row, each raised by its number, the functions are one ascending list.
    rising = (table + torch.arange(256, device=x.device)[:, None]).flatten()
    drawn = level + noise.uniform(tuple(x.shape[1:])).double()
    count = torch.searchsorted(rising, drawn, right=True) - level * table.shape[1]
    return (count / photons).to(x.dtype)


@functools.cache
def _poisson(photons: int) -> Tensor:
    """(256, K) float64, P(count <= k) for each of the means `photons` * level / 255."""
    # Ten deviations above the largest mean: the rest is far below the 2^-24 that are drawn.
    most = photons + 10 * math.isqrt(photons) + 20
    means = photons * torch.arange(256, dtype=torch.float64)[:, None] / 255
    chances: Tensor = torch.special.gammaincc(torch.arange(1.0, most + 2).double(), means)
    return chances


def _impulse_noise(x: Tensor, noise: Noise, share: float) -> Tensor:
    """Salt and pepper, one as likely as the other, in each channel by itself."""
    struck, salt = noise.uniform((2, *x.shape[1:])).unbind(1)
    return torch.where(struck < share, (salt < 0.5).to(x.dtype), x)


# Blur


def _defocus_blur(x: Tensor, noise: Noise, radius: float, deviation: float) -> Tensor:
    """A disk, itself blurred over 3 x 3 pixels."""
    reach = torch.arange(-3, 4, dtype=torch.float64)
    disk = (reach[:, None].square() + reach.square() <= radius**2).double()[None, None]
    kernel = _smoothed(disk / disk.sum(), _gaussian(deviation, 1), _edge)[0, 0]
    height, width = _positions(x)
    blurred = torch.zeros_like(x)
    for i, j in kernel.nonzero().tolist():
        blurred += kernel[i, j].item() * _read(x, height + i - 3, width + j - 3, _mirror_inner)
    return blurred


def _glass_blur(x: Tensor, noise: Noise, deviation: float, repeats: int) -> Tensor:
    """Pixels replaced by their neighbours between two blurs.

    Each takes the place of itself or one of the three neighbours to the left and above; the first
    two rows and columns stay.
    """
    kernel = _gaussian(deviation, int(4 * deviation + 0.5))
    x = _smoothed(x, kernel, _edge)
    height, width = _positions(x)
    inside = (height > 1) & (width > 1)
    for repeat in range(repeats):
        drawn = noise.uniform((2, *x.shape[2:]), restart=repeat)
        up, left = ((drawn < 0.5) & inside).long().unbind(1)
        x = _read(x, height - up, width - left, _edge)
    return _smoothed(x, kernel, _edge)


def _motion_blur(x: Tensor, noise: Noise, radius: int, deviation: float) -> Tensor:
    return _streaked(x, 90 * noise.uniform((1,)).flatten().double() - 45, radius, deviation)


def _streaked(x: Tensor, degrees: Tensor, radius: int, deviation: float) -> Tensor:
    """ImageMagick's motion blur: half a Gaussian along the nearest pixels of a ray, (N,) angles."""
    ahead = torch.arange(2 * radius + 1, dtype=torch.float64)
    weights = (-ahead.square() / (2 * deviation**2)).exp()
    weights /= weights.sum()
    across, down = (
        part.view(-1, 1, 1) for part in (degrees.deg2rad().cos(), degrees.deg2rad().sin())
    )
    height, width = _positions(x)
    blurred = torch.zeros_like(x)
    for i, weight in enumerate(weights.tolist()):
        rows = height + (i * down - 0.5).ceil().long()
        columns = width + (i * across - 0.5).ceil().long()
        blurred += weight * _read(x, rows, columns, _edge)
    return blurred


def _zoom_blur(x: Tensor, noise: Noise, end: float) -> Tensor:
    """The mean of the image and of its magnifications by 1.00, 1.01, 1.02 and so on."""
    # numpy's own rounding of the range: the first two contain their end, and 1.25 is a little more.
    factors = np.arange(1, end, 0.01).tolist()
    total = x.clone()
    for factor in factors:
        total += _magnified(x, factor)
    return total / (len(factors) + 1)


def _magnified(x: Tensor, factor: float) -> Tensor:
    """The middle of the image, magnified corner to corner and cropped to the same size."""
    rows, columns = (
        torch.tensor(_origins(side, factor), dtype=torch.float64, device=x.device)
        for side in x.shape[2:]
    )
    return _interpolated(x, rows[None, :, None], columns[None, None, :], _edge)


def _origins(side: int, factor: float) -> list[float]:
    """Where the pixels of a magnified side come from."""
    crop = math.ceil(side / factor)
    size = round(crop * factor)
    first, trimmed = (side - crop) // 2, (size - side) // 2
    pitch = (crop - 1) / max(size - 1, 1)
    return [first + (trimmed + i) * pitch for i in range(side)]


# Weather


def _snow(
    x: Tensor,
    noise: Noise,
    mean: float,
    deviation: float,
    factor: float,
    least: float,
    radius: int,
    length: float,
    kept: float,
) -> Tensor:
    """A layer of flakes, magnified and drawn into streaks, over a whitened image."""
    flakes = _magnified(mean + deviation * noise.normal((1, *x.shape[2:])).to(x.dtype), factor)
    flakes = torch.where(flakes < least, 0, flakes).clamp_(0, 1)
    degrees = 90 * noise.uniform((1,)).flatten().double() - 135
    flakes = _streaked(flakes, degrees, radius, length)
    whitened = kept * x + (1 - kept) * torch.maximum(x, 1.5 * _grey(x) + 0.5)
    return whitened + flakes + flakes.flip(2, 3)


def _frost(x: Tensor, noise: Noise, kept: float, share: float) -> Tensor:
    """A procedural texture in the place of the photographs: bright where a fractal crosses 1/2."""
    ridges = 1 - (2 * _plasma(noise, x, decay=1.5) - 1).abs()
    return kept * x + share * ridges


def _fog(x: Tensor, noise: Noise, density: float, decay: float) -> Tensor:
    brightest = x.amax((1, 2, 3), keepdim=True)
    return (x + density * _plasma(noise, x, decay)) * brightest / (brightest + density)


def _plasma(noise: Noise, x: Tensor, decay: float) -> Tensor:
    """(N, 1, H, W) in [0, 1]: a diamond-square fractal (Fournier et al. 1982) on a torus.

    Each level halves the distance between the known points and divides the square root of the
    random displacement by `decay`.
    """
    height, width = x.shape[2:]
    side = 1 << (max(height, width) - 1).bit_length()
    heights = torch.zeros(len(x), side, side, dtype=torch.float64, device=x.device)
    step, size = side, 1.0
    while step > 1:
        half = step // 2
        drawn = noise.fold_in(step).uniform((3, side // step, side // step)).double()
        middle, right, below = ((2 * drawn - 1) * size).unbind(1)
        corners = heights[:, ::step, ::step].clone()
        beside, under = corners + corners.roll(-1, 2), corners + corners.roll(-1, 1)
        centres = (beside + beside.roll(-1, 1)) / 4 + middle
        heights[:, half::step, half::step] = centres
        heights[:, ::step, half::step] = (beside + centres + centres.roll(1, 1)) / 4 + right
        heights[:, half::step, ::step] = (under + centres + centres.roll(1, 2)) / 4 + below
        step, size = half, size / decay**2
    heights -= heights.amin((1, 2), keepdim=True)
    heights /= heights.amax((1, 2), keepdim=True).clamp(min=torch.finfo(heights.dtype).tiny)
    return heights[:, None, :height, :width].to(x.dtype)


def _brightness(x: Tensor, noise: Noise, added: float) -> Tensor:
    """Raise the V of HSV, the largest channel, at the same hue and saturation."""
    value = x.amax(1, keepdim=True)
    # Black has neither hue nor saturation: it becomes grey.
    shares = torch.where(value > 0, x / value.clamp(min=torch.finfo(x.dtype).tiny), 1)
    return shares * (value + added).clamp(max=1)


# Digital


def _contrast(x: Tensor, noise: Noise, factor: float) -> Tensor:
    mean = x.double().mean((2, 3), keepdim=True).to(x.dtype)
    return (x - mean) * factor + mean


def _elastic_transform(
    x: Tensor, noise: Noise, shift: float, deviation: float, corner: float
) -> Tensor:
    """Move three corners of a square at random, then each pixel by a smooth random field."""
    height, width = _positions(x)
    short = min(x.shape[2:])
    middle = torch.tensor([x.shape[2] // 2, x.shape[3] // 2], device=x.device).double()
    reach = max(short // 3, 1)
    # The corners (row, column) below to the right, above to the right, above to the left.
    square = middle + reach * torch.tensor([[1, 1], [-1, 1], [-1, -1]], device=x.device)
    moved = square + short * corner * (2 * noise.uniform((3, 2)).double() - 1)
    # Its inverse maps the moved sides to those of the square, which lie along the axes.
    origin = moved[:, 2, :, None, None]
    down, across = (
        (moved[:, 0] - moved[:, 1])[..., None, None],
        (moved[:, 1] - moved[:, 2])[..., None, None],
    )
    area = down[:, 0] * across[:, 1] - down[:, 1] * across[:, 0]
    from_row, from_column = height - origin[:, 0], width - origin[:, 1]
    along_down = (from_row * across[:, 1] - from_column * across[:, 0]) / area
    along_across = (from_column * down[:, 0] - from_row * down[:, 1]) / area
    rows = square[2, 0] + 2 * reach * along_down
    columns = square[2, 1] + 2 * reach * along_across
    x = _interpolated(x, rows, columns, _mirror_inner)

    kernel = _gaussian(short * deviation, int(3 * short * deviation + 0.5))
    field = 2 * noise.fold_in(1).uniform((2, *x.shape[2:])).double() - 1
    field = short * shift * _smoothed(field, kernel, _mirror)
    return _interpolated(x, height + field[:, 0], width + field[:, 1], _mirror)


def _pixelate(x: Tensor, noise: Noise, factor: float) -> Tensor:
    """Fewer pixels, each the mean of those whose centres it covers, then the nearest of them."""
    for dim in (2, 3):
        side = x.shape[dim]
        size = max(int(side * factor), 1)
        scale = side / size
        starts = [math.floor(i * scale - 0.5) + 1 for i in range(size + 1)]
        coarse = torch.stack(
            [x.narrow(dim, first, end - first).mean(dim) for first, end in pairwise(starts)],
            dim,
        )
        nearest = [int((i + 0.5) / scale) for i in range(side)]
        x = coarse.index_select(dim, torch.tensor(nearest, device=x.device))
    return x


def _jpeg_compression(x: Tensor, noise: Noise, quality: int) -> Tensor:
    if x.shape[1] not in (1, 3):
        raise ValueError(f"jpeg_compression knows images of 1 or 3 channels, got {x.shape[1]}")
    levels = (255 * x).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    found = torch.empty(x.shape, dtype=torch.uint8)
    for i, image in enumerate(levels):
        file = io.BytesIO()
        Image.fromarray(image.squeeze(2) if x.shape[1] == 1 else image).save(
            file, "JPEG", quality=quality
        )
        decoded = torch.from_numpy(np.array(Image.open(file)))
        found[i] = decoded.view(*x.shape[2:], -1).permute(2, 0, 1)
    return found.to(x) / 255


CORRUPTIONS: dict[str, tuple[Callable[..., Tensor], tuple[tuple[float, ...], ...]]] = {
    "gaussian_noise": (_gaussian_noise, ((0.04,), (0.06,), (0.08,), (0.09,), (0.10,))),
    "shot_noise": (_shot_noise, ((500,), (250,), (100,), (75,), (50,))),
    "impulse_noise": (_impulse_noise, ((0.01,), (0.02,), (0.03,), (0.05,), (0.07,))),
    "defocus_blur": (_defocus_blur, ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1))),
    "glass_blur": (_glass_blur, ((0.05, 1), (0.25, 1), (0.4, 1), (0.25, 2), (0.4, 2))),
    "motion_blur": (_motion_blur, ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5))),
    "zoom_blur": (_zoom_blur, ((1.06,), (1.11,), (1.16,), (1.21,), (1.26,))),
    "snow": (
        _snow,
        (
            (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ),
    ),
    "frost": (_frost, ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45))),
    "fog": (_fog, ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75))),
    "brightness": (_brightness, ((0.05,), (0.1,), (0.15,), (0.2,), (0.3,))),
    "contrast": (_contrast, ((0.75,), (0.5,), (0.4,), (0.3,), (0.15,))),
    "elastic_transform": (
        _elastic_transform,
        ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
    ),
    "pixelate": (_pixelate, ((0.95,), (0.9,), (0.85,), (0.75,), (0.65,))),
    "jpeg_compression": (_jpeg_compression, ((80,), (65,), (58,), (50,), (40,))),
}
"""Each kind's function and its constants at the severities 1 to 5."""


# Reading and smoothing images


def _edge(position: Tensor, side: int) -> Tensor:
    """Outside, the outermost pixel."""
    return position.clamp(0, side - 1)


def _mirror(position: Tensor, side: int) -> Tensor:
    """Outside, the image reflected with its outermost pixel: b a | a b c | c b."""
    position = position.remainder(2 * side)
    return torch.minimum(position, 2 * side - 1 - position)


def _mirror_inner(position: Tensor, side: int) -> Tensor:
    """Outside, the image reflected without its outermost pixel: c b | a b c | b a."""
    period = max(2 * side - 2, 1)
    position = position.remainder(period)
    return torch.minimum(position, period - position).clamp_(max=side - 1)


def _positions(x: Tensor) -> tuple[Tensor, Tensor]:
    """(1, H, 1) and (1, 1, W) int64, the rows and the columns."""
    rows, columns = (torch.arange(side, device=x.device) for side in x.shape[2:])
    return rows[None, :, None], columns[None, None, :]


def _read(x: Tensor, rows: Tensor, columns: Tensor, border: Border) -> Tensor:
    """The pixels (rows, columns) of each image, the same in all channels.

    Args:
        x: (N, C, H, W).
        rows: int64, broadcast with the columns to (N, H, W) or, for all images, (1, H, W).
        columns: int64.
        border: what stands for positions outside.
    """
    height, width = x.shape[2:]
    place = border(rows, height) * width + border(columns, width)
    index = place.flatten(1)[:, None].expand(*x.shape[:2], -1)
    return x.flatten(2).gather(2, index).view_as(x)


def _interpolated(x: Tensor, rows: Tensor, columns: Tensor, border: Border) -> Tensor:
    """The same at positions between the pixels, bilinearly; float64 positions."""
    above, left = rows.floor(), columns.floor()
    lower, right = (rows - above)[:, None].to(x.dtype), (columns - left)[:, None].to(x.dtype)
    above, left = above.long(), left.long()
    top, bottom = (
        torch.lerp(_read(x, row, left, border), _read(x, row, left + 1, border), right)
        for row in (above, above + 1)
    )
    return torch.lerp(top, bottom, lower)


def _gaussian(deviation: float, radius: int) -> list[float]:
    """2 * radius + 1 weights of sum 1."""
    if radius == 0:
        return [1.0]
    weights = [math.exp(-((i / deviation) ** 2) / 2) for i in range(-radius, radius + 1)]
    return [weight / sum(weights) for weight in weights]


def _smoothed(x: Tensor, kernel: list[float], border: Border) -> Tensor:
    """Convolve along the rows and along the columns, tap by tap.

    A convolution layer's bits would depend on the batch, and on a GPU be rounded to TF32.
    """
    radius = len(kernel) // 2
    for dim in (2, 3):
        side = x.shape[dim]
        total = torch.zeros_like(x)
        for i, weight in enumerate(kernel):
            source = border(torch.arange(side, device=x.device) + i - radius, side)
            total += weight * x.index_select(dim, source)
        x = total
    return x


def _grey(x: Tensor) -> Tensor:
    """(N, 1, H, W): luminance of colour images, otherwise the mean of the channels."""
    if x.shape[1] != 3:
        return x.mean(1, keepdim=True)
    red, green, blue = x.unbind(1)
    grey: Tensor = 0.299 * red + 0.587 * green + 0.114 * blue
    return grey[:, None]
