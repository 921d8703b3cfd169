"""A generator that corrects a smooth fill instead of painting from nothing.

A small generator has to learn three things before it fills well: to see colours, to carry them into the
hole, and to continue texture. A pyramid of local means does the first two without a parameter, so
`lama-lite` gets that fill as its input and gives what it lacks. Off the hole it gives the detail that a
coarse mean of the image lacks: the same task, with a known answer, which teaches it detail
(docs/training-notes.md). The wrapped function keeps the interface of a generator.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from cleanplate.models.lama.generator import Predict

COARSE = 8
"""Side in pixels of the squares whose mean stands for the image off the hole; sides are multiples of it."""

CONFIDENCE = 2.0
"""How much each level of the pyramid is trusted beyond the share of known pixels under it."""


def pyramid_fill(x: Tensor) -> Tensor:
    """Push-pull (Burt 1988; Gortler et al. 1996): Bx4xHxW (RGB with the hole at 0, mask) -> Bx3xHxW RGB.

    Known pixels are returned as they are. Inside the hole each level of a pyramid of means over known pixels
    shows through where the finer levels know nothing. An image without a known pixel gives zeros. Runs in
    fp32 or better.
    """
    x = x if x.dtype == torch.float64 else x.float()
    colours, known = [x[:, :3]], [1 - x[:, 3:]]
    while max(colours[-1].shape[-2:]) > 1:
        share = _halve(known[-1])
        colours.append(_halve(colours[-1] * known[-1]) / share.clamp_min(1e-6))
        known.append((CONFIDENCE * share).clamp_max(1.0))
    fill = colours[-1]
    for colour, weight in zip(colours[-2::-1], known[-2::-1], strict=True):
        coarse = F.interpolate(fill, size=colour.shape[-2:], mode="bilinear", align_corners=False)
        fill = weight * colour + (1 - weight) * coarse
    return fill


def _halve(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)


def prefilled(predict: Predict) -> Predict:
    """predict, made to correct a pyramid fill: takes and gives what a generator does.

    predict sees the filled image and the mask; what it gives, in [0, 1], is read as a correction in [-1, 1]
    to the fill in the hole and to a coarse mean of the image off it. Sides are multiples of 8 pixels.
    """

    def corrected(x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            fill, mask = pyramid_fill(x), x[:, 3:]
            coarse = F.avg_pool2d(fill, COARSE)
            coarse = F.interpolate(coarse, size=fill.shape[-2:], mode="bilinear", align_corners=False)
            start = torch.lerp(coarse, fill, mask.to(fill.dtype))
        seen = torch.cat([fill.to(x.dtype), mask], dim=1)
        if x.is_contiguous(memory_format=torch.channels_last):
            seen = seen.contiguous(memory_format=torch.channels_last)
        correction = 2 * predict(seen) - 1
        return start + correction

    return corrected
