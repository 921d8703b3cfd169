"""What every inpainter keeps: the check of its input, and nothing changed outside the mask."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from cleanplate.models.devices import progressed
from cleanplate.models.types import Image, Mask

Forbidden = Sequence[Mask | None]
"""For each image HW bool, True = nothing may be copied from there; None = nothing is forbidden."""


def check_pairs(images: list[Image], masks: list[Mask]) -> None:
    """Raises ValueError unless each image is HWC uint8 RGB and has a mask HW bool of its size."""
    if len(images) != len(masks):
        raise ValueError(f"{len(images)} images but {len(masks)} masks")
    for i, (image, mask) in enumerate(zip(images, masks, strict=True)):
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(f"image {i} must be HWC uint8 RGB, not {image.dtype} {image.shape}")
        if mask.shape != image.shape[:2] or mask.dtype != np.bool_:
            raise ValueError(f"mask {i} must be HW bool of {image.shape[:2]}, not {mask.dtype} {mask.shape}")


def each(images: list[Image], masks: list[Mask], fill: Callable[[Image, Mask], Image]) -> list[Image]:
    """Applies `fill` to every image with a hole and keeps its result inside the hole only."""
    check_pairs(images, masks)
    filled = []
    for image, mask in zip(images, masks, strict=True):
        filled.append(np.where(mask[..., None], fill(image, mask), image) if mask.any() else image.copy())
        progressed()
    return filled
