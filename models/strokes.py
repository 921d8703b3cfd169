"""From a line's quadrilateral to the pixels of its letters."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from models.masks import grow, polygon_mask
from models.regions import Image, Mask

SHORT = 32
"""Lower lines (pixels) are masked whole: a thin strip is cheap to inpaint, its strokes are not seen well."""
WORKING = 96
"""Strokes of higher lines are found on a copy in which the line is this high."""


def text_mask(image: Image, quad: npt.NDArray[np.float64]) -> Mask:
    """HW bool of the whole image, True = the line's strokes with a margin, or its whole quadrilateral.

    image: HWC uint8 RGB. quad: 4x2 corners x, y, the first edge along the line. The whole quadrilateral when
    the line is short or the strokes do not stand out from what surrounds them.
    """
    height, width = image.shape[:2]
    line = float(np.linalg.norm(quad[3] - quad[0]))
    margin = max(2, round(0.08 * line))
    x0, y0 = np.clip(np.floor(quad.min(0) - line / 2).astype(int), 0, [width, height])
    x1, y1 = np.clip(np.ceil(quad.max(0) + line / 2).astype(int), [x0, y0], [width, height])
    out = np.zeros((height, width), np.bool_)
    if x1 == x0 or y1 == y0:
        return out
    window = np.ascontiguousarray(image[y0:y1, x0:x1])
    corners = quad - [x0, y0]
    inside = polygon_mask(window.shape[:2], corners)
    found = strokes(window, corners) if line >= SHORT else None
    out[y0:y1, x0:x1] = inside if found is None else grow(found, margin)
    return out


def strokes(image: Image, quad: npt.NDArray[np.float64]) -> Mask | None:
    """The strokes of one line, HW bool of `image`; None when they cannot be told from the background.

    The background is the median over windows of .9 line heights: letters cover less than half of such a
    window. The distance from it (RMS over channels, so dark, light and coloured strokes all count) is cut by
    Otsu's threshold, which must exceed what 70 % of the surroundings stay below.
    """
    height, width = image.shape[:2]
    line = float(np.linalg.norm(quad[3] - quad[0]))
    factor = min(1.0, WORKING / line)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    small = image
    if factor < 1:
        small = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    corners = quad * [size[0] / width, size[1] / height]
    kernel = max(3, int(0.9 * line * factor) | 1)
    background = cv2.medianBlur(small, kernel).astype(np.float32)
    away = np.sqrt(np.mean((small.astype(np.float32) - background) ** 2, axis=2))
    away = np.minimum(np.round(away), 255).astype(np.uint8)
    inside = polygon_mask(small.shape[:2], corners)
    outside = ~grow(inside, 2)
    if not inside.any():
        return None
    threshold, _ = cv2.threshold(away[inside].reshape(1, -1), 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    noise = float(np.percentile(away[outside], 70)) if outside.any() else 0.0
    if threshold <= 1.5 * noise + 2:
        return None
    found = ((away > threshold) & inside).astype(np.uint8) * 255
    if factor < 1:
        found = np.asarray(cv2.resize(found, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)
    return np.asarray(found > 96)
