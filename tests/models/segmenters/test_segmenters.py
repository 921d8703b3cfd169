"""Masks from geometry, and the segmenters made of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from cleanplate.models.segmenters.classic import SEGMENTERS
from cleanplate.models.segmenters.masks import (
    box_mask,
    ellipse_mask,
    fill_holes,
    grow,
    margin_of,
    polygon_mask,
)
from cleanplate.models.types import Image, Region


def disc(shape: tuple[int, int], centre: tuple[int, int], radius: float) -> np.ndarray:
    y, x = np.ogrid[: shape[0], : shape[1]]
    return np.asarray((y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2)


@pytest.mark.parametrize("pixels", [0, 1, 2, 5, 17])
def test_grow_is_dilation_by_a_disc(pixels: int) -> None:
    mask = np.random.default_rng(0).random((60, 90)) > 0.997
    mask[0, 0] = mask[59, 89] = True
    expected = np.zeros_like(mask)
    for y, x in np.argwhere(mask):
        expected |= disc(mask.shape, (int(y), int(x)), pixels)
    grown = grow(mask, pixels)
    assert (grown == expected).mean() > 0.998
    assert (grown & mask).sum() == mask.sum()


def test_grow_never_aliases_and_refuses_shrinking() -> None:
    mask = np.zeros((4, 5), np.bool_)
    assert grow(mask, 3).any() == False  # noqa: E712
    assert grow(mask, 0) is not mask
    with pytest.raises(ValueError, match="-1"):
        grow(mask, -1)


def test_margins_are_relative_with_a_floor() -> None:
    assert margin_of((0, 0, 100, 50), 0.1) == 5
    assert margin_of((0, 0, 10, 10), 0.1, least=4) == 4


def test_holes_are_filled_but_bays_are_not() -> None:
    ring = disc((41, 41), (20, 20), 15) & ~disc((41, 41), (20, 20), 9)
    assert (fill_holes(ring) == disc((41, 41), (20, 20), 15)).all()
    ring[20:, 20] = False
    ring[20:, 19:22] = False
    assert not fill_holes(ring)[20, 20]
    assert fill_holes(np.ones((1, 1), np.bool_)).all()
    assert not fill_holes(np.zeros((3, 2), np.bool_)).any()


def test_boxes_cover_every_pixel_they_touch() -> None:
    mask = box_mask((10, 10), (2.9, 3.1, 5.0, 6.2))
    assert np.argwhere(mask).min(0).tolist() == [3, 2]
    assert np.argwhere(mask).max(0).tolist() == [6, 4]
    assert box_mask((10, 10), (9.99, 0, 10, 0.01)).sum() == 1
    assert box_mask((1, 1), (0, 0, 1, 1), 5.0).all()


def test_ellipse_and_polygon() -> None:
    mask = ellipse_mask((100, 200), (50, 20, 150, 80))
    assert mask.sum() == pytest.approx(np.pi * 50 * 30, rel=0.01)
    assert not (mask & ~box_mask((100, 200), (50, 20, 150, 80))).any()
    corners = np.array([[10, 10], [30, 10], [30, 20], [10, 20]], np.float64)
    assert (polygon_mask((40, 40), corners) == box_mask((40, 40), (10, 10, 31, 21))).mean() > 0.97


def test_auto_takes_the_mask_the_ellipse_or_the_box() -> None:
    image = np.zeros((100, 120, 3), np.uint8)
    own = np.zeros((100, 120), np.bool_)
    own[5:9, 5:60] = True
    text = Region("text", "t", 1, (0, 0, 70, 20), own)
    face = Region("face", "f", 1, (30, 30, 60, 70))
    plate = Region("plate", "p", 1, (30, 30, 60, 70))
    masks = SEGMENTERS["auto"]([image], [[text, face, plate]])[0]
    assert (masks[0] == grow(own, 1)).all()  # a third of strokes 4 pixels thick
    given = Region("given", "g", 1, (0, 0, 70, 20), own)
    kept = SEGMENTERS["auto"]([image], [[given]])[0][0]
    assert (kept == own).all()
    assert kept is not own
    assert (masks[1] == SEGMENTERS["ellipse"]([image], [[face]])[0][0]).all()
    assert (masks[2] == SEGMENTERS["box"]([image], [[plate]])[0][0]).all()
    assert masks[1][30:70, 44:46].all()
    assert not masks[1][25, 25]
    assert masks[2][30:70, 30:60].all()


def test_the_head_ellipse_covers_the_face_box(photo: Callable[[str], Image]) -> None:
    box = (178.0, 60.0, 272.0, 178.0)
    mask = SEGMENTERS["ellipse"]([photo("astronaut.jpg")], [[Region("face", "f", 1, box)]])[0][0]
    inside = box_mask(mask.shape, box)
    assert (mask & inside).sum() > 0.98 * inside.sum()


def test_a_mask_of_another_size_is_refused() -> None:
    region = Region("text", "t", 1, (0, 0, 5, 5), np.zeros((9, 9), np.bool_))
    with pytest.raises(ValueError, match=r"9, 9"):
        SEGMENTERS["stroke"]([np.zeros((8, 9, 3), np.uint8)], [[region]])


def test_grabcut_finds_a_plain_object_and_drops_the_corners() -> None:
    rng = np.random.default_rng(1)
    image = rng.integers(60, 80, (200, 240, 3)).astype(np.uint8)
    truth = disc((200, 240), (100, 120), 50)
    image[truth] = [220, 60, 40]
    region = Region("object", "o", 1, (70, 50, 171, 151))
    mask = SEGMENTERS["grabcut"]([image], [[region]])[0][0]
    assert (mask & truth).sum() == truth.sum()
    assert not mask[53:58, 72:77].any()
    again = SEGMENTERS["grabcut"]([image], [[region]])[0][0]
    assert (again == mask).all()


def test_grabcut_falls_back_to_the_box() -> None:
    plain = np.full((120, 120, 3), 128, np.uint8)
    region = Region("object", "o", 1, (40, 40, 80, 80))
    assert SEGMENTERS["grabcut"]([plain], [[region]])[0][0][40:80, 40:80].all()
    whole = Region("object", "o", 1, (0, 0, 120, 120))
    assert SEGMENTERS["grabcut"]([plain], [[whole]])[0][0].all()


@pytest.mark.parametrize("name", sorted(SEGMENTERS))
@pytest.mark.parametrize("shape", [(1, 1), (3, 5000), (5000, 3), (40, 50)])
def test_masks_have_the_images_size(name: str, shape: tuple[int, int]) -> None:
    image = np.zeros((*shape, 3), np.uint8)
    region = Region("face", "f", 1, (0.0, 0.0, float(shape[1]), max(0.5, shape[0] * 0.4)))
    (masks,) = SEGMENTERS[name]([image], [[region]])
    assert masks[0].shape == shape
    assert masks[0].dtype == np.bool_
    assert masks[0].any()
    assert SEGMENTERS[name]([image], [[]]) == [[]]
