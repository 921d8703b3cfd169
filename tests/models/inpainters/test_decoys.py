"""Beside what goes stands a second one of its kind: no fill copies it, and no detector finds one in the fill."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from decoy_scenes import KINDS, SIDE, Scene, likeness, scene

from cleanplate.models.types import Image, Mask
from cleanplate.pipeline.factory import kinds
from cleanplate.pipeline.factory.inpainters import inpainter
from cleanplate.pipeline.images import rle
from cleanplate.pipeline.recipe.recipe import Recipe

COPIED = 0.9
"""Likeness from which a fill holds a piece of its decoy. With the decoy laid into the hole it is 1."""


@pytest.fixture(scope="module")
def detectors() -> dict[str, list]:  # type: ignore[type-arg]
    return {kind: kinds.detectors(Recipe.model_validate({"remove": [kind]})) for kind in KINDS}


def reported(one: Scene, detectors: list) -> Mask:  # type: ignore[type-arg]
    """All that the kind's detectors saw, believed or not: what no fill may copy."""
    closed = np.zeros(one.hole.shape, np.bool_)
    for detector in detectors:
        for region in kinds.seen_by(detector, [one.image])[0]:
            closed |= rle.from_box(region.box, SIDE, SIDE) if region.mask is None else region.mask
    return closed


def found_in_hole(fill: Image, one: Scene, detectors: list) -> int:  # type: ignore[type-arg]
    """How many things of the kind have their middle in the hole."""
    found = 0
    for detector in detectors:
        for region in detector([fill])[0]:
            x, y = (int(region.box[n] + region.box[n + 2]) // 2 for n in (0, 1))
            found += bool(one.hole[max(0, y - 3) : y + 4, max(0, x - 3) : x + 4].any())
    return found


def inner(one: Scene) -> Image:
    """The decoy without its rim: what stands behind a head is no face."""
    x0, y0, x1, y1 = one.decoy
    dx, dy = (x1 - x0) // 8, (y1 - y0) // 8
    return one.image[y0 + dy : y1 - dy, x0 + dx : x1 - dx]


def check(number: int, detectors: dict[str, list]) -> None:  # type: ignore[type-arg]
    one = scene(number)
    (fill,) = inpainter("auto", "fp32", False, 0.0)(
        [one.image], [one.hole], [reported(one, detectors[one.kind])]
    )
    assert likeness(fill, one.hole, inner(one)) < COPIED
    assert found_in_hole(fill, one, detectors[one.kind]) == 0
    assert np.array_equal(fill[~one.hole], one.image[~one.hole])


@pytest.mark.parametrize("number", [0, 2, 19])
def test_no_decoy_is_copied(number: int, detectors: dict[str, list]) -> None:  # type: ignore[type-arg]
    check(number, detectors)


@pytest.mark.slow
@pytest.mark.parametrize("number", [n for n in range(60) if n not in (0, 2, 19)])
def test_no_decoy_is_copied_in_57_more_pictures(number: int, detectors: dict[str, list]) -> None:  # type: ignore[type-arg]
    check(number, detectors)


@pytest.mark.parametrize("number", range(3))
def test_a_copied_decoy_is_seen(number: int) -> None:
    """So the tests above can fail."""
    one = scene(number)
    x0, y0, x1, y1 = one.decoy
    decoy = one.image[y0:y1, x0:x1]
    rows, columns = np.flatnonzero(one.hole.any(1)), np.flatnonzero(one.hole.any(0))
    y, x = int(rows[0]), int(columns[0])
    part = decoy[: SIDE - y, : SIDE - x]
    fill = one.image.copy()
    fill[y : y + part.shape[0], x : x + part.shape[1]] = part
    wide = cv2.dilate(one.hole.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    assert likeness(fill, wide, decoy) > 0.95
