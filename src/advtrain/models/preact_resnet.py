"""PreActResNet, the network of most fast adversarial training on small images."""

from torch import nn

from advtrain.models.normalisation import Normalisation, normalize
from advtrain.models.residual import stage
from advtrain.params.quantities import Count

BLOCKS = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
"""Depth -> blocks of two convolutions in each of the four stages."""


def preact_resnet(
    *,
    channels: Count,
    size: Count,
    classes: Count,
    depth: Count = 18,
    width: Count = 64,
    normalisation: Normalisation = "none",
) -> nn.Sequential:
    """Build PreActResNet-18 (He et al. 2016) as Wong et al. 2020 and Rice et al. 2020 train it.

    Departs from the official code: a global mean in place of a 4 x 4 one, which is the same at
    32 x 32 and admits other sizes.

    Args:
        channels: of the images.
        size: height and width of the images in pixels; any, since the head is a global mean.
        classes: number of logits.
        depth: 10, 18 or 34; 10 is no network of the papers, but one for small machines.
        width: channels of the first stage; each later stage doubles them.
        normalisation: table of the first layer.

    Returns:
        A network: images (N, channels, size, size) in [0, 1] -> logits (N, classes). Depth 18 and
        width 64 have 11.17 million weights for CIFAR-10.

    Raises:
        ValueError: if there is no network of this depth.
    """
    if depth not in BLOCKS:
        raise ValueError(f"preact_resnet: depth is 10, 18 or 34, got {depth}")
    layers: list[nn.Module] = [
        normalize(normalisation, channels),
        nn.Conv2d(channels, width, 3, padding=1, bias=False),
    ]
    features = width
    for level, blocks in enumerate(BLOCKS[depth]):
        layers += stage(features, width * 2**level, blocks, stride=2 if level else 1)
        features = width * 2**level
    layers += [
        nn.BatchNorm2d(features),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(features, classes),
    ]
    return nn.Sequential(*layers)
