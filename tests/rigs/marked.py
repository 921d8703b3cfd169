"""Crops of the demo's photographs, and marks to blend over them: a collection under one watermark."""

from __future__ import annotations

import random
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image as Pil
from PIL import ImageDraw, ImageFont

from rigs.scenes import DEMO_PHOTOS

Picture = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
SIZE = (240, 160)
"""Width, height."""


@lru_cache(maxsize=1)
def _sources() -> list[Pil.Image]:
    return [Pil.open(path).convert("RGB") for path in sorted(DEMO_PHOTOS.glob("*.jpg"))]


def crops(n: int, seed: int = 0) -> list[Picture]:
    """n different crops, HWC uint8 RGB of SIZE; the photographs in turn, half of them mirrored."""
    rng = random.Random(seed)
    found = []
    for k in range(n):
        source = _sources()[k % len(_sources())]
        width = rng.randint(SIZE[0], min(source.width, source.height * SIZE[0] // SIZE[1]))
        height = width * SIZE[1] // SIZE[0]
        x, y = rng.randint(0, source.width - width), rng.randint(0, source.height - height)
        crop = source.crop((x, y, x + width, y + height)).resize(SIZE, Pil.Resampling.LANCZOS)
        found.append(np.asarray(crop.transpose(Pil.Transpose.FLIP_LEFT_RIGHT) if k % 2 else crop, np.uint8))
    return found


def drawn(kind: str, opacity: float) -> tuple[Floats, Floats]:
    """A mark over SIZE: opacity HW float32, colour HWC float32, 0 to 255. "text" is white, "logo" red and blue."""
    cover = Pil.new("L", SIZE, 0)
    draw = ImageDraw.Draw(cover)
    colour = np.full((*SIZE[::-1], 3), 255, np.float32)
    if kind == "text":
        draw.text((100, 110), "© Nordlicht", fill=255, font=ImageFont.load_default(24))
    else:
        draw.ellipse((20, 20, 90, 90), outline=255, width=9)
        draw.polygon([(55, 32), (78, 75), (32, 75)], fill=255)
        colour[:, :55], colour[:, 55:] = (220, 30, 30), (30, 60, 200)
    return np.asarray(cover, np.float32) / 255 * opacity, colour


def blended(picture: Picture, alpha: Floats, colour: Floats) -> Picture:
    a = alpha[..., None]
    return np.asarray(np.rint(picture * (1 - a) + colour * a), np.uint8)
