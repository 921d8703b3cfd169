"""What stands beside a found mark: an emblem over a name is taken with it, other things of the picture are not."""

from __future__ import annotations

import random

import cv2
import numpy as np
import pytest
from PIL import Image as Pil

from cleanplate.jobs.commands.demo import VISIBLE, logo
from cleanplate.models.detectors.overlay.beside import VIEW, beside
from cleanplate.models.detectors.overlay.overlay_map import Looks
from cleanplate.models.types import Image, Mask
from cleanplate.pipeline.factory import kinds
from cleanplate.pipeline.recipe.recipe import load
from rigs.scenes import DEMO_PHOTOS

HEIGHT = 20.0


def scene() -> Image:
    noise = np.random.default_rng(5).normal(110, 6, (240, 320, 3))
    return np.clip(noise, 0, 255).astype(np.uint8)


def laid(picture: Image, chance: Mask, box: tuple[int, int, int, int], level: int) -> Mask:
    """A flat piece in the picture and the map, and its pixels."""
    mask = np.zeros(picture.shape[:2], np.bool_)
    mask[box[1] : box[3], box[0] : box[2]] = True
    picture[mask] = level
    chance |= mask
    return mask


@pytest.mark.parametrize(
    ("box", "level", "taken"),
    [
        ((110, 60, 160, 112), 240, True),  # an emblem above the name, its colour
        ((190, 122, 230, 138), 235, True),  # the rest of the line
        ((110, 60, 160, 112), 10, False),  # darker than its ground: another thing
        ((110, 10, 160, 60), 240, False),  # too far away
        ((0, 0, 320, 115), 240, False),  # much larger than the name
    ],
)
def test_a_piece_beside_a_mark_is_taken_where_it_is_of_it(
    box: tuple[int, int, int, int], level: int, taken: bool
) -> None:
    picture, chance = scene(), np.zeros((240, 320), np.bool_)
    mark = laid(picture, chance, (100, 120, 180, 140), 240)
    piece = laid(picture, chance, box, level)
    looks = Looks((chance.astype(np.uint8) * 230,))
    (found,) = beside(picture, looks, [(mark, HEIGHT)])
    assert bool(found) is taken
    for one in found:
        x0, y0, x1, y1 = one.box
        assert (piece[y0:y1, x0:x1] == one.mask).all()


def test_nothing_is_taken_beside_lettering_of_the_scene() -> None:
    picture, chance = scene(), np.zeros((240, 320), np.bool_)
    mark = laid(picture, chance, (100, 120, 180, 140), 240)
    chance[mark] = False
    laid(picture, chance, (110, 60, 160, 112), 240)
    assert beside(picture, Looks((chance.astype(np.uint8) * 230,)), [(mark, HEIGHT)]) == [[]]


@pytest.mark.parametrize("remove", [["text"], ["text", "watermark"]])
def test_the_emblem_over_a_name_goes_with_it(remove: list[str]) -> None:
    photo = Pil.open(DEMO_PHOTOS / "dandelions.jpg").convert("RGB")
    layer = logo(photo.size, random.Random("0/dandelions.jpg"))
    picture = np.asarray(Pil.alpha_composite(photo.convert("RGBA"), layer).convert("RGB"))
    truth = np.asarray(layer.getchannel("A")) >= VISIBLE
    regions = [
        one
        for detector in kinds.detectors(load(None, {"remove": remove}))
        for one in detector([picture])[0]
        if one.mask is not None
    ]
    found = np.logical_or.reduce([one.mask for one in regions])
    near = cv2.dilate(truth.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    assert (found & truth).sum() > 0.9 * truth.sum()
    assert (found & ~near).sum() < 0.1 * truth.sum()
    assert any(one.detector.endswith(VIEW) for one in regions) or "watermark" in remove
