"""Our own segmenter of overlaid marks: a compact U-Net (Ronneberger et al. 2015, arXiv:1505.04597).

It gives each pixel the chance that something was laid over it after the photograph was taken: text, a logo, a
grid, opaque or nearly unseen. Trained by `cleanplate train marks` on marks rendered without end
(models/training/marks/render.py); docs/training-notes.md tells what it cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from cleanplate.models.devices import bf16_is_native, progressed, subnormals_flushed
from cleanplate.models.types import Image

STRIDE = 32
"""Sides of the network's input are multiples of this."""

Probability = npt.NDArray[np.float32]


@dataclass(frozen=True)
class MarksParams:
    """widths: channels at 1/2, 1/4, 1/8, ... of the size.  depths: convolutions on the way down at each."""

    widths: tuple[int, ...]
    depths: tuple[int, ...]


MARKS: dict[str, MarksParams] = {
    "marks": MarksParams(widths=(32, 64, 128, 160, 192), depths=(2, 2, 3, 3, 4)),
    # The letters of a straightened line: models/detectors/lettering/letters.py.
    "strokes": MarksParams(widths=(24, 40, 64, 80, 96), depths=(1, 2, 2, 2, 2)),
    "marks-tiny": MarksParams(widths=(8, 8, 8, 8, 8), depths=(1, 1, 1, 1, 1)),  # for tests
}


class Conv(nn.Module):
    """3x3 (or 1x1) convolution, batch norm, ReLU; added to its input where the shapes allow."""

    def __init__(self, before: int, after: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, kernel, stride, kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(after)
        self.residual = before == after and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        out = functional.relu(self.norm(self.conv(x)))
        return x + out if self.residual else out


def _joined(step: Conv, x: Tensor, skip: Tensor) -> Tensor:
    """What `step`, a 1x1 convolution, makes of x enlarged twice beside skip. It is done before x is enlarged, where it
    has a quarter of the pixels: enlarging by repetition changes nothing of it."""
    weight = step.conv.weight[:, :, 0, 0]
    cut = x.shape[1]
    low, high = (
        functional.linear(part.permute(0, 2, 3, 1), matrix).permute(0, 3, 1, 2)
        for part, matrix in ((x, weight[:, :cut]), (skip, weight[:, cut:]))
    )
    return functional.relu(step.norm(functional.interpolate(low, scale_factor=2.0) + high))


class MarksNet(nn.Module):
    """Bx3xHxW in [0, 1], sides multiples of 32 -> Bx1xHxW logits.

    The first and last step trade pixels for channels (2x2 to 4), so that no convolution runs at full size;
    the letters' edges still come out at full size.
    """

    def __init__(self, params: MarksParams) -> None:
        super().__init__()
        widths, depths = params.widths, params.depths
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        before = 12
        for level, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            first = Conv(before, width, stride=2 if level else 1)
            self.down.append(nn.Sequential(first, *(Conv(width, width) for _ in range(depth - 1))))
            before = width
        for width in widths[-2::-1]:
            self.up.append(nn.Sequential(Conv(before + width, width, kernel=1), Conv(width, width)))
            before = width
        self.head = nn.Conv2d(before, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.pixel_unshuffle(x - 0.5, 2).contiguous(memory_format=torch.channels_last)
        skips: list[Tensor] = []
        for level in self.down:
            x = level(x)
            skips.append(x)
        for level, skip in zip(self.up, skips[-2::-1], strict=True):
            step, after = cast(nn.Sequential, level)
            x = after(_joined(cast(Conv, step), x, skip))
        return functional.pixel_shuffle(self.head(x), 2)


def build(params: MarksParams) -> MarksNet:
    """The network with random weights, laid out for convolutions on the CPU."""
    return MarksNet(params).to(memory_format=torch.channels_last)  # type: ignore[no-any-return, call-overload]


def load(path: Path, name: str = "marks") -> MarksNet:
    """Weights of a safetensors file (fp16 or fp32), in eval mode. Raises ValueError when they do not fit."""
    net = build(MARKS[name])
    tensors = {key: t.float() if t.is_floating_point() else t for key, t in load_file(path).items()}
    try:
        net.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(f"{path} does not hold the weights of {name}: {error}") from error
    return net.eval()


@subnormals_flushed()
@torch.inference_mode()
def probability(net: MarksNet, images: Sequence[Image]) -> Probability:
    """HWC uint8 RGB images of one size -> B x H x W float32 in [0, 1]; inside they are padded to STRIDE.

    Convolutions are in bfloat16, as in training, where the device multiplies it in hardware.
    """
    device = next(net.parameters()).device
    bf16 = bf16_is_native(device)
    batch = torch.from_numpy(np.stack(images)).to(device).permute(0, 3, 1, 2).float() / 255
    height, width = batch.shape[-2:]
    below, right = -height % STRIDE, -width % STRIDE
    batch = functional.pad(batch, (0, right, 0, below), mode="replicate")
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        logits = net(batch)
    progressed()
    return np.asarray(torch.sigmoid(logits.float())[:, 0, :height, :width].cpu().numpy(), np.float32)
