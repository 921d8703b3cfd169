"""Looking at parts of images: near a mask, where a second look is wanted, instead of everywhere again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np

from cleanplate.models.inpainters.crops import CropSettings, plan_crops
from cleanplate.models.types import Detector, Image, Mask, Region

Window = tuple[int, int, int, int]
"""xyxy pixels of an image, integers, half open."""

NEAR = CropSettings(context=1.0, margin=96, min_side=512, bucket=32, max_side=1 << 20)
"""Sides of 512 at least: what makes a line believable as text depends on its share of what is seen."""

MOST = 0.7
"""Share of the image from which on one look at all of it is cheaper than windows."""


def windows(mask: Mask, least: int = NEAR.min_side) -> list[Window]:
    """Where to look to see everything near a mask (HW bool), in windows with sides of `least` pixels or more; the whole
    image where that is most of it."""
    height, width = mask.shape
    boxes = [crop.box for crop in plan_crops(mask, replace(NEAR, min_side=least))]
    if sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in boxes) > MOST * mask.size:
        return [(0, 0, width, height)]
    return boxes


def holding(mask: Mask, least: float, rim: int = 32, side: int = 256, step: int = 1) -> list[Window]:
    """The window that holds what is True in a mask (HW bool) and `rim` pixels round it; none where there is nothing.

    Pieces of less than `least` of the mask do not count; what lies within 32 pixels is one piece. The window has sides
    of `side` pixels where the mask does: networks that pool over all they see take much for a find in smaller ones.
    Its edges are at multiples of `step`.
    """
    height, width = mask.shape
    wide = cv2.dilate(mask.astype(np.uint8), np.ones((33, 33), np.uint8))
    count, labels = cv2.connectedComponents(wide, connectivity=8)
    places, pieces = np.argwhere(mask)[:, ::-1], labels[mask]
    places = places[np.bincount(pieces, minlength=count)[pieces] >= least * mask.size]
    if not len(places):
        return []
    low, high = places.min(0) - rim, places.max(0) + 1 + rim
    short = np.maximum(side - (high - low), 0)
    low, high = low - short // 2, high + short - short // 2
    x0, y0 = (np.clip(low, 0, None) // step * step).tolist()
    x1, y1 = np.minimum(-(-high // step) * step, [width, height]).tolist()
    return [(x0, y0, x1, y1)]


def look_at(
    detector: Detector, images: Sequence[Image], parts: Sequence[Sequence[Window]]
) -> list[list[Region]]:
    """What a detector finds in the windows of each image, in the image's frame, all in one call; it is not called
    without any window.

    images: HWC uint8 RGB. What two windows of an image both show counts once.
    """
    pieces = [(n, window) for n, some in enumerate(parts) for window in some]
    crops = [np.ascontiguousarray(images[n][y0:y1, x0:x1]) for n, (x0, y0, x1, y1) in pieces]
    if not crops:
        return [[] for _ in images]
    found: list[list[Region]] = [[] for _ in images]
    for (n, window), regions in zip(pieces, detector(crops), strict=True):
        moved = [_moved(region, window, images[n].shape[:2]) for region in regions]
        found[n] += [region for region in moved if not any(_same(region, other) for other in found[n])]
    return found


def _moved(region: Region, window: Window, shape: tuple[int, ...]) -> Region:
    """A region of a window in the frame of its image (height, width)."""
    left, top, right, bottom = window
    if (left, top, right, bottom) == (0, 0, shape[1], shape[0]):
        return region
    x0, y0, x1, y1 = region.box
    mask = None
    if region.mask is not None:
        mask = np.zeros(shape, np.bool_)
        mask[top:bottom, left:right] = region.mask
    return replace(region, box=(x0 + left, y0 + top, x1 + left, y1 + top), mask=mask)


def _same(one: Region, other: Region) -> bool:
    """Of one kind, and the middle of one lies in the other."""
    x, y = (one.box[0] + one.box[2]) / 2, (one.box[1] + one.box[3]) / 2
    x0, y0, x1, y1 = other.box
    return one.kind == other.kind and x0 <= x <= x1 and y0 <= y <= y1
