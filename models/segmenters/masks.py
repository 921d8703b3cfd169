"""Masks made from geometry, and what is done to a mask before it is inpainted. All masks are HW bool."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from cleanplate.models.types import Mask

Box = tuple[float, float, float, float]


def grow(mask: Mask, pixels: int) -> Mask:
    """Dilate by a disc of `pixels` radius; negative is an error, 0 gives a copy."""
    if pixels < 0:
        raise ValueError(f"a mask grows by 0 or more pixels, got {pixels}")
    if pixels == 0 or not mask.any():
        return mask.copy()
    y0, y1, x0, x1 = _extent(mask, pixels)
    # Distance to the mask: its cost does not depend on the radius. Precise 5x5 masks err by < 2 %.
    away = cv2.distanceTransform((~mask[y0:y1, x0:x1]).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    out = mask.copy()
    out[y0:y1, x0:x1] = away <= pixels
    return out


def _extent(mask: Mask, margin: int) -> tuple[int, int, int, int]:
    """y0, y1, x0, x1 of the True pixels with a margin, inside the mask."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    height, width = mask.shape
    y0, y1 = max(0, int(rows[0]) - margin), min(height, int(rows[-1]) + 1 + margin)
    x0, x1 = max(0, int(columns[0]) - margin), min(width, int(columns[-1]) + 1 + margin)
    return y0, y1, x0, x1


def margin_of(box: Box, share: float, least: int = 0) -> int:
    """Pixels to grow the mask of a thing: a share of its box's shorter side, at least `least`.

    Relative, because what surrounds an object (shadow, halo, blur) grows with it.
    """
    return max(least, round(share * min(box[2] - box[0], box[3] - box[1])))


def short_side(mask: Mask) -> float:
    """Pixels of the shorter side of the smallest rectangle, turned as it likes, round the True pixels; 0 without any.
    The height of a slanted line, whose upright box is ten times as high."""
    if not mask.any():
        return 0.0
    points = cv2.findNonZero(mask.astype(np.uint8))
    return 1.0 + min(cv2.minAreaRect(cv2.convexHull(points))[1])


def fill_holes(mask: Mask) -> Mask:
    """True also where the mask is closed around background (4-connected background from the border stays)."""
    height, width = mask.shape
    framed = np.zeros((height + 2, width + 2), np.uint8)
    framed[1:-1, 1:-1] = mask
    cv2.floodFill(framed, None, (0, 0), 2)
    return np.asarray(framed[1:-1, 1:-1] != 2)


def close_gaps(mask: Mask, pixels: int) -> Mask:
    """True also between parts that are at most `pixels` apart: a thin rest between two fills shows."""
    if pixels < 1 or not mask.any():
        return mask.copy()
    radius = (pixels + 1) // 2
    y0, y1, x0, x1 = _extent(mask, radius + 1)
    # Padded, because beyond the picture's edge there is nothing to keep away from.
    wide = np.pad(grow(np.pad(mask[y0:y1, x0:x1], radius), radius), 1)
    depth = cv2.distanceTransform(wide.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    rim = radius + 1
    out = mask.copy()
    out[y0:y1, x0:x1] |= depth[rim : rim + y1 - y0, rim : rim + x1 - x0] > radius
    return out


def whole_blocks(mask: Mask, side: int) -> Mask:
    """Every block of side x side pixels, counted from the top left, that holds a True pixel."""
    height, width = mask.shape
    rows, columns = -(-height // side), -(-width // side)
    framed = np.zeros((rows * side, columns * side), np.bool_)
    framed[:height, :width] = mask
    taken = framed.reshape(rows, side, columns, side).any((1, 3))
    return np.ascontiguousarray(taken.repeat(side, 0).repeat(side, 1)[:height, :width])


def swept(mask: Mask, down: int, sideways: int) -> Mask:
    """The mask and where it comes when it is moved up to `down` pixels downwards and `sideways` to either side:
    room for the shadow that a thing throws on the ground."""
    kernel = np.zeros((2 * down + 1, 2 * sideways + 1), np.uint8)
    kernel[: down + 1] = 1  # cv2.dilate mirrors the kernel: the rows above the anchor reach down.
    return cv2.dilate(mask.astype(np.uint8), kernel) > 0


def box_mask(shape: tuple[int, int], box: Box, margin: float = 0.0) -> Mask:
    """Every pixel that the xyxy box touches, the box grown by `margin` times its shorter side.

    shape: (H, W). At least one pixel when the box lies in the image.
    """
    height, width = shape
    extra = margin * min(box[2] - box[0], box[3] - box[1])
    x0, y0 = max(0, int(np.floor(box[0] - extra))), max(0, int(np.floor(box[1] - extra)))
    x1, y1 = min(width, int(np.ceil(box[2] + extra))), min(height, int(np.ceil(box[3] + extra)))
    mask = np.zeros((height, width), np.bool_)
    mask[y0:y1, x0:x1] = True
    return mask


def ellipse_mask(shape: tuple[int, int], box: Box, margin: float = 0.0) -> Mask:
    """The ellipse inscribed in the box grown by `margin` times its sides (each side by itself)."""
    height, width = shape
    half_w = max(0.5, (box[2] - box[0]) * (0.5 + margin))
    half_h = max(0.5, (box[3] - box[1]) * (0.5 + margin))
    centre_x, centre_y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    x = (np.arange(width) + 0.5 - centre_x) / half_w
    y = (np.arange(height) + 0.5 - centre_y) / half_h
    return np.asarray(y[:, None] ** 2 + x[None, :] ** 2 <= 1.0)


def polygon_mask(shape: tuple[int, int], corners: npt.NDArray[np.float64]) -> Mask:
    """A filled polygon with its border; corners N x 2 as x, y pixels, which may lie outside."""
    out = np.zeros(shape, np.uint8)
    cv2.fillPoly(out, [np.round(corners - 0.5).astype(np.int32)], 1)
    return out > 0
