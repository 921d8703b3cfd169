"""A second look near the edits only: everything near is seen, in the image's frame, once."""

from __future__ import annotations

import numpy as np

from cleanplate.models.detectors.views.windows import look_at, windows
from cleanplate.models.types import Image, Region


def reds(images: list[Image]) -> list[list[Region]]:
    """A detector of the one red square of an image, mask included."""
    found: list[list[Region]] = []
    for image in images:
        hit = (image == (255, 0, 0)).all(axis=2)
        ys, xs = np.nonzero(hit)
        box = (
            (float(xs.min()), float(ys.min()), float(xs.max() + 1), float(ys.max() + 1)) if len(xs) else None
        )
        found.append([Region("text", "reds", 0.9, box, hit)] if box else [])
    return found


def picture(height: int, width: int, x: int, y: int) -> Image:
    image = np.zeros((height, width, 3), np.uint8)
    image[y : y + 10, x : x + 20] = (255, 0, 0)
    return image


def test_finds_come_back_in_the_frame_of_their_image() -> None:
    images = [picture(1500, 2000, 1700, 1300), picture(1500, 2000, 40, 30)]
    masks = [np.zeros((1500, 2000), np.bool_) for _ in images]
    masks[0][1280:1320, 1690:1740] = masks[1][1280:1320, 1690:1740] = True
    parts = [windows(mask) for mask in masks]
    assert all(len(some) == 1 and some[0][2] - some[0][0] == 512 for some in parts)
    near, far = look_at(reds, images, parts)
    assert [region.box for region in near] == [(1700, 1300, 1720, 1310)]
    assert near[0].mask is not None
    assert np.array_equal(near[0].mask, reds(images)[0][0].mask)
    assert far == [], "what lies far from the mask is not looked at"


def test_what_two_windows_show_counts_once() -> None:
    image = picture(700, 900, 440, 300)
    (found,) = look_at(reds, [image], [[(0, 0, 600, 700), (300, 0, 900, 700)]])
    assert [region.box for region in found] == [(440, 300, 460, 310)]


def test_most_of_an_image_is_looked_at_as_a_whole() -> None:
    mask = np.zeros((600, 700), np.bool_)
    mask[100:500, 100:600] = True
    assert windows(mask) == [(0, 0, 700, 600)]
    assert windows(np.zeros((600, 700), np.bool_)) == []
