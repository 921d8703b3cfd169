"""What speaks for a candidate being laid over the picture: a few numbers from the U-Net and from the pixels.

An overlay of one colour and one opacity gives every pixel the same affine map of what is behind it (Porter and
Duff 1984): out = (1 - a) * behind + a * colour. What is behind is not known; the pixels round about stand in for it.
"""

from __future__ import annotations

from typing import TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from cleanplate.models.detectors.unet import Probability
from cleanplate.models.metrics.pixelwise import thickness
from cleanplate.models.segmenters.masks import grow
from cleanplate.models.types import Image, Mask

Kind = TypeVar("Kind", bound=np.generic)
Box = tuple[int, int, int, int]
"""x0, y0, x1, y1 integer pixels."""

NAMES = (
    "chance",
    "sure",
    "agreed",
    "beside",
    "area",
    "extent",
    "thin",
    "contrast",
    "even",
    "slope",
    "follows",
    "sharp",
    "calm",
    "colour",
    "pieces",
    "ragged",
    "solid",
)
"""chance, sure, agreed: mean of the U-Net's surest look, its ninth decile, mean of all looks, as logits. beside:
mean chance round about. area, extent: logs of the candidate's pixels and of its box, as shares of the picture. thin:
log of the strokes' width as a share of the short side. contrast: log of the distance from the ground, levels. even: log
of how much of it is left once the affine map is taken out. slope, follows: 1 - a, and the correlation, of that map.
sharp: log of the gradient on the edge by that round about. calm: log of the texture inside by that round about. colour:
saturation. pieces: log of the number of connected parts. ragged: log of the outline's length by the root of the area.
solid: share of its parts' convex hulls that they fill. A highlight out of focus is one round piece; letters are
many with long outlines."""


def window(mask: Mask) -> Box:
    """The tight box round the mask's pixels; the mask is not empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def cut(array: npt.NDArray[Kind], box: Box, origin: Box = (0, 0, 0, 0)) -> npt.NDArray[Kind]:
    """A view of the array in the box; origin: where the array's own corner lies."""
    x, y = origin[:2]
    return array[box[1] - y : box[3] - y, box[0] - x : box[2] - x]


def evidence(
    image: Image, chance: Probability, agreed: Probability, box: Box, mask: Mask
) -> dict[str, float]:
    """A number for each of NAMES. image: HWC uint8 RGB. chance, agreed: HW in [0, 1], surest and mean look of the
    U-Net. box, mask: the candidate's tight window and its pixels there, not empty."""
    height, width = chance.shape
    wide = thickness(mask) + 2
    reach = int(np.clip(4 * wide, 8, 48))
    around = (
        max(0, box[0] - reach),
        max(0, box[1] - reach),
        min(width, box[2] + reach),
        min(height, box[3] + reach),
    )
    part = cut(image, around).astype(np.float32)
    ink = np.zeros(part.shape[:2], np.bool_)
    cut(ink, box, around)[:] = mask
    ground = ~grow(ink, 2)
    near = ground & grow(ink, reach // 2)
    seen, looks = cut(chance, around), cut(agreed, around)
    inner = cv2.erode(ink.astype(np.uint8), np.ones((2, 2), np.uint8)) > 0
    core = inner if np.count_nonzero(inner) >= 20 else ink
    return {
        "chance": _logit(float(seen[ink].mean())),
        "sure": _logit(float(np.quantile(seen[ink], 0.9))),
        "agreed": _logit(float(looks[ink].mean())),
        "beside": float(seen[near].mean()) if near.any() else 0.0,
        "area": float(np.log10(np.count_nonzero(ink) / chance.size + 1e-6)),
        "extent": float(np.log10(mask.size / chance.size + 1e-6)),
        "thin": float(np.log10(wide / min(height, width))),
        "colour": float(np.ptp(np.median(part[core], 0))) / 255,
        **_blend(part, core, ground, reach),
        **_texture(part, ink, core, near),
        **_shape(ink),
    }


def _blend(part: npt.NDArray[np.float32], core: Mask, ground: Mask, reach: int) -> dict[str, float]:
    """contrast, even, slope, follows of the strokes against the ground round about, blurred over `reach`."""
    size = 2 * (reach // 2) + 1
    weight = cv2.blur(ground.astype(np.float32), (size, size))
    known = core & (weight > 0.05)
    if np.count_nonzero(known) < 20:
        return {"contrast": 0.0, "even": 0.0, "slope": 1.0, "follows": 0.0}
    around = cv2.blur(part * ground[..., None], (size, size))[known] / weight[known][:, None]
    own = part[known]
    apart = float(np.sqrt(((own - around) ** 2).mean()))
    ours, theirs = own - own.mean(0), around - around.mean(0)
    together, power, other = float((ours * theirs).sum()), float((ours**2).sum()), float((theirs**2).sum())
    slope = float(np.clip(together / (other + 25 * own.size), -0.5, 1.5))
    left = float(np.sqrt(((ours - slope * theirs) ** 2).mean()))
    return {
        "contrast": float(np.log10(apart + 1)),
        "even": float(np.log10((left + 2) / (apart + 2))),
        "slope": slope,
        "follows": together / float(np.sqrt(power * other) + 25 * own.size),
    }


def _texture(part: npt.NDArray[np.float32], ink: Mask, core: Mask, near: Mask) -> dict[str, float]:
    """sharp, calm: the gradient on the candidate's edge by that round about, and fine texture inside by outside."""
    grey = part.mean(2)
    slope = np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1))
    fine = np.abs(grey - cv2.GaussianBlur(grey, (0, 0), 1.0))
    rim = grow(ink, 1) & ~(cv2.erode(ink.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0)
    if not near.any():
        return {"sharp": 0.0, "calm": 0.0}
    return {
        "sharp": float(np.log10((slope[rim].mean() + 2) / (slope[near].mean() + 2))),
        "calm": float(np.log10((fine[core].mean() + 0.5) / (fine[near].mean() + 0.5))),
    }


def _shape(ink: Mask) -> dict[str, float]:
    contours, _ = cv2.findContours(ink.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    area = float(np.count_nonzero(ink))
    outline = sum(cv2.arcLength(one, True) for one in contours)
    hulls = sum(cv2.contourArea(cv2.convexHull(one)) + cv2.arcLength(one, True) / 2 for one in contours)
    return {
        "pieces": float(np.log10(sum(len(one) >= 8 for one in contours) + 1)),
        "ragged": float(np.log10(outline / np.sqrt(area) + 0.1)),
        "solid": float(min(1.0, area / max(hulls, 1.0))),
    }


def _logit(share: float) -> float:
    share = min(max(share, 0.003), 0.997)
    return float(np.log(share / (1 - share)))
