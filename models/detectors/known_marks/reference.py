"""A known mark as a picture, and the directions of its edges and of an image's: fields of doubled angles."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from cleanplate.models.detectors.known_marks.blend import Render
from cleanplate.models.types import Image, Mask

COARSE = 40
"""Long side of a mark in the coarse search, pixels."""
NOISE = 1.5
"""Grey levels a pixel: gradients about this large count half."""
Floats = npt.NDArray[np.float32]
Angles = npt.NDArray[np.complex64]
"""HW: direction of the edge at each pixel, doubled, as a complex number; its length 0..1 is how sure it is."""


@dataclass(frozen=True)
class Mark:
    """A reference picture. pixels: HWC uint8 RGB. shape: HW uint8, 255 = the mark, 0 = clear. cover: HW bool, the
    pixels that go where it is found."""

    name: str
    pixels: Image
    shape: npt.NDArray[np.uint8]
    cover: Mask

    @property
    def side(self) -> int:
        height, width = self.shape.shape
        return int(max(height, width))


@dataclass(frozen=True)
class Template:
    """A mark at one size and turn. field: edges' doubled angles times weights that sum to 1, conjugated.
    weight: HW, how sure each edge is; they sum to 1."""

    field: Angles
    weight: npt.NDArray[np.float32]


def mark_of(name: str, rgba: npt.NDArray[np.uint8]) -> Mark:
    """A reference cut to its mark. rgba: HWC uint8, 3 or 4 channels.

    With alpha, the mark is what is not clear, and so are the pixels that go. Without, a ground of one colour at the
    border is no part of it, but the whole rectangle round the rest goes: it may have been laid on with its
    ground. Raises ValueError when nothing, or no edge, is left.
    """
    pixels = np.ascontiguousarray(rgba[..., :3])
    clear = rgba.shape[2] == 4 and rgba[..., 3].min() < 255
    inside = rgba[..., 3] > 12 if clear else _off_ground(pixels)
    if not inside.any():
        raise ValueError(f"{name}: nothing but background")
    ys, xs = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    at = np.s_[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1]
    shape = np.ascontiguousarray(rgba[at][..., 3] if clear else inside[at] * np.uint8(255))
    cover = shape > 12 if clear else np.ones_like(inside[at])
    pixels = pixels[at]
    if not clear and not inside.all():  # The ground is known, so the outline counts: a clear rim shows it.
        pixels, shape, cover = (
            np.pad(pixels, ((2, 2), (2, 2), (0, 0)), "edge"),
            np.pad(shape, 2),
            np.pad(cover, 2),
        )
    mark = Mark(name, np.ascontiguousarray(pixels), shape, cover)
    if min(shape.shape) < 4 or not np.any(template_of(mark, COARSE, 0.0).weight):
        raise ValueError(f"{name}: too small, or without edges; it cannot be distinguished from a picture")
    return mark


def _off_ground(pixels: Image) -> Mask:
    """True where a picture differs from the one colour of its border; everywhere when it has none."""
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]]).astype(np.int16)
    ground = np.median(border, axis=0)
    if np.mean(np.abs(border - ground).max(1) > 24) > 0.05:
        return np.ones(pixels.shape[:2], np.bool_)
    return np.asarray(np.abs(pixels.astype(np.int16) - ground).max(2) > 24)


def angles(channels: npt.NDArray[np.uint8], noise: float = NOISE) -> Angles:
    """Doubled angles of an image's edges. channels: HWC uint8, any number of channels."""
    smooth = cv2.GaussianBlur(channels, (0, 0), 0.8).astype(np.float32)
    if smooth.ndim == 2:
        smooth = smooth[..., None]
    total = np.zeros(smooth.shape[:2], np.complex64)
    for c in range(smooth.shape[2]):
        gx = cv2.Scharr(smooth[..., c], cv2.CV_32F, 1, 0, scale=1 / 32)
        gy = cv2.Scharr(smooth[..., c], cv2.CV_32F, 0, 1, scale=1 / 32)
        total += (gx + 1j * gy) ** 2
    energy = np.abs(total)
    return np.asarray(total / (energy + noise**2 + 1e-9), np.complex64)


def template_of(mark: Mark, side: float, turn: float) -> Template:
    """The mark with its long side at `side` pixels, turned by `turn` degrees clockwise, on a canvas that holds it."""
    height, width = mark.shape.shape
    factor = side / mark.side
    reach = math.hypot(height, width) * factor / 2 + 3
    canvas = 2 * math.ceil(reach) + 1
    image, shape = mark.pixels, mark.shape
    if factor < 0.5:  # Average first: a warp takes four pixels of the many.
        size = (max(4, round(width * factor * 2)), max(4, round(height * factor * 2)))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
        shape = np.asarray(cv2.resize(shape, size, interpolation=cv2.INTER_AREA), np.uint8)
    matrix = placing(shape.shape, side / max(shape.shape), turn, (canvas / 2, canvas / 2))
    opaque = bool((mark.shape == 255).all())
    border = cv2.BORDER_REPLICATE if opaque else cv2.BORDER_CONSTANT
    flat = cv2.warpAffine(image, matrix, (canvas, canvas), flags=cv2.INTER_LINEAR, borderMode=border)
    cover = cv2.warpAffine(shape, matrix, (canvas, canvas), flags=cv2.INTER_LINEAR)
    if opaque:
        field = angles(np.asarray(flat, np.uint8), 10.0)
        # What lies round a rectangle cut from elsewhere is not known, so its own outline does not count.
        field = field * (cv2.erode(cover, np.ones((5, 5), np.uint8)) > 250)
    else:
        share = cover[..., None].astype(np.float32) / 255
        over = np.uint8(np.round(flat * share + 128 * (1 - share)))
        field = angles(np.dstack([over, cover]), 10.0)
    sure = np.abs(field)
    weight = np.where(sure > 0.25, sure, 0).astype(np.float32)
    weight /= max(float(weight.sum()), 1e-6)
    unit = field / np.maximum(sure, 1e-6)
    return Template(np.asarray(unit * weight, np.complex64), weight)


def placing(
    size: tuple[int, ...], factor: float, turn: float, centre: tuple[float, float]
) -> npt.NDArray[np.float64]:
    """2x3: from a picture of size (height, width) to where it lies scaled, turned clockwise, about `centre` x, y."""
    cos, sin = factor * math.cos(math.radians(turn)), factor * math.sin(math.radians(turn))
    # Pixel centres: the middle of a picture w wide is at (w - 1) / 2.
    mid_x, mid_y = (size[1] - 1) / 2, (size[0] - 1) / 2
    to_x, to_y = centre[0] - 0.5, centre[1] - 0.5
    return np.array(
        [[cos, -sin, to_x - cos * mid_x + sin * mid_y], [sin, cos, to_y - sin * mid_x - cos * mid_y]]
    )


def resized(image: Image, size: tuple[int, int]) -> Image:
    shrinks = size[0] < image.shape[1]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, size, interpolation=how), np.uint8)


def renderer(mark: Mark) -> Render:
    """Draws the mark for `blend`: its colours times its alpha, and its alpha."""
    whole = mark.shape.astype(np.float32) / 255
    sizes = [(whole, mark.pixels * whole[..., None])]
    while min(sizes[-1][0].shape) > 32:  # halves, so that a warp skips no pixels
        size = (sizes[-1][0].shape[1] // 2, sizes[-1][0].shape[0] // 2)
        smaller = [cv2.resize(part, size, interpolation=cv2.INTER_AREA) for part in sizes[-1]]
        sizes.append((np.asarray(smaller[0], np.float32), np.asarray(smaller[1], np.float32)))

    def render(side: float, turn: float, x: float, y: float, size: tuple[int, int]) -> tuple[Floats, Floats]:
        shape, colours = next((s for s in reversed(sizes) if max(s[0].shape) >= side), sizes[0])
        matrix = placing(shape.shape, side / max(shape.shape), turn, (x, y))
        warped = [
            cv2.warpAffine(part, matrix, (size[1], size[0]), flags=cv2.INTER_LINEAR)
            for part in (colours, shape)
        ]
        return np.asarray(warped[0], np.float32), np.asarray(warped[1], np.float32)

    return render
