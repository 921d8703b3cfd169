"""The strokes of a line of text, by a small network that sees the line straightened.

A text detector tells where a line is; how high its letters are, and that they run from left to right, is then known.
So the line is straightened to a strip of one height with some of what is round it, and a U-Net
(`cleanplate.models.detectors.unet`, the
model `strokes`) gives each pixel of the strip the chance of being lettering. It needs not be able to read: what
it calls strokes in a line that no recogniser reads (another script, a decorative face) is text, and a line in which
it sees nothing is none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from cleanplate.models.detectors import unet
from cleanplate.models.detectors.lettering.lines import Quad
from cleanplate.models.detectors.unet import Probability
from cleanplate.models.types import Image, Mask

HEIGHT = 64
"""Pixels of a strip; the line itself takes LINE of it, in the middle."""
LINE = 42
STEP = 64
"""Widths of strips are multiples of it."""
LONGEST = 2048
"""A longer strip is squeezed to it."""
CLOSER, BEYOND = 0.7, 2.0
"""Of a line's height: what takes LINE pixels at a closer look, so that the line itself fills the strip; and how much
farther it looks at either end, where detectors lose letters."""
GAP = 0.4
"""Of a line's height: what lies beyond its end and farther than this from the strokes before it is no part of it. The
three were chosen on 120 texts on photographs held out of the training (docs/notebook.md)."""
CUT = 0.5
"""Chance from which a pixel is a stroke."""
SURE, ENOUGH = 0.6, 0.05
"""Least `Lettering.sure` and `share` of strokes that are taken for the letters' pixels."""
BATCH_PIXELS = 32 * HEIGHT * 256

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Strip:
    """A straightened line. pixels: HEIGHT x W x 3 uint8 RGB. matrix: 3x3, homogeneous x, y of the image -> of the
    strip. inside: HW bool of the strip, where the line is (the rest is what surrounds it)."""

    pixels: Image
    matrix: Matrix
    inside: Mask


def placing(quad: Quad) -> tuple[Matrix, int]:
    """(3x3 from image pixels to the strip's, the strip's width) of a line's quadrilateral (4x2 x, y, its start's top
    first, then clockwise)."""
    along = float(np.linalg.norm(quad[1] - quad[0]))
    across = max(1.0, float(np.linalg.norm(quad[3] - quad[0])))
    length = min(LINE * along / across, LONGEST - STEP)
    width = max(STEP, math.ceil((length + HEIGHT - LINE) / STEP) * STEP)
    x, y = (width - length) / 2, (HEIGHT - LINE) / 2
    target = np.array([[x, y], [x + length, y], [x + length, y + LINE], [x, y + LINE]], np.float32)
    # Corners are given in pixel edges, a warp counts pixel centres.
    source = (quad - 0.5).astype(np.float32)
    return np.asarray(cv2.getPerspectiveTransform(source, target - 0.5), np.float64), width


def straightened(image: Image, quad: Quad) -> Strip:
    """The line with what is round it, HEIGHT pixels high; averaged where it shrinks."""
    matrix, width = placing(quad)
    pixels = warped(image, matrix, width)
    corners = cv2.perspectiveTransform(quad[None] - 0.5, matrix)[0]
    inside = cv2.fillConvexPoly(np.zeros((HEIGHT, width), np.uint8), np.round(corners).astype(np.int32), 1)
    return Strip(pixels, matrix, inside > 0)


def warped(image: npt.NDArray[np.uint8], matrix: Matrix, width: int) -> npt.NDArray[np.uint8]:
    """An image (HW or HWC uint8) seen through `placing`'s matrix, averaged down first where a warp would skip pixels.
    Its border is continued outwards."""
    factor = 1 / max(1e-6, math.sqrt(abs(float(np.linalg.det(matrix[:2, :2])))))
    if factor > 1.5:
        height, long = image.shape[:2]
        x0, y0, x1, y1 = _seen(matrix, width, long, height)
        part = np.ascontiguousarray(image[y0:y1, x0:x1])
        size = (max(1, round((x1 - x0) / factor)), max(1, round((y1 - y0) / factor)))
        image = np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_AREA), np.uint8)
        fx, fy = size[0] / (x1 - x0), size[1] / (y1 - y0)
        # small = (full + .5 - corner) * f - .5, in pixel centres
        to_small = np.array([[fx, 0, (0.5 - x0) * fx - 0.5], [0, fy, (0.5 - y0) * fy - 0.5], [0, 0, 1]])
        matrix = matrix @ np.linalg.inv(to_small)
    return np.asarray(
        cv2.warpPerspective(
            image, matrix, (width, HEIGHT), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        ),
        np.uint8,
    )


def _seen(matrix: Matrix, width: int, long: int, height: int) -> tuple[int, int, int, int]:
    """xyxy of the part of an image (long x height) that a strip shows, with a rim; never empty."""
    corners = np.array([[[0, 0], [width, 0], [width, HEIGHT], [0, HEIGHT]]], np.float64)
    points = cv2.perspectiveTransform(corners, np.linalg.inv(matrix))[0]
    low = np.clip(np.floor(points.min(0)).astype(int) - 2, 0, [long - 1, height - 1])
    high = np.clip(np.ceil(points.max(0)).astype(int) + 3, low + 1, [long, height])
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


@dataclass(frozen=True)
class Lettering:
    """What was seen in one line. strokes: HW bool of the image, tight. share: of the line's area that is strokes.
    sure: mean chance of the strokes' pixels; 0 without any."""

    strokes: Mask
    share: float
    sure: float

    @property
    def clear(self) -> bool:
        """Whether enough was seen for the strokes to be the line's mask."""
        return self.sure >= SURE and self.share >= ENOUGH


class StrokeFinder:
    """(image, quadrilaterals) -> Lettering of each; a line's strokes may stand out of it by a quarter of its height.

    path: weights of the model `strokes`. Holds no state between calls. Raises ValueError for weights of another
    network.
    """

    def __init__(self, path: Path | str, device: str = "cpu") -> None:
        self._net = unet.load(Path(path), "strokes").to(device)

    def __call__(self, image: Image, quads: Sequence[Quad]) -> list[Lettering]:
        """image: HWC uint8 RGB."""
        strips = [straightened(image, quad) for quad in quads]
        return [
            put_back(image.shape[:2], strip, chance)
            for strip, chance in zip(strips, self.chances(strips), strict=True)
        ]

    def closer(self, image: Image, quads: Sequence[Quad], seen: Sequence[Lettering]) -> list[Mask]:
        """The strokes of each line once more, HW bool of the image: from a closer look, upright and upside down, and
        of what the line's detector lost at its ends. What it does not reach, letters that stand out of their line, is
        as `seen`, what a call gave for the same lines.

        Whether a line is lettering is decided by the view with more of its surroundings, so that is not asked here.
        """
        strips = [straightened(image, close_up(quad)) for quad in quads]
        turned = [replace(strip, pixels=np.ascontiguousarray(strip.pixels[::-1, ::-1])) for strip in strips]
        chances = self.chances([*strips, *turned])
        found = []
        for strip, wide, up, down in zip(strips, seen, chances, chances[len(strips) :], strict=False):
            chance = without_next(np.asarray((up + down[::-1, ::-1]) / 2, np.float32), strip.inside)
            place, near = _placed(wide.strokes.shape, strip, chance)
            reached = _placed(wide.strokes.shape, strip, np.ones_like(chance))[1] > CUT
            mask = wide.strokes.copy()
            mask[place] = np.where(reached, near > CUT, mask[place])
            found.append(mask if mask.any() else wide.strokes)
        return found

    def chances(self, strips: Sequence[Strip]) -> list[Probability]:
        """HEIGHT x W float32 in [0, 1] of each strip. Strips of one width share a batch."""
        out: dict[int, Probability] = {}
        by_width: dict[int, list[int]] = {}
        for number, strip in enumerate(strips):
            by_width.setdefault(strip.pixels.shape[1], []).append(number)
        for width, numbers in by_width.items():
            count = max(1, BATCH_PIXELS // (HEIGHT * width))
            for start in range(0, len(numbers), count):
                some = numbers[start : start + count]
                found = unet.probability(self._net, [strips[n].pixels for n in some])
                out |= dict(zip(some, found, strict=True))
        return [out[n] for n in range(len(strips))]


def close_up(quad: Quad) -> Quad:
    """The quadrilateral whose strip is a closer look at a line's: lower by CLOSER, longer by BEYOND at either end."""
    along, down = quad[1] - quad[0], quad[3] - quad[0]
    beyond = BEYOND * float(np.linalg.norm(down)) / max(float(np.linalg.norm(along)), 1e-6)
    across = (1 - CLOSER) / 2
    shares = np.array(
        [[-beyond, across], [1 + beyond, across], [1 + beyond, 1 - across], [-beyond, 1 - across]]
    )
    top, bottom = (quad[0] + shares[:, :1] * along, quad[3] + shares[:, :1] * (quad[2] - quad[3]))
    return np.asarray(top + shares[:, 1:] * (bottom - top), np.float64)


def without_next(chance: Probability, inside: Mask) -> Probability:
    """The chances of a close-up's strip, 0 for what lies beyond the line's ends and apart from it (GAP)."""
    high = LINE / CLOSER
    columns = np.flatnonzero(inside.any(0))
    inked = np.asarray(np.any((chance > CUT) & inside, axis=0))
    out = chance.copy()
    for column, step in ((columns[-1] - round(BEYOND * high), 1), (columns[0] + round(BEYOND * high), -1)):
        empty = 0
        while 0 <= column < inked.size and empty <= GAP * high:
            empty = 0 if inked[column] else empty + 1
            column += step
        if column >= 0:
            out[:, column::step] = 0
    return out


def put_back(shape: tuple[int, int], strip: Strip, chance: Probability) -> Lettering:
    """A strip's chances (HW float32 in [0, 1]), back in the image of shape (H, W)."""
    inner = chance[strip.inside]
    strokes = inner > CUT
    mask = np.zeros(shape, np.bool_)
    place, seen = _placed(shape, strip, chance)
    mask[place] = seen > CUT
    return Lettering(
        mask,
        float(strokes.mean()) if inner.size else 0.0,
        float(inner[strokes].mean()) if strokes.any() else 0.0,
    )


def _placed(
    shape: tuple[int, ...], strip: Strip, chance: Probability
) -> tuple[tuple[slice, slice], Probability]:
    """(the part of an image of shape (H, W) that a strip shows, its chances there), 0 farther than half a line from the
    line."""
    reach = strip.inside.astype(np.uint8)
    near = cv2.dilate(reach, np.ones((LINE // 2 + 1, LINE // 2 + 1), np.uint8)) > 0
    x0, y0, x1, y1 = _seen(strip.matrix, chance.shape[1], shape[1], shape[0])
    shift = np.array([[1, 0, x0], [0, 1, y0], [0, 0, 1]], np.float64)
    seen = cv2.warpPerspective(
        np.where(near, chance, np.float32(0)),
        strip.matrix @ shift,
        (x1 - x0, y1 - y0),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
    )
    return np.s_[y0:y1, x0:x1], np.asarray(seen, np.float32)
