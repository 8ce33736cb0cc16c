"""Residual networks for ImageNet, from torchvision."""

from torch import nn

from advtrain.models.normalisation import Normalisation, normalize
from advtrain.params.quantities import Count

DEPTHS = (18, 34, 50, 101, 152)


def resnet(
    *,
    channels: Count,
    size: Count,
    classes: Count,
    depth: Count = 50,
    normalisation: Normalisation = "imagenet",
) -> nn.Sequential:
    """Build torchvision's ResNet (He et al. 2016), with random weights.

    Args:
        channels: of the images; for others than 3 the first convolution is made anew.
        size: height and width of the images in pixels; any, since the head is a global mean, but
            the first two layers reduce it fourfold: small images lose much.
        classes: number of logits.
        depth: 18, 34, 50, 101 or 152.
        normalisation: table of the first layer.

    Returns:
        A network: images (N, channels, size, size) in [0, 1] -> logits (N, classes).

    Raises:
        ValueError: if there is no network of this depth.
    """
    from torchvision import models

    if depth not in DEPTHS:
        raise ValueError(f"resnet: depth is one of {', '.join(map(str, DEPTHS))}, got {depth}")
    network = models.get_model(f"resnet{depth}", weights=None, num_classes=classes)
    if channels != 3:
        network.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
        nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(normalize(normalisation, channels), network)
