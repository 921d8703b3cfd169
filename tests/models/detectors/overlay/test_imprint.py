"""What a fill leaves of a mark: seen where the ghost is, not where the photograph is."""

from __future__ import annotations

import random
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image as Pil

from cleanplate.jobs.commands.demo import VISIBLE, logo
from cleanplate.models.types import Image, Mask, Region
from cleanplate.pipeline.factory.detectors import IMPRINT, imprint
from cleanplate.pipeline.factory.kinds import verifiers
from cleanplate.pipeline.images import rle
from cleanplate.pipeline.recipe.recipe import load
from cleanplate.pipeline.stages.residue import look_again
from cleanplate.pipeline.stages.rows import region_struct
from rigs.scenes import DEMO_PHOTOS


@pytest.fixture(scope="module")
def photo() -> Image:
    return np.asarray(Pil.open(DEMO_PHOTOS / "tulips.jpg").convert("RGB"))


@pytest.fixture(scope="module")
def mark(photo: Image) -> Mask:
    """The pixels of a ring, a star and a name."""
    layer = logo((photo.shape[1], photo.shape[0]), random.Random("0/tulips.jpg"))
    drawn = np.asarray(layer.getchannel("A")) >= VISIBLE
    return cv2.dilate(drawn.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0


def ghost(photo: Image, mark: Mask) -> Image:
    """The photograph with the mark as a pale fog, a sixth as strong."""
    fog = cv2.GaussianBlur(mark.astype(np.float32), (0, 0), 1.5)[..., None] / 6
    return np.round(photo * (1 - fog) + 255 * fog).astype(np.uint8)


def row_of(photo: Image, mask: Mask, kind: str) -> dict[str, Any]:
    height, width = mask.shape
    ys, xs = np.nonzero(mask)
    box = (float(xs.min()), float(ys.min()), float(xs.max() + 1), float(ys.max() + 1))
    return {
        "height": height,
        "width": width,
        "review": None,
        "mask_rle": rle.to_rle(mask),
        "regions": [region_struct(Region(kind, "x", 0.9, box), mask)],
    }


@pytest.mark.parametrize("kind", ["text", "watermark"])
def test_a_ghost_of_the_mark_is_residue_and_the_clean_photograph_none(
    photo: Image, mark: Mask, kind: str
) -> None:
    recipe = load(None, {"remove": kind})
    (looker,) = [one for one in verifiers(recipe) if one.inside]
    for picture, expected in ((ghost(photo, mark), True), (photo, False)):
        (found,) = look_again([row_of(photo, mark, kind)], [picture], [looker], recipe)
        assert bool(found) is expected
        for one in found:
            assert (one.kind, one.detector) == (kind, IMPRINT)
            assert one.mask is not None
            assert (one.mask & mark).any()


def test_a_ghost_beside_the_edits_is_none(photo: Image, mark: Mask) -> None:
    elsewhere = np.zeros_like(mark)
    elsewhere[300:400, 50:200] = True
    recipe = load(None, {"remove": "text"})
    looker = [one for one in verifiers(recipe) if one.inside]
    assert look_again([row_of(photo, elsewhere, "text")], [ghost(photo, mark)], looker, recipe) == [[]]


def test_what_hides_letters_is_no_imprint() -> None:
    assert not any(one.inside for one in verifiers(load(None, {"remove": "text", "inpaint.name": "blur"})))


def test_it_finds_nothing_in_a_flat_picture() -> None:
    assert imprint("text", 0.0)([np.full((200, 300, 3), 90, np.uint8)]) == [[]]
