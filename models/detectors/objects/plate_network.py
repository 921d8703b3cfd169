"""Our own network of number plates: small, fully convolutional; it gives where a plate's middle is, and its corners.

Trained by `cleanplate train plates` on plates rendered without end and hung into photographs. As EAST (Zhou et al.
2017, arXiv:1704.03155) each cell within the middle of a plate says so, and how far the four corners are from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from cleanplate.models.detectors.unet import Conv
from cleanplate.models.devices import bf16_is_native, progressed, subnormals_flushed
from cleanplate.models.types import Image

MULTIPLE = 32
"""Sides of the network's input are multiples of this."""
STRIDE = 4
"""Pixels of the input for one cell of its output."""
REACH = 32.0
"""Pixels for one unit of a corner's offset."""
WIDTHS = (32, 56, 80, 112)

Seen = list[tuple[float, npt.NDArray[np.float32]]]
"""(chance, 4 x 2 corners: x, y of the upper left, upper right, lower right, lower left), surest first."""


class PlateNet(nn.Module):
    """B x 3 x H x W in [0, 1], sides multiples of MULTIPLE -> B x 9 x H/4 x W/4: logit of a plate's middle, and x, y
    from the cell's middle to the four corners over REACH."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            Conv(3, 16, stride=2), Conv(16, WIDTHS[0], stride=2), Conv(WIDTHS[0], WIDTHS[0])
        )
        pairs = list(pairwise(WIDTHS))
        self.down = nn.ModuleList(
            nn.Sequential(Conv(low, high, stride=2), Conv(high, high), *([Conv(high, high)] if depth else []))
            for depth, (low, high) in enumerate(pairs)
        )
        self.across = nn.ModuleList(Conv(low + high, low, kernel=1) for low, high in reversed(pairs))
        self.up = nn.ModuleList(Conv(low, low) for low, _ in reversed(pairs))
        self.middle = nn.Conv2d(WIDTHS[0], 1, 3, padding=1)
        self.corners = nn.Conv2d(WIDTHS[0], 8, 3, padding=1)
        nn.init.constant_(self.middle.bias, -3.0)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem((x - 0.5).contiguous(memory_format=torch.channels_last))
        levels = [x]
        for step in self.down:
            levels.append(step(levels[-1]))
        x = levels.pop()
        for across, up in zip(self.across, self.up, strict=True):
            x = up(across(torch.cat([functional.interpolate(x, scale_factor=2.0), levels.pop()], 1)))
        return torch.cat([self.middle(x), self.corners(x)], 1)


def build() -> PlateNet:
    """The network with random weights, laid out for convolutions on the CPU."""
    return PlateNet().to(memory_format=torch.channels_last)  # type: ignore[no-any-return, call-overload]


def load(path: Path | str) -> PlateNet:
    """Weights of a safetensors file (fp16 or fp32), in eval mode. Raises ValueError when they do not fit."""
    net = build()
    tensors = {key: t.float() if t.is_floating_point() else t for key, t in load_file(path).items()}
    try:
        net.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(f"{path} does not hold the weights of our network of plates: {error}") from error
    return net.eval()


@subnormals_flushed()
@torch.inference_mode()
def look(net: PlateNet, images: Sequence[Image], low: float) -> list[Seen]:
    """What the network sees in each of HWC uint8 RGB images of one size, from a chance of `low` up; corners in their
    pixels. Inside they are padded to MULTIPLE."""
    device = next(net.parameters()).device
    batch = torch.from_numpy(np.stack(images)).to(device).permute(0, 3, 1, 2).float() / 255
    height, width = batch.shape[-2:]
    batch = functional.pad(batch, (0, -width % MULTIPLE, 0, -height % MULTIPLE), mode="replicate")
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16_is_native(device)):
        out = net(batch).float()
    progressed()
    chance = out[:, 0].sigmoid().cpu().numpy()
    offsets = out[:, 1:].cpu().numpy()
    return [plates(*one, low) for one in zip(chance, offsets, strict=True)]


def plates(chance: npt.NDArray[np.float32], offsets: npt.NDArray[np.float32], low: float) -> Seen:
    """h x w chances and 8 x h x w offsets -> each plate once. Cells that touch, at half of the least chance or above,
    are one plate; its corners are the mean of what the surer half of them say, by their chance."""
    count, labels = cv2.connectedComponents((chance > 0.5 * low).astype(np.uint8), connectivity=8)
    found: Seen = []
    rows, columns = np.nonzero(labels)
    owner = labels[rows, columns]
    for number in range(1, count):
        own = owner == number
        y, x = rows[own], columns[own]
        weight = chance[y, x]
        best = float(weight.max())
        if best < low:
            continue
        sure = weight >= 0.6 * best
        y, x, weight = y[sure], x[sure], weight[sure]
        corners = offsets[:, y, x].T.reshape(-1, 4, 2) * REACH
        middles = (np.stack([x, y], 1) + 0.5) * STRIDE
        quad = np.average(corners + middles[:, None], axis=0, weights=weight)
        found.append((best, quad.astype(np.float32)))
    return sorted(found, key=lambda one: -one[0])
