"""Wide residual networks, the large model of the CIFAR tables."""

import math

from torch import nn

from advtrain.models.normalisation import Normalisation, normalize
from advtrain.models.residual import stage
from advtrain.params.quantities import Count


def wide_resnet(
    *,
    channels: Count,
    size: Count,
    classes: Count,
    depth: Count = 34,
    widen: Count = 10,
    normalisation: Normalisation = "none",
) -> nn.Sequential:
    """Build WRN-depth-widen (Zagoruyko and Komodakis 2016) as Zhang et al. 2019 train it.

    Three stages of n blocks make a depth of 6 n + 4: the two convolutions of each block, the first
    one and three shortcuts. Madry et al. 2018, and after them Free adversarial training, write
    6 n + 2, the first convolution and the linear layer: their WRN-32-10 has the five blocks per
    stage of WRN-34-10. Depth 32 is read as theirs and gives the same network as 34.

    Departs from the official code: Madry's TensorFlow network has leaky ReLU with slope 0.1, and
    shortcuts of average pooling with zero channels, which have no weights; `normalisation`
    `per_image` is its input layer.

    Args:
        channels: of the images.
        size: height and width of the images in pixels; any, since the head is a global mean.
        classes: number of logits.
        depth: 6 n + 4 (10, 16, 22, 28, 34, ...), or the published 32.
        widen: width of the stages in multiples of 16, 32 and 64 channels.
        normalisation: table of the first layer.

    Returns:
        A network: images (N, channels, size, size) in [0, 1] -> logits (N, classes). WRN-34-10
        has 46.16 million weights for CIFAR-10, WRN-28-10 36.48 million.

    Raises:
        ValueError: if the depth is none of these.
    """
    blocks = 5 if depth == 32 else (depth - 4) // 6
    if depth != 32 and (blocks < 1 or depth != 6 * blocks + 4):
        raise ValueError(
            f"wide_resnet: depth is 6 n + 4 (10, 16, 22, 28, 34, ...) or 32, got {depth}"
        )
    layers: list[nn.Module] = [
        normalize(normalisation, channels),
        nn.Conv2d(channels, 16, 3, padding=1, bias=False),
    ]
    features = 16
    for level in range(3):
        wider = 16 * widen * 2**level
        layers += stage(features, wider, blocks, stride=2 if level else 1)
        features = wider
    layers += [
        nn.BatchNorm2d(features),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(features, classes),
    ]
    network = nn.Sequential(*layers)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.out_channels * math.prod(module.kernel_size)
            nn.init.normal_(module.weight, 0.0, math.sqrt(2 / fan_out))
        elif isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
    return network
