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
    Otsu's threshold, which must exceed what 70 % of the surroundings stay below; then piece by piece along
    the line, because letters may cross from a dark background to one almost of their own colour.
    """
    height, width = image.shape[:2]
    line = float(np.linalg.norm(quad[3] - quad[0]))
    factor = min(1.0, WORKING / line)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    small = image
    if factor < 1:
        small = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    corners = quad * [size[0] / width, size[1] / height]
    away = _from_background(small, max(3, int(0.9 * line * factor) | 1))
    inside = polygon_mask(small.shape[:2], corners)
    outside = ~grow(inside, 2)
    if not inside.any():
        return None
    noise = float(np.percentile(away[outside], 70)) if outside.any() else 0.0
    least = 1.5 * noise + 2
    threshold = _otsu(away[inside])
    if threshold <= least:
        return None
    cut = _local_thresholds(away, inside, corners, threshold, least)
    found = ((away > cut) & inside).astype(np.uint8) * 255
    if factor < 1:
        found = np.asarray(cv2.resize(found, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)
    return np.asarray(found > 96)


def _from_background(image: Image, kernel: int) -> npt.NDArray[np.uint8]:
    background = cv2.medianBlur(image, kernel).astype(np.float32)
    away = np.sqrt(np.mean((image.astype(np.float32) - background) ** 2, axis=2))
    return np.asarray(np.minimum(np.round(away), 255), np.uint8)


def _local_thresholds(
    away: npt.NDArray[np.uint8],
    inside: Mask,
    quad: npt.NDArray[np.float64],
    threshold: float,
    least: float,
) -> npt.NDArray[np.float64]:
    """HW: a threshold for each piece of the line, one line height long, from the pixels of twice that.

    Never above the whole line's (a piece may hold only strokes), never below `least`; -1, which takes all of
    the piece, where strokes and ground cannot be told apart.
    """
    rise = float(np.linalg.norm(quad[3] - quad[0]))
    along = (quad[1] - quad[0]) / max(float(np.linalg.norm(quad[1] - quad[0])), 1e-6)
    y, x = np.nonzero(inside)
    place = ((x - quad[0, 0]) * along[0] + (y - quad[0, 1]) * along[1]) / rise
    values, local = away[y, x], np.full(len(x), threshold)
    for piece in range(int(place.min()), int(place.max()) + 1):
        near = np.abs(place - piece - 0.5) <= 1
        if near.any():
            own = (place >= piece) & (place < piece + 1)
            cut = min(threshold, max(least, _lower_otsu(values[near], 2 * least + 6)))
            # Letters never fill half of their line: then it is the ground that was cut out.
            local[own] = cut if np.mean(values[own] > cut) < 0.45 else -1
    out = np.full(away.shape, threshold)
    out[y, x] = local
    return out


def _lower_otsu(values: npt.NDArray[np.uint8], least: float) -> float:
    """Otsu's threshold; where an edge of the background stands above the strokes themselves, there are three
    classes, and the threshold between the lower two counts when it is above `least`."""
    upper = _otsu(values)
    below = values[values <= upper]
    lower = _otsu(below) if below.size else upper
    return lower if lower > least else upper


def _otsu(values: npt.NDArray[np.uint8]) -> float:
    flags = cv2.THRESH_BINARY | cv2.THRESH_OTSU
    return float(cv2.threshold(values.reshape(1, -1), 0, 255, flags)[0])
