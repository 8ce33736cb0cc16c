"""The residual block that PreActResNet and the wide networks are made of."""

from torch import Tensor, nn
from torch.nn import functional


class PreactBlock(nn.Module):
    """Full pre-activation block (He et al. 2016, "Identity Mappings", figure 4e).

    Two 3 x 3 convolutions; the same as block B(3, 3) without dropout of Zagoruyko and Komodakis
    2016.

    Args:
        channels: of the input.
        wider: channels of the output.
        stride: of the first convolution.
    """

    def __init__(self, channels: int, wider: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, wider, 3, stride=stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(wider)
        self.conv2 = nn.Conv2d(wider, wider, 3, padding=1, bias=False)
        changes = stride != 1 or channels != wider
        self.shortcut = (
            nn.Conv2d(channels, wider, 1, stride=stride, bias=False) if changes else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map features (N, channels, H, W) to (N, wider, H / stride, W / stride)."""
        activated = functional.relu(self.norm1(x))
        # The projection sees the activated features, the identity the raw ones.
        kept = x if self.shortcut is None else self.shortcut(activated)
        out: Tensor = kept + self.conv2(functional.relu(self.norm2(self.conv1(activated))))
        return out


def stage(channels: int, wider: int, blocks: int, stride: int) -> list[PreactBlock]:
    """Blocks in a row; the first one changes the channels and the resolution."""
    first = PreactBlock(channels, wider, stride)
    return [first, *(PreactBlock(wider, wider, 1) for _ in range(blocks - 1))]
