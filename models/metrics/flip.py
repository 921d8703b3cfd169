"""LDR-FLIP, the difference that a person sees in alternating two images (Andersson et al. 2020), in torch.

What flip-evaluator measures, as a function with gradients, so that a training can lower it. Equal to it in value up
to rounding (tests/models/lama/test_losses.py). Roots and powers are straight lines below a threshold that no eye tells
from nothing: their gradients at 0 are infinite, and most pixels of a composite are equal.

Images are Bx3xHxW sRGB in [0, 1], fp32 or better; what is outside is clipped. Section numbers are the paper's.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

PIXELS_PER_DEGREE = 0.7 * 3840 / 0.7 * math.pi / 180
"""Of the authors' default: 0.7 m from a screen 0.7 m and 3840 pixels wide."""
CONTRAST = (((1.0, 0.0047),), ((1.0, 0.0053),), ((34.1, 0.04), (13.5, 0.025)))
"""Section 4.1.1: (a, b) of the Gaussians of the contrast sensitivity of Y, Cx and Cz."""
COLOUR_POWER, FEATURE_POWER = 0.7, 0.5
KNEE, AT_KNEE = 0.4, 0.95
"""Section 4.1.3: this share of the largest difference is mapped to AT_KNEE of the scale."""
FEATURE_DEGREES = 0.082
"""Section 4.2: width of the eye's edge and point detectors."""
WHITE = (0.950428545, 1.0, 1.088900371)
TO_XYZ = (
    (10135552 / 24577794, 8788810 / 24577794, 4435075 / 24577794),
    (2613072 / 12288897, 8788810 / 12288897, 887015 / 12288897),
    (1425312 / 73733382, 8788810 / 73733382, 70074185 / 73733382),
)


def flip_map(image: Tensor, reference: Tensor) -> Tensor:
    """Bx1xHxW in [0, 1]: FLIP at each pixel, 0 where no difference is seen. Differentiable by both images."""
    seen, wanted = _opponent(image), _opponent(reference)
    colour = _redistributed(_hyab(_filtered_lab(seen), _filtered_lab(wanted)))
    feature = _feature_difference(seen[:, :1], wanted[:, :1])
    return colour.clamp_min(1e-6) ** (1 - feature)


def flip_loss(predicted: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """FLIP of the composite, summed over each image and divided by its hole's area, then the mean over images.

    The sum is over all pixels, for a hole's edge is seen beside it too. mask: Bx1xHxW, 1 = hole.
    """
    seen = flip_map(torch.lerp(target, predicted, mask), target)
    return (seen.sum(dim=(1, 2, 3)) / mask.sum(dim=(1, 2, 3)).clamp_min(1.0)).mean()


def _opponent(srgb: Tensor) -> Tensor:
    """sRGB -> YCxCz, Bx3xHxW."""
    srgb = srgb.clamp(0, 1)
    linear = torch.where(srgb > 0.04045, ((srgb + 0.055) / 1.055) ** 2.4, srgb / 12.92)
    x, y, z = _mixed(linear, torch.tensor(TO_XYZ)).div(_column(WHITE, linear)).unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)


def _filtered_lab(opponent: Tensor) -> Tensor:
    """What the eye resolves of YCxCz, as L*a*b* with the Hunt effect (section 4.1.2). Bx3xHxW."""
    bands = []
    for band, gaussians in zip(opponent.unbind(1), _contrast_kernels(), strict=True):
        blurred = [share * _separated(band[:, None], kernel, kernel) for share, kernel in gaussians]
        bands.append(torch.stack(blurred).sum(dim=0)[:, 0])
    y, cx, cz = bands
    y = (y + 16) / 116
    xyz = torch.stack([y + cx / 500, y, y - cz / 200], dim=1) * _column(WHITE, opponent)
    linear = _mixed(xyz, torch.linalg.inv(torch.tensor(TO_XYZ, dtype=torch.float64))).clamp(0, 1)
    return _hunt_lab(linear)


def _hunt_lab(linear: Tensor) -> Tensor:
    """Linear RGB -> L*a*b* whose a* and b* grow with the lightness. Bx3xHxW."""
    t = _mixed(linear, torch.tensor(TO_XYZ)).div(_column(WHITE, linear))
    low = (6 / 29) ** 3
    x, y, z = torch.where(t > low, t.clamp_min(low) ** (1 / 3), t / (3 * (6 / 29) ** 2) + 4 / 29).unbind(1)
    lightness = 116 * y - 16
    return torch.stack([lightness, 0.01 * lightness * 500 * (x - y), 0.01 * lightness * 200 * (y - z)], dim=1)


def _hyab(a: Tensor, b: Tensor) -> Tensor:
    """City block in lightness, Euclid in chroma (Abasi et al. 2020): Bx1xHxW, to the power that FLIP takes."""
    difference = a - b
    chroma = _power(difference[:, 1:].square().sum(dim=1, keepdim=True), 0.5, 1e-8)
    return _power(difference[:, :1].abs() + chroma, COLOUR_POWER, 1e-3)


def _redistributed(error: Tensor) -> Tensor:
    """Differences to the power -> [0, 1], with the seldom large ones pressed together (section 4.1.3)."""
    largest = _largest()
    knee = KNEE * largest
    above = AT_KNEE + (error - knee) / (largest - knee) * (1 - AT_KNEE)
    return torch.where(error < knee, error * (AT_KNEE / knee), above).clamp_max(1.0)


@cache
def _largest() -> float:
    """The difference of pure green and pure blue, the largest there is."""
    green, blue = (torch.tensor(c, dtype=torch.float64).view(1, 3, 1, 1) for c in ((0, 1, 0), (0, 0, 1)))
    return float(_hyab(_hunt_lab(green), _hunt_lab(blue)))


def _feature_difference(seen: Tensor, wanted: Tensor) -> Tensor:
    """Difference in edges or in points, whichever is more, of Y (Bx1xHxW), to the power (section 4.2)."""
    seen, wanted = (seen + 16) / 116, (wanted + 16) / 116
    smooth, slope, bend = _feature_kernels()
    strengths = []
    for lightness in (seen, wanted):
        for kernel in (slope, bend):
            both = (
                _separated(lightness, kernel, smooth).square()
                + _separated(lightness, smooth, kernel).square()
            )
            strengths.append(_power(both, 0.5, 1e-8))
    edges, points = (strengths[0] - strengths[2]).abs(), (strengths[1] - strengths[3]).abs()
    return _power(torch.maximum(edges, points) / math.sqrt(2), FEATURE_POWER, 1e-5)


def _power(x: Tensor, power: float, threshold: float) -> Tensor:
    """x ** power of x >= 0, and the line from 0 that meets it at the threshold below that."""
    line = x * threshold ** (power - 1)
    return torch.where(x > threshold, x.clamp_min(threshold) ** power, line)


def _column(values: tuple[float, ...], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device).view(1, -1, 1, 1)


def _mixed(x: Tensor, matrix: Tensor) -> Tensor:
    """Each pixel's three values times a 3x3 matrix."""
    return torch.einsum("oi,bihw->bohw", matrix.to(x), x)


def _separated(x: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """Bx1xHxW filtered by the product of a vertical and a horizontal kernel of odd length; edges repeat.

    As products with banded matrices: on a CPU several times as fast as the convolution and its gradient.
    """
    height, width = x.shape[-2:]
    return _banded(down, height).to(x) @ x @ _banded(across, width).to(x).T


def _banded(kernel: Tensor, length: int) -> Tensor:
    """length x length: the matrix that correlates a column with the kernel, its ends repeated."""
    radius = len(kernel) // 2
    rows = torch.arange(length).repeat_interleave(len(kernel))
    columns = (rows + torch.arange(-radius, radius + 1).repeat(length)).clamp(0, length - 1)
    matrix = torch.zeros(length, length, dtype=kernel.dtype)
    return matrix.index_put_((rows, columns), kernel.repeat(length), accumulate=True)


@cache
def _contrast_kernels() -> tuple[tuple[tuple[float, Tensor], ...], ...]:
    """(share, kernel) of each Gaussian of each band; a kernel sums to 1 and so do a band's shares."""
    widest = max(b for gaussians in CONTRAST for _, b in gaussians)
    radius = math.ceil(3 * math.sqrt(widest / (2 * math.pi**2)) * PIXELS_PER_DEGREE)
    degrees = torch.arange(-radius, radius + 1, dtype=torch.float64) / PIXELS_PER_DEGREE
    bands = []
    for gaussians in CONTRAST:
        kernels = [torch.exp(-(math.pi**2) * degrees**2 / b) for _, b in gaussians]
        volumes = [
            a * math.sqrt(math.pi / b) * float(kernel.sum()) ** 2
            for (a, b), kernel in zip(gaussians, kernels, strict=True)
        ]
        shares = [volume / sum(volumes) for volume in volumes]
        bands.append(
            tuple((share, kernel / kernel.sum()) for share, kernel in zip(shares, kernels, strict=True))
        )
    return tuple(bands)


@cache
def _feature_kernels() -> tuple[Tensor, Tensor, Tensor]:
    """A Gaussian of sum 1, and its first and second derivative whose positive and negative values sum to 1 and -1."""
    sigma = FEATURE_DEGREES / 2 * PIXELS_PER_DEGREE
    radius = math.ceil(3 * sigma)
    x = torch.arange(-radius, radius + 1, dtype=torch.float64)
    smooth = torch.exp(-(x**2) / (2 * sigma**2))
    slope, bend = (_evened(kernel) for kernel in (-x * smooth, (x**2 / sigma**2 - 1) * smooth))
    return smooth / smooth.sum(), slope, bend


def _evened(kernel: Tensor) -> Tensor:
    return torch.where(kernel > 0, kernel / kernel.clamp_min(0).sum(), kernel / -kernel.clamp_max(0).sum())
