"""A small convolutional network for digits and other small images."""

from torch import nn

from advtrain.models.normalisation import Normalisation, normalize
from advtrain.params.quantities import Count


def small_cnn(
    *,
    channels: Count,
    size: Count,
    classes: Count,
    width: Count = 16,
    hidden: Count = 128,
    normalisation: Normalisation = "none",
) -> nn.Sequential:
    """Stack one convolution at full size, then strided ones down to 4 x 4, then two linear layers.

    8 x 8 images pass two convolutions, 28 x 28 and 32 x 32 four. No BatchNorm, no pooling: crafting
    in train or eval mode is the same, and every operation has a deterministic gradient.

    Args:
        channels: of the images.
        size: height and width of the images in pixels.
        classes: number of logits.
        width: channels of the first convolution; each strided one doubles them, up to 4 x width.
        hidden: units of the first linear layer.
        normalisation: table of the first layer.

    Returns:
        A network: images (N, channels, size, size) in [0, 1] -> logits (N, classes).
    """
    layers: list[nn.Module] = [
        normalize(normalisation, channels),
        nn.Conv2d(channels, width, 3, padding=1),
        nn.ReLU(),
    ]
    features = width
    while size > 4:
        wider = min(2 * features, 4 * width)
        layers += [nn.Conv2d(features, wider, 3, stride=2, padding=1), nn.ReLU()]
        features, size = wider, (size + 1) // 2
    layers += [
        nn.Flatten(),
        nn.Linear(features * size * size, hidden),
        nn.ReLU(),
        nn.Linear(hidden, classes),
    ]
    return nn.Sequential(*layers)
