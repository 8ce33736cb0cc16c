"""The corruptions beside their formulas, their statistics, and what scipy and Pillow compute."""

import io
import math
from typing import get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from scipy import ndimage, stats
from torch import nn

from advtrain.attacks.attack import predictions
from advtrain.attacks.corruption import CORRUPTIONS, Kind, corrupted, corruption
from advtrain.attacks.objectives import cross_entropy
from advtrain.noise import Noise
from advtrain.threat import ThreatModel, Transformation

Examples = tuple[torch.Tensor, torch.Tensor]
SEVERITIES = range(1, 6)
THREAT = Transformation("corruption")

kinds = pytest.mark.parametrize("kind", CORRUPTIONS)
severities = pytest.mark.parametrize("severity", SEVERITIES)

# The change that these make is not ordered by the severities of the published constants.
UNORDERED = {"glass_blur", "motion_blur", "frost", "elastic_transform"}
# They leave an image of one colour as it is.
BLIND_TO_COLOUR = [
    *("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    *("contrast", "elastic_transform", "pixelate"),
]


def pictures(count: int, channels: int = 3, side: int = 32) -> torch.Tensor:
    """Patches of random colour with soft edges, in [0, 1]."""
    size = (count, channels, side // 3 + 1, side // 3 + 1)
    coarse = torch.rand(size, generator=torch.Generator().manual_seed(0))
    return F.interpolate(coarse, size=(side, side), mode="bilinear")


def noise_for(x: torch.Tensor, seed: int = 0) -> Noise:
    return Noise(seed, torch.arange(len(x)))


def point(side: int = 33) -> torch.Tensor:
    x = torch.zeros(16, 1, side, side)
    x[..., side // 2, side // 2] = 1.0
    return x


def test_the_kinds_are_those_that_a_parameter_may_name() -> None:
    assert get_args(Kind) == tuple(CORRUPTIONS)
    assert {len(constants) for _, constants in CORRUPTIONS.values()} == {5}


@kinds
@pytest.mark.parametrize(("channels", "side"), [(1, 8), (3, 8), (1, 28), (3, 32)])
def test_the_result_is_an_image(kind: Kind, channels: int, side: int) -> None:
    x = pictures(3, channels, side)
    before = x.clone()
    for severity in SEVERITIES:
        found = corrupted(x, noise_for(x), kind, severity)
        assert found.shape == x.shape
        assert found.dtype == x.dtype
        assert found.isfinite().all()
        assert (found >= 0).all()
        assert (found <= 1).all()
        assert torch.equal(x, before)
        assert found.data_ptr() != x.data_ptr()
        if (kind, side, severity) != ("zoom_blur", 8, 1):  # 8 pixels, magnified by 1.06, are 8
            assert not torch.equal(found, x)


@kinds
def test_oblong_images_and_float64(kind: Kind) -> None:
    x = pictures(3, 3, 32)[..., :20].double()
    found = corrupted(x, noise_for(x), kind, 5)
    assert found.shape == x.shape
    assert found.dtype == torch.float64
    if kind != "shot_noise":  # whose levels may round to another one
        single = corrupted(x.float(), noise_for(x), kind, 5)
        torch.testing.assert_close(found.float(), single, rtol=0, atol=1e-4)


@kinds
def test_an_examples_image_does_not_depend_on_its_batch(kind: Kind) -> None:
    x = pictures(40)
    noise = noise_for(x)
    whole = corrupted(x, noise, kind, 3)
    assert torch.equal(corrupted(x, noise, kind, 3), whole)
    for rows in (torch.tensor([7]), torch.arange(39, 5, -3)):
        assert torch.equal(corrupted(x[rows], noise.take(rows), kind, 3), whole[rows])


@kinds
def test_the_global_generator_is_not_drawn_from(kind: Kind) -> None:
    x, before = pictures(2), torch.get_rng_state()
    corrupted(x, noise_for(x), kind, 3)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "kind",
    [
        *("gaussian_noise", "shot_noise", "impulse_noise", "glass_blur", "motion_blur"),
        *("snow", "frost", "fog", "elastic_transform"),
    ],
)
def test_each_example_and_each_seed_draws_its_own(kind: Kind) -> None:
    """Of motion_blur's angles, several lead along the same pixels."""
    x = pictures(1).expand(4, -1, -1, -1)
    found = corrupted(x, noise_for(x), kind, 3)
    assert len(found.flatten(1).unique(dim=0)) >= (2 if kind == "motion_blur" else 4)
    assert not torch.equal(corrupted(x, noise_for(x, seed=1), kind, 3), found)


@pytest.mark.parametrize("kind", [kind for kind in CORRUPTIONS if kind not in UNORDERED])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_change_grows_with_the_severity(kind: Kind, channels: int) -> None:
    x = pictures(40, channels)
    changes = [
        (corrupted(x, noise_for(x), kind, severity) - x).abs().mean().item()
        for severity in SEVERITIES
    ]
    assert changes == sorted(set(changes))


def test_frost_hides_more_with_the_severity() -> None:
    """It darkens what it covers, so that the mean change does not grow; what is left of x does."""
    x = pictures(40)
    hidden = []
    for severity in SEVERITIES:
        found = corrupted(x, noise_for(x), "frost", severity)
        pairs = torch.stack([x.flatten(1), found.flatten(1)], 1)
        hidden.append(1 - torch.stack([torch.corrcoef(one)[0, 1] for one in pairs]).mean().item())
    assert hidden == sorted(set(hidden))


def test_motion_blur_grows_but_where_the_longer_kernel_ends_in_nothing() -> None:
    """Severities 3 and 4 have the same deviation, of which they cut off 6 and 8 at the end."""
    x = pictures(40)
    found = [corrupted(x, noise_for(x), "motion_blur", severity) for severity in SEVERITIES]
    changes = [(one - x).abs().mean().item() for one in found]
    torch.testing.assert_close(found[2], found[3], rtol=0, atol=1e-5)
    assert changes[0] < changes[1] < changes[2] < changes[4]


def test_glass_blur_grows_with_its_repetitions() -> None:
    x = pictures(40)
    once, twice = (
        (corrupted(x, noise_for(x), "glass_blur", severity) - x).abs().mean() for severity in (2, 4)
    )
    assert once < twice


def test_elastic_transform_bends_more_with_the_severity() -> None:
    """Its affine part shrinks as it bends more; a ramp's second differences see the bending."""
    side = 32
    ramp = (torch.arange(side) / side).expand(40, 1, side, side)
    bends = []
    for severity in SEVERITIES:
        found = corrupted(ramp, noise_for(ramp), "elastic_transform", severity)
        middle = found[..., 10:-10, 10:-10]
        bends.append(middle.diff(n=2, dim=3).abs().mean().item())
    assert bends[0] < 1e-6
    assert bends == sorted(set(bends))


@pytest.mark.parametrize("kind", BLIND_TO_COLOUR)
def test_an_image_of_one_colour_stays(kind: Kind) -> None:
    x = torch.tensor([0.2, 0.9, 0.5]).view(1, 3, 1, 1).expand(4, 3, 32, 32).contiguous()
    for severity in SEVERITIES:
        found = corrupted(x, noise_for(x), kind, severity)
        torch.testing.assert_close(found, x, rtol=0, atol=1e-5)


# Noise


@severities
def test_gaussian_noise_has_the_published_deviation(severity: int) -> None:
    x = torch.full((100, 3, 32, 32), 0.5)
    change = corrupted(x, noise_for(x), "gaussian_noise", severity) - x
    deviation = (0.04, 0.06, 0.08, 0.09, 0.10)[severity - 1]
    assert change.std().item() == pytest.approx(deviation, rel=0.01)
    assert change.mean().item() == pytest.approx(0, abs=4 * deviation / math.sqrt(x.numel()))


@severities
def test_shot_noise_counts_photons(severity: int) -> None:
    """Counts are whole, and their distribution is Poisson's of the mean `photons` * x."""
    photons = (500, 250, 100, 75, 50)[severity - 1]
    x = torch.full((50, 3, 32, 32), 102 / 255)
    counts = photons * corrupted(x, noise_for(x), "shot_noise", severity).double().flatten()
    assert (counts - counts.round()).abs().max() < 1e-3
    poisson = stats.poisson(photons * 102 / 255)
    at = np.unique(counts.round().numpy())
    shares = np.searchsorted(np.sort(counts.round().numpy()), at, side="right") / len(counts)
    # Kolmogorov's bound, which a sample exceeds once in 10^7.
    assert np.abs(shares - poisson.cdf(at)).max() < 3 / math.sqrt(len(counts))
    assert counts.var().item() == pytest.approx(counts.mean().item(), rel=0.03)


def test_shot_noise_leaves_black_black() -> None:
    x = torch.zeros(4, 1, 8, 8)
    assert torch.equal(corrupted(x, noise_for(x), "shot_noise", 5), x)


@severities
def test_impulse_noise_strikes_the_published_share(severity: int) -> None:
    """Half of them white, half black; no other value occurs."""
    share = (0.01, 0.02, 0.03, 0.05, 0.07)[severity - 1]
    x = torch.full((100, 3, 32, 32), 0.5)
    found = corrupted(x, noise_for(x), "impulse_noise", severity)
    salt, pepper = (found == 1).float().mean().item(), (found == 0).float().mean().item()
    assert salt + pepper + (found == x).float().mean().item() == pytest.approx(1)
    for part in (salt, pepper):
        assert part == pytest.approx(share / 2, abs=5 * math.sqrt(share / 2 / x.numel()))


# Blur


@severities
def test_defocus_blur_spreads_a_point_over_a_disk(severity: int) -> None:
    """Evenly in all eight directions of the grid, over so many pixels as the radius holds."""
    x = point()
    found = corrupted(x, noise_for(x), "defocus_blur", severity)[0, 0]
    assert found.sum().item() == pytest.approx(1, abs=1e-6)
    for turned in (found.T, found.flip(0), found.flip(1)):
        torch.testing.assert_close(turned, found, rtol=0, atol=1e-7)
    holds = {1: 1, 2: 1, 3: 1, 4: 5, 5: 9}[severity]
    largest = found.flatten().sort(descending=True).values
    if holds > 1:  # the same share for each, but for the blur of the edge
        assert largest[:holds].sum() > 0.99
        torch.testing.assert_close(
            largest[:holds], torch.full((holds,), 1 / holds), rtol=0, atol=2e-2
        )
    else:
        assert (found > 0).sum() == 9


def test_glass_blur_takes_each_pixel_from_beside_or_above() -> None:
    """At severity 1, whose Gaussian is narrower than a pixel."""
    x = torch.rand(8, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    found = corrupted(x, noise_for(x), "glass_blur", 1)
    assert torch.equal(found[:, :, :2], x[:, :, :2])
    assert torch.equal(found[..., :2], x[..., :2])
    inner = found[:, :, 2:, 2:]
    sources = torch.stack(
        [
            inner == x[:, :, 2 - up : 16 - up, 2 - left : 16 - left]
            for up in (0, 1)
            for left in (0, 1)
        ]
    )
    assert sources.any(0).all()
    for share in sources.float().flatten(1).mean(1).tolist():
        assert share == pytest.approx(1 / 4, abs=0.05)


@severities
def test_motion_blur_is_half_a_gaussian_along_a_ray(severity: int) -> None:
    """Within 45 degrees of the horizontal, always to the same side of the point."""
    radius, deviation = ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5))[severity - 1]
    x = point(65)
    found = corrupted(x, noise_for(x), "motion_blur", severity)[:, 0]
    weights = torch.exp(-(torch.arange(2 * radius + 1) ** 2) / (2 * deviation**2))
    weights /= weights.sum()
    torch.testing.assert_close(found.sum((1, 2)), torch.ones(16), rtol=0, atol=1e-6)
    columns = torch.arange(65) - 32.0
    assert (found.sum(1)[:, 33:] == 0).all()  # the pixels to the left are read to the right
    reach = -(found.sum(1) * columns).sum(1)
    drop = -(found.sum(2) * columns).sum(1)
    length = torch.hypot(reach, drop)
    expected = (weights * torch.arange(2 * radius + 1)).sum().item()
    torch.testing.assert_close(length, torch.full((16,), expected), rtol=0, atol=0.5)
    slopes = torch.atan2(drop, reach)
    assert (slopes.abs() < math.radians(60)).all()
    assert slopes.min() < 0 < slopes.max()


@severities
def test_zoom_blur_is_the_mean_of_magnifications(severity: int) -> None:
    """Beside scipy's magnification of the middle of the image, corner to corner."""
    x = pictures(2, 1)
    end = (1.06, 1.11, 1.16, 1.21, 1.26)[severity - 1]
    factors = np.arange(1, end, 0.01)
    total = x[:, 0].double().numpy()
    for factor in factors:
        crop = math.ceil(32 / factor)
        first = (32 - crop) // 2
        middle = x[:, 0, first : first + crop, first : first + crop].double().numpy()
        zoomed = ndimage.zoom(middle, (1, factor, factor), order=1)
        first = (zoomed.shape[1] - 32) // 2
        total = total + zoomed[:, first : first + 32, first : first + 32]
    expected = torch.from_numpy(total / (len(factors) + 1)).float()
    found = corrupted(x, noise_for(x), "zoom_blur", severity)[:, 0]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


# Weather


@severities
def test_snow_darkens_nothing(severity: int) -> None:
    x = pictures(4)
    assert (corrupted(x, noise_for(x), "snow", severity) >= x - 1e-6).all()


@severities
def test_snow_is_a_layer_and_itself_upside_down(severity: int) -> None:
    """On black: the flakes are the same after half a turn, and the same in all channels."""
    x = torch.zeros(4, 3, 32, 32)
    found = corrupted(x, noise_for(x), "snow", severity)
    torch.testing.assert_close(found, found.flip(2, 3), rtol=0, atol=1e-6)
    assert torch.equal(found[:, 0], found[:, 2])
    assert found.flatten(1).std(1).min() > 0


@severities
def test_fog_is_a_fractal_from_nothing_to_the_published_density(severity: int) -> None:
    """Where an image is of one value v it becomes (v + density * fractal) * v / (v + density)."""
    density = (0.2, 0.5, 0.75, 1, 1.5)[severity - 1]
    x = torch.full((6, 3, 32, 32), 0.5)
    found = corrupted(x, noise_for(x), "fog", severity)
    fractal = (found * (0.5 + density) / 0.5 - 0.5) / density
    for limit, expected in ((fractal.amin((1, 2, 3)), 0.0), (fractal.amax((1, 2, 3)), 1.0)):
        torch.testing.assert_close(limit, torch.full((6,), expected), rtol=0, atol=1e-5)
    assert torch.equal(found[:, 0], found[:, 1])
    black = torch.zeros_like(x)
    assert torch.equal(corrupted(black, noise_for(x), "fog", severity), black)


def test_fog_is_rougher_with_a_slower_decay() -> None:
    """Published decays fall from 3 to 1.75: more of the displacement stays in the fine levels."""
    x = torch.full((20, 1, 32, 32), 0.5)
    rough = []
    for severity in (2, 3, 4, 5):
        found = corrupted(x, noise_for(x), "fog", severity)
        rough.append((found.diff(dim=3).abs().mean() / found.std()).item())
    assert rough == sorted(rough)


@severities
def test_frost_is_the_published_mixture(severity: int) -> None:
    """Black and grey images differ by the share of the image that is kept."""
    kept, share = ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45))[severity - 1]
    dark, grey = torch.zeros(4, 3, 32, 32), torch.full((4, 3, 32, 32), 0.25)
    layer = corrupted(dark, noise_for(dark), "frost", severity)
    found = corrupted(grey, noise_for(dark), "frost", severity)
    torch.testing.assert_close(found, layer + 0.25 * kept, rtol=0, atol=1e-6)
    assert layer.max() <= share + 1e-6
    assert layer.max() > 0.9 * share


@severities
def test_brightness_raises_the_largest_channel(severity: int) -> None:
    """By the published amount, at the same hue and saturation: channels keep their proportions."""
    added = (0.05, 0.1, 0.15, 0.2, 0.3)[severity - 1]
    x = pictures(4)
    found = corrupted(x, noise_for(x), "brightness", severity)
    largest = x.amax(1, keepdim=True)
    raised = (largest + added).clamp(max=1)
    torch.testing.assert_close(found.amax(1, keepdim=True), raised, rtol=0, atol=1e-6)
    torch.testing.assert_close(found / raised, x / largest, rtol=0, atol=1e-5)
    black = torch.zeros(1, 3, 8, 8)
    grey = corrupted(black, noise_for(black), "brightness", severity)
    torch.testing.assert_close(grey, torch.full_like(black, added))


# Digital


@severities
def test_contrast_shrinks_towards_each_channels_mean(severity: int) -> None:
    factor = (0.75, 0.5, 0.4, 0.3, 0.15)[severity - 1]
    x = pictures(4)
    found = corrupted(x, noise_for(x), "contrast", severity)
    torch.testing.assert_close(found.mean((2, 3)), x.mean((2, 3)), rtol=0, atol=1e-6)
    torch.testing.assert_close(found.std((2, 3)), factor * x.std((2, 3)), rtol=1e-4, atol=1e-6)


def test_elastic_transform_moves_the_corners_of_a_square_within_their_limits() -> None:
    """At severity 1 it is affine: a plane stays one, and three of its points move by 2.56 at most.

    A ramp shows the columns that are read. Read backwards, the map takes the moved corners to
    those of the square, of half side 10.
    """
    side, reach, limit = 32, 10, 2.56
    ramp = (torch.arange(side) / 100.0).expand(30, 1, side, side)
    read = 100 * corrupted(ramp, noise_for(ramp), "elastic_transform", 1)[:, 0].double()
    across, down = read[:, 16, 17] - read[:, 16, 16], read[:, 17, 16] - read[:, 16, 16]
    middle = read[:, 16, 16]
    assert (read[:, 12:21, 12:21].diff(n=2, dim=2).abs() < 1e-4).all()
    # The corner (row, column) of the square comes from within the limit, up to the map's own scale.
    for row, column in ((reach, reach), (-reach, reach), (-reach, -reach)):
        seen = middle + column * across + row * down
        assert ((seen - 16 - column).abs() <= limit * (across.abs() + down.abs()) + 1e-3).all()
    assert (middle - 16).abs().max() > 0.5


@severities
def test_pixelate_is_pillows_box(severity: int) -> None:
    """Up to its rounding to 8 bits after each of four steps."""
    factor = (0.95, 0.9, 0.85, 0.75, 0.65)[severity - 1]
    x = (255 * pictures(3)).round() / 255
    found = corrupted(x, noise_for(x), "pixelate", severity)
    for image, ours in zip(x, found, strict=True):
        whole = Image.fromarray((255 * image).byte().permute(1, 2, 0).numpy())
        size = int(32 * factor)
        coarse = whole.resize((size, size), Image.Resampling.BOX)
        theirs = np.array(coarse.resize((32, 32), Image.Resampling.BOX))
        expected = torch.from_numpy(theirs).permute(2, 0, 1).float() / 255
        torch.testing.assert_close(ours, expected, rtol=0, atol=2 / 255)


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_compression_is_pillows(channels: int) -> None:
    x = (255 * pictures(3, channels)).round() / 255
    found = corrupted(x, noise_for(x), "jpeg_compression", 5)
    for image, ours in zip(x, found, strict=True):
        levels = (255 * image).round().byte().permute(1, 2, 0).numpy()
        file = io.BytesIO()
        Image.fromarray(levels[..., 0] if channels == 1 else levels).save(file, "JPEG", quality=40)
        expected = torch.from_numpy(np.array(Image.open(file)).reshape(32, 32, channels))
        assert torch.equal((255 * ours).round().byte(), expected.permute(2, 0, 1))


# The attack


def test_it_costs_one_pass_and_reports_the_cross_entropy(
    trained: nn.Module, examples: Examples
) -> None:
    x, y = examples
    found = corruption(trained, x, y, THREAT, noise_for(x), kind="contrast", severity=5)
    assert torch.equal(found.x_adv, corrupted(x, noise_for(x), "contrast", 5))
    with torch.no_grad():
        logits = trained(found.x_adv)
    assert torch.equal(found.objective, cross_entropy(logits, y))
    assert (found.forwards == 1).all()
    assert (found.backwards == 0).all()


def test_an_image_is_corrupted_whatever_the_model_says(
    trained: nn.Module, examples: Examples
) -> None:
    """No adversary: also an example that is wrong when clean, and even if that makes it right."""
    x, y = examples
    wrong = (predictions(trained(x)) + 1) % 4
    one, other = (
        corruption(trained, x, labels, THREAT, noise_for(x), kind="fog") for labels in (y, wrong)
    )
    assert torch.equal(one.x_adv, other.x_adv)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"kind": "rain"}, "corruption has the kinds gaussian_noise, .*, got 'rain'"),
        ({"severity": 6}, "corruption has the severities 1 to 5, got 6"),
        ({"severity": 0}, "corruption has the severities 1 to 5, got 0"),
        ({"kind": "jpeg_compression"}, "knows images of 1 or 3 channels, got 2"),
    ],
)
def test_what_it_does_not_know_is_named(chosen: dict[str, object], message: str) -> None:
    x, y = pictures(2, 2, 8), torch.tensor([0, 1])
    model = nn.Sequential(nn.Flatten(), nn.Linear(128, 2))
    with pytest.raises(ValueError, match=message):
        corruption(model, x, y, THREAT, noise_for(x), **chosen)


def test_a_threat_with_a_budget_is_refused(trained: nn.Module, examples: Examples) -> None:
    x, y = examples
    with pytest.raises(ValueError, match="corruption knows the norms corruption, got linf"):
        corruption(trained, x, y, ThreatModel("linf", 0.1), noise_for(x))
