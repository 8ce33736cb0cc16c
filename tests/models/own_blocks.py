"""What the user's file imports from beside it."""

from torch import Tensor, nn


class Block(nn.Module):
    """A convolution with BatchNorm."""

    def __init__(self, channels: int, wider: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, wider, 3, padding=1)
        self.norm = nn.BatchNorm2d(wider)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(self.convolution(x)).relu()
        return out
