"""An edit laid into stored pixels, whatever their mode, and whether two pictures are equal outside it."""

from __future__ import annotations

import numpy as np

from cleanplate.models.types import Image, Mask
from cleanplate.pipeline.images.decode import PREMULTIPLIED, Decoded, to_eight_bits
from cleanplate.pipeline.images.formats.base import Stored


def merge(decoded: Decoded, edited: Image, mask: Mask) -> Stored:
    """HWC array like `decoded.stored`, with the edit's colours inside the mask; alpha stays."""
    out = decoded.stored.copy()
    colour = edited[mask].astype(np.uint32)
    if decoded.mode in ("L", "LA", "La"):
        # Luma of ITU-R BT.601, which JPEG uses as well; equal channels stay exact.
        colour = ((colour * np.array([299, 587, 114], np.uint32)).sum(axis=1, keepdims=True) + 500) // 1000
    elif decoded.mode == "CMYK":
        # Without black: exactly what `to_rgb` turns back.
        colour = np.concatenate([255 - colour, np.zeros_like(colour[:, :1])], axis=1)
    colour = colour * (257 if decoded.bits == 16 else 1)
    if decoded.mode in PREMULTIPLIED:
        top = np.iinfo(out.dtype).max
        colour = (colour * decoded.stored[mask][:, -1:].astype(np.uint64) + top // 2) // top
    out[mask, : colour.shape[1]] = colour.astype(out.dtype)
    return out


def all_equal(before: Decoded, after: Decoded, near: Mask | None) -> bool:
    """Are colours equal outside `near`, and alpha everywhere? In full depth where both have the same mode."""
    if before.pixels.shape != after.pixels.shape:
        return False
    if before.mode == after.mode and before.bits == after.bits:
        different = before.stored != after.stored
        colours = different[..., :-1] if before.alpha is not None else different
    else:
        colours = before.pixels != after.pixels
    changed = colours.any(axis=2)
    if near is not None:
        changed &= ~near
    if before.alpha is None or after.alpha is None:
        # A decoder may leave out an alpha that is opaque everywhere.
        alphas = [a for a in (before.alpha, after.alpha) if a is not None]
        same = all(int(a.min()) == np.iinfo(a.dtype).max for a in alphas)
    else:
        same = bool((to_eight_bits(before.alpha) == to_eight_bits(after.alpha)).all())
        if before.bits == after.bits:
            same = bool((before.alpha == after.alpha).all())
    return same and not changed.any()
