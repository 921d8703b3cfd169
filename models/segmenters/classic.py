"""Segmenters without a network: from a region to the pixels that go.

For removal a missed pixel is worse than one too many, so shapes have margins, and GrabCut, which on average
misses every sixth pixel of an object, is not the default.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from cleanplate.models.metrics.pixelwise import thickness
from cleanplate.models.segmenters.masks import box_mask, ellipse_mask, grow, margin_of
from cleanplate.models.types import Image, Mask, Region, Segmenter

BOX_MARGIN = 0.08
HEAD_MARGIN = 0.25
"""Of each side of a face box, which ends at forehead and chin: the ellipse then holds ears and chin."""
MOST_HALO = 8
"""Pixels; a line that was masked whole is as thick as it is high, and needs no more."""
HAIR = 0.15
"""Of the box's height, added above it."""


@dataclass
class ShapeSegmenter:
    """A Segmenter that treats each region by itself; `shape` gives an HW bool mask of the image's size."""

    name: str
    shape: Callable[[Image, Region], Mask]

    def __call__(self, images: list[Image], regions: list[list[Region]]) -> list[list[Mask]]:
        return [
            [self.shape(image, region) for region in some]
            for image, some in zip(images, regions, strict=True)
        ]


def box(image: Image, region: Region) -> Mask:
    """The region's box, a little grown."""
    return box_mask(image.shape[:2], region.box, BOX_MARGIN)


def ellipse(image: Image, region: Region) -> Mask:
    """An ellipse about the box that covers the whole head of a face box, most of the hair above it too."""
    x0, y0, x1, y1 = region.box
    return ellipse_mask(image.shape[:2], (x0, y0 - HAIR * (y1 - y0), x1, y1), HEAD_MARGIN)


def stroke(image: Image, region: Region) -> Mask:
    """The region's own mask when its detector gave one (text strokes), else its box.

    Strokes of text and marks are widened by a third of their thickness, at most MOST_HALO: soft edges, halo and
    shadow grow with it.
    Raises ValueError when that mask has another size than the image.
    """
    if region.mask is None:
        return box(image, region)
    if region.mask.shape != image.shape[:2]:
        raise ValueError(f"a mask of {region.mask.shape} for an image of {image.shape[:2]} (height, width)")
    if region.kind in ("text", "watermark"):
        return grow(region.mask, min(MOST_HALO, max(1, round(thickness(region.mask) / 3))))
    return region.mask.copy()


def auto(image: Image, region: Region) -> Mask:
    """The region's own mask if it has one, an ellipse for a face, else the box."""
    if region.mask is not None:
        return stroke(image, region)
    return ellipse(image, region) if region.kind == "face" else box(image, region)


def grabcut(image: Image, region: Region) -> Mask:
    """The object inside the box by GrabCut (Rother et al. 2004), grown; the box when it keeps < 40 % of it.

    It sees 35 % of context on each side, on a copy of at most 512 pixels. For large objects only.
    """
    whole = box(image, region)
    x0, y0, x1, y1 = (round(side) for side in region.box)
    context_x, context_y = round(0.35 * (x1 - x0)), round(0.35 * (y1 - y0))
    left, top = max(0, x0 - context_x), max(0, y0 - context_y)
    crop = np.ascontiguousarray(image[top : y1 + context_y, left : x1 + context_x])
    inner = (x0 - left, y0 - top, x1 - left, y1 - top)
    cut = _grabcut(crop, inner)
    if cut is None or np.count_nonzero(cut) < 0.4 * (x1 - x0) * (y1 - y0):
        return whole
    out = np.zeros_like(whole)
    out[top : top + crop.shape[0], left : left + crop.shape[1]] = cut
    return grow(out, margin_of(region.box, 0.05, least=4))


def _grabcut(crop: Image, inner: tuple[int, int, int, int], side: int = 512) -> Mask | None:
    """HW bool of the crop; None when the box leaves no surroundings, or no inside, to learn from."""
    height, width = crop.shape[:2]
    factor = min(1.0, side / max(height, width, 1))
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    x0, y0, x1, y1 = (round(value * factor) for value in inner)
    state = np.full((size[1], size[0]), cv2.GC_BGD, np.uint8)
    state[y0:y1, x0:x1] = cv2.GC_PR_FGD
    probable = int(np.count_nonzero(state))
    # GrabCut fits five Gaussians to each side and fails on fewer samples.
    if min(probable, state.size - probable) < 32:
        return None
    small = np.asarray(cv2.resize(crop, size, interpolation=cv2.INTER_AREA), np.uint8)
    cv2.setRNGSeed(0)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    # The rectangle is not looked at in this mode.
    cv2.grabCut(small, state, (0, 0, 1, 1), *models, 3, cv2.GC_INIT_WITH_MASK)
    kept = ((state == cv2.GC_FGD) | (state == cv2.GC_PR_FGD)).astype(np.uint8)
    return np.asarray(cv2.resize(kept, (width, height), interpolation=cv2.INTER_NEAREST) > 0)


SEGMENTERS: dict[str, Segmenter] = {
    "auto": ShapeSegmenter("auto", auto),
    "box": ShapeSegmenter("box", box),
    "ellipse": ShapeSegmenter("ellipse", ellipse),
    "stroke": ShapeSegmenter("stroke", stroke),
    "grabcut": ShapeSegmenter("grabcut", grabcut),
}
