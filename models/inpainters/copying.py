"""Inpainters that copy from the surroundings: PatchMatch, and texture on top of another inpainter's fill.

Both keep the promises of `inpainters`, and copy nothing from a hole nor from what is forbidden.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass

import cv2
import numpy as np
import patchmatch

from cleanplate.models.devices import progressed
from cleanplate.models.inpainters.contract import Forbidden, check_pairs
from cleanplate.models.inpainters.crops import Crop, CropSettings, cut, paste, plan_crops, resize
from cleanplate.models.inpainters.exemplars import textured
from cleanplate.models.types import Image, Inpainter, Mask

WINDOW = CropSettings(max_side=1024)
"""What is searched for texture: a crop round the hole. Its cost grows with its area."""
SEARCHED = CropSettings(max_side=512)
"""The same for PatchMatch, which costs more."""
MOST_FILLED = 16_000
"""Pixels of a hole that PatchMatch fills at full size; a larger one is filled at a reduced size first."""
FEWEST = 64
"""With fewer pixels to copy from there is no texture."""
SEED = 0
_SEARCH = threading.Lock()
"""PatchMatch has one seed for the process: who sets it must be alone until the search has begun from it."""


@dataclass(frozen=True)
class Piece:
    """One crop of a picture: HWC uint8 RGB; what is filled, and what may not be copied from, HW bool each."""

    image: Image
    hole: Mask
    closed: Mask


def piece_of(image: Image, mask: Mask, forbidden: Mask | None, crop: Crop) -> Piece:
    """A crop of a picture at the crop's size. Of its hole only what this crop fills; all holes are closed."""
    seen, everywhere = cut(image, mask, crop)
    x0, y0, x1, y1 = crop.holes
    mine = np.zeros_like(mask)
    mine[y0:y1, x0:x1] = mask[y0:y1, x0:x1]
    hole = cut(image, mine, crop)[1]
    closed = everywhere if forbidden is None else everywhere | cut(image, forbidden, crop)[1]
    return Piece(seen, hole, closed)


class Textured:
    """Another inpainter's fill, with the fine detail of its surroundings (`exemplars`)."""

    def __init__(self, base: Inpainter, window: CropSettings = WINDOW) -> None:
        self.base, self.window = base, window
        self.name = f"{base.name}+texture"

    def __call__(
        self, images: list[Image], masks: list[Mask], forbidden: Forbidden | None = None
    ) -> list[Image]:
        results = self.base(images, masks, forbidden)
        for filled, mask, closed in zip(results, masks, forbidden or [None] * len(masks), strict=True):
            guide = filled.copy()
            for crop in plan_crops(mask, self.window):
                piece = piece_of(guide, mask, closed, crop)
                paste(filled, mask, crop, textured(piece.image, piece.hole, piece.closed))
                progressed()
        return results


@dataclass
class PatchMatch:
    """PatchMatch (Barnes et al. 2009) in the form of the package pypatchmatch. radius: pixels of its patches about
    their middle. Starts every search from one seed, whatever other threads do.

    Restores regular texture where a network leaves a blur, and now and then copies what does not belong. A hole of
    more than MOST_FILLED pixels is filled at a reduced size, and given its texture at full size (`exemplars`).
    """

    radius: int = 5
    name: str = "patchmatch"

    def __call__(
        self, images: list[Image], masks: list[Mask], forbidden: Forbidden | None = None
    ) -> list[Image]:
        check_pairs(images, masks)
        results = [image.copy() for image in images]
        for filled, image, mask, closed in zip(
            results, images, masks, forbidden or [None] * len(masks), strict=True
        ):
            for crop in plan_crops(mask, SEARCHED):
                paste(filled, mask, crop, self._fill(piece_of(image, mask, closed, crop)))
                progressed()
        return results

    def _fill(self, piece: Piece) -> Image:
        share = math.sqrt(MOST_FILLED / max(int(np.count_nonzero(piece.hole)), 1))
        if share >= 1:
            return self._search(piece)
        height, width = piece.hole.shape
        size = max(16, round(height * share)), max(16, round(width * share))
        crop = Crop((0, 0, width, height), (0, 0, width, height), size)
        small = self._search(piece_of(piece.image, piece.hole, piece.closed, crop))
        large = resize(small, (height, width), cv2.INTER_CUBIC)
        guide = np.where(piece.hole[..., None], large, piece.image)
        return textured(guide, piece.hole, piece.closed)

    def _search(self, piece: Piece) -> Image:
        """The crop with its hole filled; where there is hardly anything to copy, by what surrounds it."""
        clean = np.where(piece.closed[..., None], np.uint8(0), piece.image)
        if np.count_nonzero(~piece.closed) < FEWEST:
            return _continued(clean, piece.closed)
        kept_out = piece.closed & ~piece.hole
        with _SEARCH:
            patchmatch.set_random_seed(SEED)
            found = patchmatch.inpaint(clean, piece.hole, global_mask=kept_out, patch_size=self.radius)
        return np.asarray(found, np.uint8)


def _continued(image: Image, closed: Mask) -> Image:
    """OpenCV's fill of all that is closed; black where nothing else is there."""
    if closed.all():
        return np.zeros_like(image)
    return np.asarray(cv2.inpaint(image, closed.astype(np.uint8), 3.0, cv2.INPAINT_TELEA), np.uint8)
