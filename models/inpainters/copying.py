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
from cleanplate.models.inpainters.exemplars import DETAIL, Floats, textured
from cleanplate.models.metrics.pixelwise import ring
from cleanplate.models.types import Image, Inpainter, Mask

WINDOW = CropSettings(max_side=1024)
"""What is searched for texture: a crop round the hole. Its cost grows with its area."""
SEARCHED = CropSettings(max_side=512)
"""The same for PatchMatch, which costs more."""
MOST_FILLED = 16_000
"""Pixels of a hole that PatchMatch fills at full size; a larger one is filled at a reduced size first."""
LARGE, MOST_SEARCHED = 8_000, 24_000


@dataclass(frozen=True)
class Agreement:
    """How a copied fill and a network's become one.

    sigma: pixels, of what counts as colours and coarse shapes. low, high: grey levels by which those may differ, and
    from which they are the network's alone. emphasis: by so much copied detail is strengthened. added: copied detail
    comes on top of the network's own, which is right where it has some; else in its place.
    """

    sigma: float
    low: float
    high: float
    emphasis: float
    added: bool = False


OF_THINGS = Agreement(3.0, 12.0, 30.0, 0.05)
OF_STROKES = Agreement(1.5, 0.0, 10.0, 0.1, added=True)
"""Both were chosen on photographs that no score is reported of (docs/notebook.md). Below a stroke the network sees what
is there on both sides: it is trusted earlier."""
FEWEST = 64
"""With fewer pixels to copy from there is no texture."""
LEAST_NEAR = 0.35
"""Share of what lies round a hole that must be free to copy: from far away comes what does not belong, and strokes that
are filled with it stay legible."""
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
    """Another inpainter's fill, a network's as a rule, with the fine detail of its surroundings.

    PatchMatch fills the hole, too. Where its colours are within AGREE of the network's it is taken as it is; the more
    they differ, the more the network's colours and coarse shapes take their place, and only the detail is PatchMatch's.
    Holes above LARGE pixels are searched with smaller patches, which costs less and keeps more texture; above
    MOST_SEARCHED their detail comes from `exemplars`, which costs least.

    thin: for strokes of letters and lines. Their patches are small, and the network is trusted sooner.
    """

    def __init__(self, base: Inpainter, window: CropSettings = WINDOW, *, thin: bool = False) -> None:
        self.base, self.window, self.thin = base, window, thin
        self.name = f"{base.name}+{'strokes' if thin else 'texture'}"

    def __call__(
        self, images: list[Image], masks: list[Mask], forbidden: Forbidden | None = None
    ) -> list[Image]:
        results = self.base(images, masks, forbidden)
        for filled, mask, closed in zip(results, masks, forbidden or [None] * len(masks), strict=True):
            guide = filled.copy()
            for crop in plan_crops(mask, self.window):
                paste(filled, mask, crop, _with_detail(piece_of(guide, mask, closed, crop), self.thin))
                progressed()
        return results


def _with_detail(piece: Piece, thin: bool) -> Image:
    """A piece whose image is filled already, by a network."""
    filled = int(np.count_nonzero(piece.hole))
    around = ring(piece.hole)
    near = np.count_nonzero(around & ~piece.closed)
    if near < max(FEWEST, LEAST_NEAR * np.count_nonzero(around)):
        return piece.image
    if filled > MOST_SEARCHED:
        return textured(piece.image, piece.hole, piece.closed)
    found = searched(piece, 3 if filled <= LARGE and not thin else 2)
    copied = np.where(piece.hole[..., None], found, piece.image)
    return agreed(piece.image, copied, OF_STROKES if thin else OF_THINGS)


def agreed(guide: Image, found: Image, rule: Agreement) -> Image:
    """One fill of two of the same hole, HWC uint8 RGB: `found` where its colours are the guide's, else its detail on
    the guide, as the rule says."""
    network, copied = guide.astype(np.float32), found.astype(np.float32)
    apart = _blurred(network, rule.sigma) - _blurred(copied, rule.sigma)
    strays = _blurred(np.abs(apart).max(-1), 2.0)
    share = np.clip((strays - rule.low) / (rule.high - rule.low), 0, 1)[..., None]
    detail = copied - _blurred(copied, DETAIL)
    other = network + detail - copied if rule.added else apart
    out = copied + share * other + rule.emphasis * detail
    return np.asarray(np.clip(np.rint(out), 0, 255), np.uint8)


def _blurred(values: Floats, sigma: float) -> Floats:
    return np.asarray(cv2.GaussianBlur(values, (0, 0), sigma), np.float32)


@dataclass
class PatchMatch:
    """PatchMatch (Barnes et al. 2009) in the form of the package pypatchmatch. radius: pixels of its patches about
    their middle. Starts every search from one seed, whatever other threads do.

    Restores regular texture where a network leaves a blur, and now and then copies what does not belong. A hole of
    more than MOST_FILLED pixels is filled at a reduced size, and given its texture at full size (`exemplars`).
    """

    radius: int = 3
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
            return searched(piece, self.radius)
        height, width = piece.hole.shape
        size = max(16, round(height * share)), max(16, round(width * share))
        crop = Crop((0, 0, width, height), (0, 0, width, height), size)
        small = searched(piece_of(piece.image, piece.hole, piece.closed, crop), self.radius)
        large = resize(small, (height, width), cv2.INTER_CUBIC)
        guide = np.where(piece.hole[..., None], large, piece.image)
        return textured(guide, piece.hole, piece.closed)


def searched(piece: Piece, radius: int) -> Image:
    """The crop with its hole filled by PatchMatch; where there is hardly anything to copy, by what surrounds it.
    radius: pixels of its patches about their middle."""
    clean = np.where(piece.closed[..., None], np.uint8(0), piece.image)
    if np.count_nonzero(~piece.closed) < FEWEST:
        return _continued(clean, piece.closed)
    kept_out = piece.closed & ~piece.hole
    with _SEARCH:
        patchmatch.set_random_seed(SEED)
        found = patchmatch.inpaint(clean, piece.hole, global_mask=kept_out, patch_size=radius)
    return np.asarray(found, np.uint8)


def _continued(image: Image, closed: Mask) -> Image:
    """OpenCV's fill of all that is closed; black where nothing else is there."""
    if closed.all():
        return np.zeros_like(image)
    return np.asarray(cv2.inpaint(image, closed.astype(np.uint8), 3.0, cv2.INPAINT_TELEA), np.uint8)
