"""The residual blocks of the generators without FFC (the paper's ablations, table 2)."""

from __future__ import annotations

from torch import Tensor, nn

from cleanplate.models.lama.ffc import ReflectPad2d
from cleanplate.models.lama.params import DILATIONS


class ResnetBlock(nn.Module):
    """Two plain 3x3 convolutions with a skip; no activation after the addition."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(
            ReflectPad2d(1, 1, 1, 1),
            nn.Conv2d(channels, channels, 3),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            ReflectPad2d(1, 1, 1, 1),
            nn.Conv2d(channels, channels, 3),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.conv_block(x)
        return out


class _MultidilatedConv(nn.Module):
    """Equal shares of the input channels, one dilation each, summed."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        share = channels // len(DILATIONS)
        self.convs = nn.ModuleList(
            nn.Conv2d(share, channels, 3, padding=d, dilation=d, padding_mode="reflect") for d in DILATIONS
        )

    def forward(self, x: Tensor) -> Tensor:
        parts = x.chunk(len(self.convs), dim=1)
        out: Tensor = self.convs[0](parts[0])
        for conv, part in zip(self.convs[1:], parts[1:], strict=True):
            out = out + conv(part)
        return out


class MultidilatedBlock(nn.Module):
    """Two multi-dilated convolutions with a skip."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(
            _MultidilatedConv(channels),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            _MultidilatedConv(channels),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.conv_block(x)
        return out
