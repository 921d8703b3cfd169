"""A mark laid over a picture, with known opacity and colour: does a picture carry it, and what lies below it.

    J = (1 - a) I + a W          a: opacity, W: colour, I: the picture, J: what the file holds

models/static_watermark/matte.py finds a and W from many pictures; models/static_watermark/overlay_jpeg.py
undoes the blend in a JPEG's own planes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from cleanplate.models.lama.prefill import pyramid_fill
from cleanplate.models.static_watermark.edges import Floats, edges_in
from cleanplate.models.static_watermark.ycc import to_ycc
from cleanplate.models.types import Image, Mask

Anchor = tuple[float, float]
"""(x, y), shares of the room to the left and above: (0, 0) top left, (1, 1) bottom right, (.5, .5) the centre."""
PRESENT = 0.5
"""An image of this `strength` and above carries the mark; the fits of marks are near 1, of their absence near 0."""


@dataclass(frozen=True)
class Mark:
    """An overlay. box: xyxy pixels of a frame of (width, height) pixels; alpha: HW float32 in [0, 1]; colour: HWC
    float32 RGB, 0 to 255; both of the box's size. support: the images that it was found in. anchor: None for a
    mark that grows with the picture; else it keeps its size in pixels, and its place from there.

    relief: HWC float32, levels, what the pictures share there; parts: HW uint8, the part of the mark that an edge pixel
    belongs to, 0 elsewhere (models/traces.py). unsure: HW bool, what is not known well enough to be computed back."""

    box: tuple[int, int, int, int]
    alpha: Floats
    colour: Floats
    frame: tuple[int, int]
    support: int = 0
    anchor: Anchor | None = None
    relief: Floats | None = None
    parts: npt.NDArray[np.uint8] | None = None
    unsure: Mask | None = None

    @property
    def mask(self) -> Mask:
        """HW bool of the box: where the mark is."""
        there = self.alpha > 0
        return np.asarray(there if self.unsure is None else there | self.unsure)

    def to_fill(self, most: float) -> Mask:
        """HW bool of the box: what cannot be computed back, because it lets less than 1 - `most` through or is not
        known well enough."""
        dense = self.alpha >= most
        return np.asarray(dense if self.unsure is None else dense | self.unsure)


def placed(mark: Mark, size: tuple[int, int]) -> Mark | None:
    """The mark as it lies in a picture of (width, height) pixels, its new frame; None where it has no room: a mark
    of so many pixels in a smaller picture."""
    if mark.frame == size:
        return mark
    if mark.anchor is None:
        return _scaled(mark, size)
    x, y = shift(mark.anchor, mark.frame, size)
    box = (mark.box[0] + x, mark.box[1] + y, mark.box[2] + x, mark.box[3] + y)
    inside = box[0] >= 0 and box[1] >= 0 and box[2] <= size[0] and box[3] <= size[1]
    return replace(mark, box=box, frame=size) if inside else None


def shift(anchor: Anchor, frame: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """(x, y) pixels: where the frame's corner lies in a picture of `size`, both (width, height)."""
    return int((size[0] - frame[0]) * anchor[0] // 1), int((size[1] - frame[1]) * anchor[1] // 1)


def _scaled(mark: Mark, size: tuple[int, int]) -> Mark:
    fx, fy = size[0] / mark.frame[0], size[1] / mark.frame[1]
    x0, y0 = round(mark.box[0] * fx), round(mark.box[1] * fy)
    x1, y1 = min(size[0], round(mark.box[2] * fx)), min(size[1], round(mark.box[3] * fy))
    to = (max(1, x1 - x0), max(1, y1 - y0))
    way = cv2.INTER_AREA if fx * fy < 1 else cv2.INTER_LINEAR
    alpha = np.asarray(cv2.resize(mark.alpha, to, interpolation=way), np.float32)
    colour = np.asarray(cv2.resize(mark.colour, to, interpolation=way), np.float32)
    found = replace(mark, box=(x0, y0, x0 + to[0], y0 + to[1]), alpha=alpha, colour=colour, frame=size)
    if mark.relief is not None and mark.parts is not None:
        relief = np.asarray(cv2.resize(mark.relief, to, interpolation=way), np.float32)
        parts = np.asarray(cv2.resize(mark.parts, to, interpolation=cv2.INTER_NEAREST), np.uint8)
        found = replace(found, relief=relief, parts=parts)
    if mark.unsure is not None:
        unsure = cv2.resize(mark.unsure.astype(np.uint8), to, interpolation=cv2.INTER_NEAREST) > 0
        found = replace(found, unsure=np.asarray(unsure))
    return found


def strength(image: Image, mark: Mark) -> float:
    """How strongly an image carries the mark: about 1 with it, about 0 without (or after it was taken off).

    image: HWC uint8 RGB, the frame that mark.box lies in. A robust fit of the image's gradients by those that
    the mark would make; nan where the mark would make none (its own colour everywhere).
    """
    x0, y0, x1, y1 = mark.box
    window = image[y0:y1, x0:x1].astype(np.float32)
    rim = cv2.dilate(mark.mask.astype(np.uint8), np.ones((5, 5), np.uint8))
    under = to_ycc(inpainted(window[None], rim > 0)[0])
    alpha = mark.alpha[..., None]
    fields = [to_ycc(window), under, alpha, alpha * to_ycc(mark.colour)]
    # Colour is compared at half the size: many files hold no more of it.
    pairs = [
        _steps(fields, rim, slice(0, 1)),
        _steps([_halved(f) for f in fields], _halved(rim.astype(np.float32)), slice(1, 3)),
    ]
    pairs = [(steps, attempt) for steps, attempt in pairs if len(steps)]
    if sum(float((attempt * attempt).sum()) for _, attempt in pairs) < 1:
        return float("nan")
    fit, weights = 0.0, [np.ones((len(steps), 1), np.float32) for steps, _ in pairs]
    for _ in range(6):
        both = [(w * s * m, w * m * m) for w, (s, m) in zip(weights, pairs, strict=True)]
        fit = sum(float(a.sum()) for a, _ in both) / (sum(float(b.sum()) for _, b in both) + 1e-9)
        sizes = [((s - fit * m) ** 2).mean(axis=1, keepdims=True) for s, m in pairs]
        weights = [1 / (size + (np.sqrt(np.median(size)) + 1) ** 2) for size in sizes]
    return fit


def _steps(fields: Sequence[Floats], rim: npt.NDArray[Any], channels: slice) -> tuple[Floats, Floats]:
    """E x C each: the steps of a picture, and those that the mark would make in it. fields: picture, picture
    without the mark, opacity, colour times opacity: HWC."""
    edges = edges_in(rim > 0)
    seen, under, alpha, over = (f.reshape(1, -1, f.shape[2]) for f in fields)
    predicted = edges.differences(over) - edges.differences(alpha) * edges.levels(under)
    return edges.differences(seen)[0, :, channels], predicted[0, :, channels]


def _halved(field: Floats) -> Floats:
    height, width = (max(1, n // 2) for n in field.shape[:2])
    small = cv2.resize(field[: 2 * height, : 2 * width], (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.float32).reshape(height, width, *field.shape[2:])


def inpainted(images: Floats, hole: Mask) -> Floats:
    """N x H x W x 3, 0 to 255: the images with the hole filled smoothly from outside."""
    mask = torch.from_numpy(hole.astype(np.float32))[None, None]
    filled = []
    with torch.inference_mode():
        for image in images:
            known = torch.from_numpy(image / 255).permute(2, 0, 1)[None] * (1 - mask)
            filled.append(pyramid_fill(torch.cat([known, mask], 1))[0].permute(1, 2, 0).numpy() * 255)
    return np.stack(filled).astype(np.float32)


def take_off(image: Image, mark: Mark, most: float = 0.7) -> tuple[Image, Mask]:
    """Undo the blend where the opacity allows it.

    image: HWC uint8 RGB, the frame that mark.box lies in. Gives the image without the mark (equal to the input
    outside it), and HW bool of the whole image: what has to be inpainted (`Mark.to_fill`).
    """
    x0, y0, x1, y1 = mark.box
    a = mark.alpha[..., None]
    window = image[y0:y1, x0:x1].astype(np.float32)
    return laid(image, mark, (window - a * mark.colour) / np.maximum(1 - a, 0.05), most)


def laid(image: Image, mark: Mark, below: npt.NDArray[np.floating], most: float) -> tuple[Image, Mask]:
    """`below`, HWC RGB of the mark's box, laid where the mark is and lets through enough; see `take_off`."""
    x0, y0, x1, y1 = mark.box
    out = image.copy()
    rest = np.zeros(image.shape[:2], np.bool_)
    rest[y0:y1, x0:x1] = mark.to_fill(most)
    kept = (mark.mask & ~mark.to_fill(most))[..., None]
    clean = np.clip(np.rint(below), 0, 255).astype(np.uint8)
    out[y0:y1, x0:x1] = np.where(kept, clean, image[y0:y1, x0:x1])
    return out, rest
