"""The filler that is chosen by the hole: strokes apart from what is thicker, each named, together as one fill."""

from __future__ import annotations

import cv2
import numpy as np

from cleanplate.models.inpainters.by_hole import ByHole, chosen, parts_of
from cleanplate.models.inpainters.copying import PatchMatch, Textured
from cleanplate.models.inpainters.hiding import Fill
from cleanplate.models.inpainters.inpainters import OpenCvInpainter
from cleanplate.models.types import Image, Mask
from cleanplate.pipeline.images import rle
from cleanplate.pipeline.stages.inpaint import fill, masks_by_filler

RED, BLUE = Fill((250, 0, 0), "red"), Fill((0, 0, 250), "blue")


def scene() -> tuple[Image, Mask, Mask]:
    """Grey grain of 160 x 200, the mask of a word and the mask of a disc below it."""
    image = np.repeat(np.random.default_rng(2).integers(60, 180, (160, 200, 1), np.uint8), 3, axis=2)
    word, disc = np.zeros((2, 160, 200), np.uint8)
    cv2.putText(word, "WORD", (20, 50), cv2.FONT_HERSHEY_SIMPLEX, 1.4, 1, 8)
    cv2.circle(disc, (100, 115), 28, 1, -1)
    return image, word > 0, disc > 0


def test_strokes_go_to_one_filler_and_a_disc_to_the_other() -> None:
    image, word, disc = scene()
    (filled,) = ByHole(RED, BLUE)([image], [word | disc])
    assert (filled[word] == (250, 0, 0)).all()
    assert (filled[disc] == (0, 0, 250)).all()
    assert np.array_equal(filled[~(word | disc)], image[~(word | disc)])


def test_regions_are_named_by_what_filled_them() -> None:
    image, word, disc = scene()
    fillers = {"": ByHole(RED, BLUE)}
    row = {
        "height": 160,
        "width": 200,
        "mask_rle": rle.to_rle(word | disc),
        "regions": [{"kind": "text", "rle": rle.to_rle(word)}, {"kind": "logo", "rle": rle.to_rle(disc)}],
    }
    jobs = masks_by_filler(row, fillers)
    assert [region["by"] for region in row["regions"]] == ["red", "blue"]
    (filled,) = fill([image], [jobs], fillers, [word | disc])
    assert (filled[word] == (250, 0, 0)).all()
    assert (filled[disc] == (0, 0, 250)).all()


def test_what_lies_between_regions_goes_to_a_filler_that_is_at_work_anyway() -> None:
    _, word, disc = scene()
    row = {
        "height": 160,
        "width": 200,
        "mask_rle": rle.to_rle(word | disc),
        "regions": [{"kind": "text", "rle": rle.to_rle(word)}],
    }
    jobs = masks_by_filler(row, {"": ByHole(RED, BLUE)})
    assert list(jobs) == ["red"]
    assert np.array_equal(jobs["red"], word | disc)


def test_neither_filler_copies_what_the_other_fills() -> None:
    """A word of red beside a disc of blue: with both in the hole neither colour comes back."""
    image, word, disc = scene()
    image[cv2.dilate(word.astype(np.uint8), np.ones((5, 5))) > 0] = (250, 0, 0)
    image[disc] = (0, 0, 250)
    word = cv2.dilate(word.astype(np.uint8), np.ones((5, 5))) > 0
    (filled,) = ByHole(PatchMatch(2, "small"), PatchMatch())([image], [word | disc])
    assert np.ptp(filled[word | disc].astype(int), axis=1).max() == 0, "grey, as what may be copied"


def test_a_filler_that_does_not_choose_is_itself() -> None:
    assert parts_of(RED) == (RED,)
    assert chosen(RED, np.ones((4, 4), np.bool_)) is RED


def test_strokes_keep_texture_and_the_colours_of_the_network() -> None:
    image, word, _ = scene()
    telea = OpenCvInpainter("telea")
    (smooth,), (filled,) = telea([image], [word]), Textured(telea, thin=True)([image], [word])
    assert filled[word].std() > 0.75 * image[word].std() > smooth[word].std()
    assert abs(filled[word].mean() - smooth[word].mean()) < 6
    assert np.array_equal(filled[~word], image[~word])


def test_where_all_that_is_near_is_forbidden_the_network_s_fill_stays() -> None:
    """What is far away does not belong, and strokes of it would stay legible."""
    image, word, _ = scene()
    telea = OpenCvInpainter("telea")
    near = cv2.dilate(word.astype(np.uint8), np.ones((41, 41))) > 0
    for thin in (True, False):
        (filled,) = Textured(telea, thin=thin)([image], [word], [near])
        assert np.array_equal(filled, telea([image], [word])[0])
