"""The dilated ResNet-50 that LaMa's perceptual loss looks through (Suvorov et al. 2021, section 2.2).

An encoder trained for semantic segmentation on ADE20K (Zhou et al. 2017): a stem of three 3x3 convolutions,
and no stride in the last two stages but dilation 2 and 4 (He et al. 2016; Yu et al. 2017), so that its
receptive field is large and its maps stay fine. The names of the tensors are those of the published encoder.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn


def _conv3(cin: int, cout: int, *, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    return nn.Conv2d(cin, cout, 3, stride, padding=dilation, dilation=dilation, bias=False)


class _Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 to four times the width, with a skip."""

    def __init__(self, cin: int, width: int, *, stride: int, dilation: int, project: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(cin, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv3(width, width, stride=stride, dilation=dilation)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = (
            nn.Sequential(nn.Conv2d(cin, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width))
            if project
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        skip = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out)) + skip
        return cast(Tensor, self.relu(out))


def _stage(cin: int, width: int, blocks: int, *, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    """The first block projects; where stride was traded for dilation, it has half the stage's dilation."""
    first = _Bottleneck(cin, width, stride=stride, dilation=max(1, dilation // 2), project=True)
    rest = (
        _Bottleneck(4 * width, width, stride=1, dilation=dilation, project=False) for _ in range(blocks - 1)
    )
    return nn.Sequential(first, *rest)


class DilatedResNet50(nn.Module):
    """23,631,808 parameters; always in eval mode when used for a loss."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv3(3, 64, stride=2), nn.BatchNorm2d(64)
        self.conv2, self.bn2 = _conv3(64, 64), nn.BatchNorm2d(64)
        self.conv3, self.bn3 = _conv3(64, 128), nn.BatchNorm2d(128)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = _stage(128, 64, 3)
        self.layer2 = _stage(256, 128, 4, stride=2)
        self.layer3 = _stage(512, 256, 6, dilation=2)
        self.layer4 = _stage(1024, 512, 3, dilation=4)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Bx3xHxW, ImageNet-normalised RGB -> four maps: 256, 512, 1024, 2048 channels at strides 4, 8, 8,
        8."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        x = self.maxpool(self.relu(self.bn3(self.conv3(x))))
        maps: list[Tensor] = []
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
            maps.append(x)
        return maps
