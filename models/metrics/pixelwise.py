"""Image quality, pixel by pixel: PSNR and SSIM over an image or inside a mask, and overlap of masks.

Images are HWC uint8 RGB of equal size; masks HW bool. Every function raises ValueError for other shapes.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

from cleanplate.models.types import Image, Mask

SSIM_WINDOW = 11
SSIM_SIGMA = 1.5


def psnr(image: Image, reference: Image, mask: Mask | None = None) -> float:
    """Peak signal-to-noise ratio in dB over all pixels, or over the mask's; inf when they are equal.

    Raises ValueError for an empty mask: there is nothing to measure.
    """
    _check(image, reference, mask)
    squares = (image.astype(np.float64) - reference) ** 2
    if mask is not None:
        if not mask.any():
            raise ValueError("PSNR inside an empty mask is not defined")
        squares = squares[mask]
    mse = float(squares.mean())
    return math.inf if mse == 0 else 10 * math.log10(255.0**2 / mse)


def ssim_map(image: Image, reference: Image) -> npt.NDArray[np.float64]:
    """HW float64: structural similarity at each pixel, mean of the three channels (Wang et al. 2004).

    Gaussian window of 11x11, sigma 1.5, K1 0.01, K2 0.03; the border is mirrored.
    Raises ValueError when a side is below 11 pixels.
    """
    _check(image, reference, None)
    if min(image.shape[:2]) < SSIM_WINDOW:
        raise ValueError(f"SSIM needs sides of at least {SSIM_WINDOW} px, not {image.shape[:2]}")
    x, y = image.astype(np.float64), reference.astype(np.float64)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_x, mean_y = _blur(x), _blur(y)
    var_x, var_y = _blur(x * x) - mean_x**2, _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    top = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    bottom = (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    return np.asarray((top / bottom).mean(axis=2), np.float64)


def ssim(image: Image, reference: Image, mask: Mask | None = None) -> float:
    """Mean of `ssim_map` over all pixels, or over the mask's. Raises ValueError for an empty mask."""
    _check(image, reference, mask)
    values = ssim_map(image, reference)
    if mask is None:
        return float(values.mean())
    if not mask.any():
        raise ValueError("SSIM inside an empty mask is not defined")
    return float(values[mask].mean())


def l1(image: Image, reference: Image, mask: Mask | None = None) -> float:
    """Mean absolute difference in [0, 1] over all pixels, or over the mask's."""
    _check(image, reference, mask)
    difference = np.abs(image.astype(np.float64) - reference) / 255
    if mask is not None:
        if not mask.any():
            raise ValueError("L1 inside an empty mask is not defined")
        difference = difference[mask]
    return float(difference.mean())


def mask_iou(mask: Mask, reference: Mask) -> float:
    """Intersection over union of two HW bool masks, in [0, 1]; 1 when both are empty."""
    if mask.shape != reference.shape:
        raise ValueError(f"masks of different sizes: {mask.shape} and {reference.shape}")
    union = int((mask | reference).sum())
    return 1.0 if union == 0 else int((mask & reference).sum()) / union


def _blur(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    size = (SSIM_WINDOW, SSIM_WINDOW)
    out = cv2.GaussianBlur(values, size, SSIM_SIGMA, borderType=cv2.BORDER_REFLECT)
    return np.asarray(out, np.float64)


def _check(image: Image, reference: Image, mask: Mask | None) -> None:
    if image.shape != reference.shape or image.ndim != 3:
        raise ValueError(f"expected two HWC images of one size, not {image.shape} and {reference.shape}")
    if mask is not None and (mask.shape != image.shape[:2] or mask.dtype != np.bool_):
        raise ValueError(f"the mask must be HW bool of {image.shape[:2]}, not {mask.dtype} {mask.shape}")


TEXTURE = 2.0
"""Sigma, pixels: what a Gaussian of this width leaves is no texture."""
RING = 16
"""Pixels round a hole whose texture its fill is compared with."""


def texture(image: Image, region: Mask) -> float:
    """How strong fine detail is: rms over a region of (grey - its Gaussian of TEXTURE px), in grey levels.

    Raises ValueError for an empty region: there is nothing to measure.
    """
    _check(image, image, region)
    if not region.any():
        raise ValueError("texture of an empty region is not defined")
    grey = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.float64)
    detail = grey - np.asarray(cv2.GaussianBlur(grey, (0, 0), TEXTURE), np.float64)
    return float(np.sqrt((detail[region] ** 2).mean()))


def ring(mask: Mask) -> Mask:
    """HW bool: what lies within RING px of a mask, and not in it."""
    away = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray((away <= RING) & ~mask, np.bool_)


def thickness(mask: Mask) -> float:
    """How thick a mask's strokes are, in pixels: four times the mean distance to their border; 0 for none."""
    if not mask.any():
        return 0.0
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    part = np.pad(mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], 1).astype(np.uint8)
    inside = cv2.distanceTransform(part, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return 4 * float(inside[part > 0].mean()) - 2
