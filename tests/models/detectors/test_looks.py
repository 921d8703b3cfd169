"""Other ways to look: the mirrored picture's finds come back in place, a sign takes another kind."""

from __future__ import annotations

import numpy as np

from cleanplate.models.detectors.views.variants import Mirrored, SignOf
from cleanplate.models.types import Image, Region


class Brightest:
    """Finds the box of what is white, with its pixels."""

    name = "brightest"

    def __call__(self, images: list[Image]) -> list[list[Region]]:
        out = []
        for image in images:
            mask = image[..., 0] == 255
            ys, xs = np.nonzero(mask)
            box = (float(xs.min()), float(ys.min()), float(xs.max() + 1), float(ys.max() + 1))
            out.append([Region("face", self.name, 0.8, box, mask)])
        return out


class Seen(Brightest):
    """... and keeps what it was shown."""

    def __call__(self, images: list[Image]) -> list[list[Region]]:
        self.images = images
        return super().__call__(images)


def picture() -> Image:
    image = np.zeros((40, 70, 3), np.uint8)
    image[5:12, 3:20] = 255
    image[5:8, 20:22] = 255  # not symmetric, so a mask that was not turned back shows
    return image


def test_a_mirrored_look_sees_other_pixels_and_says_where_they_are() -> None:
    plain, seen = picture(), Seen()
    ((found,),) = Mirrored(seen)([plain])
    ((direct,),) = Brightest()([plain])
    assert np.array_equal(seen.images[0], plain[:, ::-1])
    assert found.box == direct.box
    assert found.mask is not None
    assert np.array_equal(found.mask, direct.mask)
    assert found.detector == "brightest@mirrored"


def test_a_sign_is_of_the_kind_that_it_stands_for() -> None:
    ((found,),) = SignOf("person", Brightest())([picture()])
    assert (found.kind, found.detector, found.mask) == ("person", "person-by-brightest", None)
    assert found.box == (3.0, 5.0, 22.0, 12.0)
