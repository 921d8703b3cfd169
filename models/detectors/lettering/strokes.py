"""From a line's quadrilateral to the pixels of its letters."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from cleanplate.models.segmenters.masks import grow, polygon_mask
from cleanplate.models.types import Image, Mask

WORKING = 96
"""Strokes of higher lines are found on a copy in which the line is this high."""


def text_mask(image: Image, quad: npt.NDArray[np.float64]) -> Mask:
    """HW bool of the whole image, True = the line's strokes, tight, or its whole quadrilateral: those that stand out
    from what surrounds them, and the whole quadrilateral when none do.

    image: HWC uint8 RGB. quad: 4x2 corners x, y, the first edge along the line. The margin that a fill needs is the
    segmenter's (`cleanplate.models.segmenters.classic.stroke`).
    """
    found = line_strokes(image, quad)
    return polygon_mask(image.shape[:2], quad) if found is None else found


def _window(quad: npt.NDArray[np.float64], rim: float, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """xyxy of the part of an image of this shape that holds a line and a rim round it; may be empty."""
    height, width = shape[:2]
    x0, y0 = np.clip(np.floor(quad.min(0) - rim).astype(int), 0, [width, height]).tolist()
    x1, y1 = np.clip(np.ceil(quad.max(0) + rim).astype(int), [x0, y0], [width, height]).tolist()
    return x0, y0, x1, y1


def line_strokes(image: Image, quad: npt.NDArray[np.float64]) -> Mask | None:
    """HW bool of the whole image: the line's strokes, tight; None when they cannot be separated from the ground.

    Strokes of one colour are taken again by that colour (`of_one_ink`): distance from the ground alone takes too
    much round large letters.
    """
    height, width = image.shape[:2]
    line = float(np.linalg.norm(quad[3] - quad[0]))
    x0, y0, x1, y1 = _window(quad, line / 2, image.shape)
    if x1 == x0 or y1 == y0:
        return None
    window, corners = np.ascontiguousarray(image[y0:y1, x0:x1]), quad - [x0, y0]
    found = strokes(window, corners)
    if found is None or not found.any():
        return None
    refined = of_one_ink(window, found, polygon_mask(found.shape, corners), line)
    out = np.zeros((height, width), np.bool_)
    out[y0:y1, x0:x1] = found if refined is None else refined
    return out


def of_one_ink(image: Image, found: Mask, inside: Mask, line: float) -> Mask | None:
    """The pixels nearer to the strokes' colour than to the ground around them, in a line of `line` pixels.

    None when fewer than six tenths of the strokes share a colour (36 levels of RGB), or when a third of what has
    it lies apart from the strokes, or when it is less than half of them: outlined letters, shaded ones.
    """
    inner = cv2.erode(found.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    pixels = image.astype(np.float32)
    colour = np.median(pixels[inner if np.count_nonzero(inner) >= 15 else found], axis=0)
    for _ in range(3):  # mean shift
        near = np.linalg.norm(pixels[found] - colour, axis=1) < 36
        if np.count_nonzero(near) < 10:
            return None
        colour = pixels[found][near].mean(0)
    ground = ~grow(found, 2)
    window = max(3, int(0.9 * line)) | 1
    weight = cv2.blur(ground.astype(np.float32), (window, window))
    around = cv2.blur(pixels * ground[..., None], (window, window)) / np.maximum(weight, 1e-3)[..., None]
    apart = np.linalg.norm(around - colour, axis=2)
    own = np.linalg.norm(pixels - colour, axis=2) < np.clip(apart / 2, 12, 110)
    own &= grow(inside, max(1, int(0.1 * line)))
    size = int(np.count_nonzero(own))
    astray = int(np.count_nonzero(own & ~grow(found, 3)))
    fits = near.mean() > 0.6 and astray < 0.35 * size and size > 0.5 * np.count_nonzero(found)
    return own if fits else None


def strokes(image: Image, quad: npt.NDArray[np.float64]) -> Mask | None:
    """The strokes of one line, HW bool of `image`; None when they cannot be separated from the background.

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
    the piece, where strokes and ground cannot be separated.
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
    """Otsu's threshold, in the middle of the gap where there is one: OpenCV gives its lower end, which in a drawing
    of two flat colours is the ground itself."""
    flags = cv2.THRESH_BINARY | cv2.THRESH_OTSU
    threshold = float(cv2.threshold(values.reshape(1, -1), 0, 255, flags)[0])
    above = values[values > threshold]
    return (threshold + float(above.min())) / 2 if above.size else threshold
