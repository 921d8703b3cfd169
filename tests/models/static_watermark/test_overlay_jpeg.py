"""A mark taken off in a JPEG's planes: better than in its pixels, for every way of storing colour."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image as Pil

from cleanplate.models.static_watermark.overlay import Mark, take_off
from cleanplate.models.static_watermark.overlay_jpeg import take_off_jpeg
from cleanplate.models.types import Image
from cleanplate.pipeline.factory.static_watermark import planes_of
from cleanplate.pipeline.images import encode
from rigs.marked import blended, crops, drawn

BOX = (90, 100, 240, 150)
"""Round the text, to the picture's right edge."""


def stored(picture: Image, subsampling: int, quality: int = 92, progressive: bool = False) -> bytes:
    buffer = io.BytesIO()
    Pil.fromarray(picture).save(
        buffer, "JPEG", quality=quality, subsampling=subsampling, progressive=progressive
    )
    return buffer.getvalue()


def known(opacity: float) -> tuple[Mark, Image]:
    """The text in yellow, and the box that it lies in."""
    alpha, colour = drawn("text", opacity)
    colour[:] = (250, 220, 40)
    x0, y0, x1, y1 = BOX
    return Mark(BOX, alpha[y0:y1, x0:x1], colour[y0:y1, x0:x1], (240, 160)), colour


def noise(a: Image, b: Image, where: np.ndarray) -> float:
    return float(((a[where].astype(float) - b[where]) ** 2).mean())


@pytest.mark.parametrize(("subsampling", "gain"), [(0, 1.4), (1, 1.6), (2, 1.8)])
def test_planes_give_more_than_pixels(subsampling: int, gain: float) -> None:
    mark, colour = known(0.5)
    alpha, _ = drawn("text", 0.5)
    there = alpha > 0.04
    errors = []
    for n, picture in enumerate(crops(8, seed=3)):
        data = stored(blended(picture, alpha, colour), subsampling, progressive=bool(n % 2))
        marked = encode.decode(data).pixels
        below, rest = take_off_jpeg(marked, planes_of(data), mark)
        assert not rest.any()
        assert np.array_equal(below[alpha == 0], marked[alpha == 0])
        errors.append((noise(below, picture, there), noise(take_off(marked, mark)[0], picture, there)))
    planes, pixels = np.mean(errors, axis=0)
    assert pixels / planes > gain


def test_odd_sides_grey_files_and_edges() -> None:
    alpha, colour = drawn("text", 0.4)
    picture = crops(1, seed=5)[0][:149, :231]
    alpha, colour = alpha[:149, :231], colour[:149, :231]
    mark = Mark((90, 100, 231, 149), alpha[100:, 90:], colour[100:, 90:], (231, 149))
    for grey in (False, True):
        truth = np.repeat(picture[..., 1:2], 3, axis=2) if grey else picture
        marked = blended(truth, alpha, colour)
        data = stored(np.ascontiguousarray(marked[..., 0]) if grey else marked, -1 if grey else 2)
        seen = encode.decode(data).pixels
        below, _ = take_off_jpeg(seen, planes_of(data), mark)
        there = alpha > 0.04
        assert noise(below, truth, there) < noise(take_off(seen, mark)[0], truth, there)


def test_what_is_no_jpeg_in_brightness_and_colour_has_no_planes() -> None:
    buffer = io.BytesIO()
    Pil.fromarray(crops(1)[0]).save(buffer, "PNG")
    assert planes_of(buffer.getvalue()) == []
    buffer = io.BytesIO()
    Pil.fromarray(np.zeros((16, 16, 4), np.uint8), "CMYK").save(buffer, "JPEG")
    assert planes_of(buffer.getvalue()) == []
