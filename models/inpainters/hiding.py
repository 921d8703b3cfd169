"""Inpainters that hide: the thing is still there, and nobody can tell which or who. None of them removes.

All keep the promises of `inpainters`.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from cleanplate.models.inpainters.contract import Forbidden, each
from cleanplate.models.inpainters.crops import hole_boxes, resize
from cleanplate.models.types import Image, Mask

# Hiding takes things this near together (half the distance, pixels), so that a word is blurred as a word and
# not letter by letter, each with a blur of a letter's size.
HIDE_GAP = 8


def _each_box(image: Image, mask: Mask, change: Callable[[Image], Image]) -> Image:
    """`change` applied to the box round each group of mask pixels; boxes are read from the input image."""
    out = image.copy()
    for x0, y0, x1, y1 in hole_boxes(mask, gap=HIDE_GAP).tolist():
        changed = change(image[y0:y1, x0:x1])
        hole = mask[y0:y1, x0:x1]
        out[y0:y1, x0:x1][hole] = changed[hole]
    return out


@dataclass
class Blur:
    """Gaussian blur of what is under the mask; sigma is `strength` times the longer side of each box.

    Hides, does not remove: colours and coarse shapes stay.
    """

    strength: float = 0.15
    name: str = "blur"

    def __call__(
        self, images: list[Image], masks: list[Mask], forbidden: Forbidden | None = None
    ) -> list[Image]:
        def blur(part: Image) -> Image:
            sigma = max(1.0, self.strength * max(part.shape[:2]))
            return np.asarray(
                cv2.GaussianBlur(part, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE), np.uint8
            )

        return each(images, masks, lambda image, mask: _each_box(image, mask, blur))


@dataclass
class Pixelate:
    """Mean colours of what is under the mask, on a grid of `cells` along the longer side of each box, none smaller
    than `smallest` pixels, each lighter or darker by up to `noise` grey levels.

    With 5 cells and 8 levels no face of 40 was detected any more, with 8 and none every fifth (docs/notebook.md). The
    noise follows from the hidden pixels themselves: the same picture gives the same mosaic, and who has only the mosaic
    cannot take it off. Hides, does not remove: who has the same photograph can still tell that it is the one.
    """

    cells: int = 5
    smallest: float = 4.0
    noise: int = 8
    name: str = "pixelate"

    def __call__(
        self, images: list[Image], masks: list[Mask], forbidden: Forbidden | None = None
    ) -> list[Image]:
        def pixelate(part: Image) -> Image:
            height, width = part.shape[:2]
            step = max(self.smallest, max(height, width) / self.cells)
            size = (max(1, round(height / step)), max(1, round(width / step)))
            draw = np.random.default_rng(zlib.crc32(part.tobytes()))
            levels = draw.integers(-self.noise, self.noise + 1, (*size, 1))
            means = resize(part, size, cv2.INTER_AREA) + levels
            return resize(np.clip(means, 0, 255).astype(np.uint8), (height, width), cv2.INTER_NEAREST)

        return each(images, masks, lambda image, mask: _each_box(image, mask, pixelate))


@dataclass
class Stylise:
    """A stand-in: the colours of what is under the mask as coarse shading, `cells` means along the longer side of each
    box with soft passages between them. Of a face skin and hair are left, and the side that the light comes from.

    Hides, does not remove.
    """

    cells: int = 3
    name: str = "stylise"

    def __call__(
        self, images: list[Image], masks: list[Mask], forbidden: Forbidden | None = None
    ) -> list[Image]:
        def shade(part: Image) -> Image:
            height, width = part.shape[:2]
            step = max(1.0, max(height, width) / self.cells)
            size = (max(1, round(height / step)), max(1, round(width / step)))
            return resize(resize(part, size, cv2.INTER_AREA), (height, width), cv2.INTER_CUBIC)

        return each(images, masks, lambda image, mask: _each_box(image, mask, shade))


@dataclass
class Fill:
    """One colour (RGB, 0..255). Nothing of what was there survives."""

    colour: tuple[int, int, int] = (0, 0, 0)
    name: str = "fill"

    def __call__(
        self, images: list[Image], masks: list[Mask], forbidden: Forbidden | None = None
    ) -> list[Image]:
        colour = np.array(self.colour, np.uint8)
        return each(images, masks, lambda image, mask: np.broadcast_to(colour, image.shape))
