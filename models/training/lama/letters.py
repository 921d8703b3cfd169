"""Holes as most edits have them: the strokes of lines of text."""

from __future__ import annotations

from string import ascii_letters, digits

import numpy as np
from PIL import Image as Pil
from PIL import ImageDraw, ImageFont

from cleanplate.models.segmenters.masks import grow
from cleanplate.models.types import Mask


def letters_mask(rng: np.random.Generator, size: int) -> Mask:
    """Two or three lines of letters and digits a fourteenth to a sixth of the side high, grown by 3 px (size x size
    bool)."""
    page = Pil.new("L", (size, size))
    draw = ImageDraw.Draw(page)
    for _ in range(int(rng.integers(2, 4))):
        font = ImageFont.load_default(int(rng.integers(size // 14, size // 6)))
        words = "".join(rng.choice(list(ascii_letters + digits), int(rng.integers(5, 16))))
        x = int(rng.integers(0, max(1, int(size - 0.7 * draw.textlength(words, font)))))
        draw.text((x, int(rng.integers(0, size - size // 7))), words, fill=255, font=font)
    return grow(np.asarray(page) > 127, 3)


def letters_in(rng: np.random.Generator, size: int, page: int = 256) -> Mask:
    """Letters of a page of `page` px in the part of size x size that holds most of them, of four drawn places; for
    crops smaller than a page, whose letters must be as high as there."""
    if size >= page:
        return letters_mask(rng, size)
    drawn = letters_mask(rng, page)
    places = rng.integers(0, page - size + 1, (4, 2)).tolist()
    parts = [drawn[y : y + size, x : x + size] for y, x in places]
    return max(parts, key=np.count_nonzero)
