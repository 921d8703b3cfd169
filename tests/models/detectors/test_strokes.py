"""Strokes of text: on plain, shaded and textured ground; when the whole line is taken instead."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image as PilImage
from PIL import ImageDraw, ImageFont

from cleanplate.models.detectors.lettering.strokes import strokes, text_mask
from cleanplate.models.metrics.pixelwise import mask_iou, thickness
from cleanplate.models.segmenters.classic import SEGMENTERS
from cleanplate.models.segmenters.masks import grow
from cleanplate.models.types import Image, Mask, Region


def ground(height: int = 140, width: int = 500, low: float = 60, high: float = 120) -> Image:
    shade = np.linspace(low, high, width)[None, :, None] + np.zeros((height, 1, 3))
    return shade.astype(np.uint8)


def lettered(
    image: Image, text: str, size: int, colour: tuple[int, int, int]
) -> tuple[Image, Mask, np.ndarray]:
    """The image with text at (40, 30), the text's pixels, and the quadrilateral about it."""
    layer = PilImage.new("L", image.shape[1::-1])
    drawing = ImageDraw.Draw(layer)
    font = ImageFont.load_default(size)
    drawing.text((40, 30), text, fill=255, font=font)
    x0, y0, x1, y1 = drawing.textbbox((40, 30), text, font=font)
    alpha = np.asarray(layer, np.float64)[..., None] / 255
    out = (image * (1 - alpha) + np.array(colour) * alpha).astype(np.uint8)
    quad = np.array([[x0 - 4, y0 - 4], [x1 + 4, y0 - 4], [x1 + 4, y1 + 4], [x0 - 4, y1 + 4]], np.float64)
    return out, alpha[..., 0] > 0.1, quad


def edited(image: Image, quad: np.ndarray) -> Mask:
    """What a fill would be given: the strokes with the segmenter's margin and the recipe's 3 pixels."""
    mask = text_mask(image, quad)
    region = Region("text", "t", 1, (0, 0, 1, 1), mask)
    return grow(SEGMENTERS["auto"]([image], [[region]])[0][0], 3)


@pytest.mark.parametrize("colour", [(255, 255, 255), (0, 0, 0), (90, 220, 90), (255, 0, 0)])
def test_strokes_of_any_colour_and_little_else(colour: tuple[int, int, int]) -> None:
    image, truth, quad = lettered(ground(), "Sample 42", 64, colour)
    mask = text_mask(image, quad)
    assert mask.dtype == np.bool_
    assert mask.shape == truth.shape
    assert mask_iou(mask, truth) >= 0.8
    assert (edited(image, quad) & truth).sum() >= 0.99 * truth.sum()


def test_a_letter_that_crosses_onto_ground_of_its_own_shade() -> None:
    """White letters run from dark to light ground: one threshold would lose the last ones."""
    image = ground(low=20, high=60)
    image[:, 200:] = 205
    written, truth, quad = lettered(image, "WINTER SALE", 60, (255, 255, 255))
    mask = edited(written, quad)
    right = truth.copy()
    right[:, :230] = False
    assert (mask & right).sum() >= 0.95 * right.sum()


def test_large_letters_are_found_on_a_smaller_copy() -> None:
    image, truth, quad = lettered(ground(500, 1400), "BIG", 400, (250, 250, 250))
    mask = edited(image, quad)
    assert (mask & truth).sum() >= 0.98 * truth.sum()
    assert mask.shape == truth.shape


def test_short_lines_have_strokes_too() -> None:
    image, truth, quad = lettered(ground(), "tiny", 14, (255, 255, 255))
    assert mask_iou(text_mask(image, quad), truth) >= 0.6
    assert edited(image, quad)[truth].all()


def test_outlined_letters_keep_both_colours() -> None:
    image = ground()
    layer = PilImage.fromarray(image)
    font = ImageFont.load_default(64)
    ImageDraw.Draw(layer).text(
        (40, 30), "Edge", fill=(255, 255, 255), font=font, stroke_width=3, stroke_fill=(0, 0, 0)
    )
    written = np.asarray(layer)
    truth = np.abs(written.astype(int) - image).max(2) > 30
    x0, y0, x1, y1 = ImageDraw.Draw(layer).textbbox((40, 30), "Edge", font=font, stroke_width=3)
    quad = np.array([[x0 - 4, y0 - 4], [x1 + 4, y0 - 4], [x1 + 4, y1 + 4], [x0 - 4, y1 + 4]], np.float64)
    assert (edited(written, quad) & truth).sum() >= 0.99 * truth.sum()


@pytest.mark.parametrize("width", [2, 6, 20])
def test_how_thick_strokes_are(width: int) -> None:
    mask = np.zeros((100, 300), np.bool_)
    mask[40 : 40 + width, 10:290] = True
    assert thickness(mask) == pytest.approx(width, rel=0.35)
    assert thickness(np.zeros((3, 3), np.bool_)) == 0


def test_unclear_strokes_give_the_whole_line() -> None:
    noise = np.random.default_rng(3).integers(0, 256, (140, 500, 3), dtype=np.uint8)
    image, _, quad = lettered(noise, "Sample", 64, (128, 128, 128))
    assert strokes(image, quad) is None
    x0, y0, x1, y1 = *quad[0].astype(int), *quad[2].astype(int)
    assert text_mask(image, quad)[y0:y1, x0:x1].all()


def test_a_turned_line(photo: Callable[[str], Image]) -> None:
    image, truth, quad = lettered(ground(300, 300), "Tilted", 60, (255, 255, 255))
    turned = np.stack([quad[:, 1], 299 - quad[:, 0]], axis=1)
    mask = edited(np.ascontiguousarray(np.rot90(image)), turned)
    assert (mask & np.rot90(truth)).sum() >= 0.98 * truth.sum()


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 800), (800, 3)])
def test_quadrilaterals_beyond_the_image(height: int, width: int) -> None:
    image = np.zeros((height, width, 3), np.uint8)
    for shift in (0.0, -5000.0, 40.0):
        quad = np.array([[-20, -30], [900, -30], [900, 60], [-20, 60]], np.float64) + shift
        assert text_mask(image, quad).shape == (height, width)
