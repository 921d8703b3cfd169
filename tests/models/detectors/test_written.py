"""Text and watermarks in one pass are what the two detectors find one after the other."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from cleanplate.models.detectors.overlay.beside import VIEW as BESIDE
from cleanplate.models.detectors.overlay.lattice import VIEW as LATTICE
from cleanplate.models.detectors.overlay.overlay_map import OverlayMap
from cleanplate.models.detectors.text import TextDetector
from cleanplate.models.detectors.text_and_watermark import WrittenDetector
from cleanplate.models.detectors.watermark import WatermarkDetector
from cleanplate.models.weights.registry import resolve
from cleanplate.pipeline.factory import kinds
from cleanplate.pipeline.recipe.recipe import load


class Counting(OverlayMap):
    """Counts the pictures that the U-Net was shown."""

    seen = 0

    def __call__(self, images):
        self.seen += len(images)
        return super().__call__(images)


@pytest.fixture(scope="module")
def parts():
    overlay = Counting(resolve("marks"))
    text = TextDetector(resolve("text-det"), resolve("text-rec"), resolve("strokes"))
    return overlay, text, WatermarkDetector(overlay, text)


@pytest.fixture(scope="module")
def pictures(photo):
    """A photograph with a mark at 40 degrees and lines of text, one of them level; and one with nothing."""
    image = photo("coffee.jpg").astype(np.float32)
    height, width = image.shape[:2]
    cover = np.zeros((height, width), np.uint8)
    for y in range(40, 2 * height, 90):
        for x in range(-width, 2 * width, 260):
            cv2.putText(cover, "PREVIEW", (x, y), cv2.FONT_HERSHEY_DUPLEX, 1.2, 255, 3, cv2.LINE_AA)
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), 40, 1.0)
    share = cv2.warpAffine(cover, turn, (width, height))[..., None] / 510
    marked = (image * (1 - share) + 255 * share).round().astype(np.uint8)
    cv2.putText(marked, "2015/07/04", (30, 50), cv2.FONT_HERSHEY_SIMPLEX, 1.1, (255, 220, 0), 3, cv2.LINE_AA)
    return [np.ascontiguousarray(marked), photo("coffee.jpg")]


def test_it_finds_what_the_two_find_and_the_network_looks_once(parts, pictures):
    overlay, text, watermark = parts
    overlay.seen = 0
    both = WrittenDetector(text, watermark)(pictures)
    assert overlay.seen == len(pictures)
    texts, marks = text.with_overlay(overlay)(pictures), watermark(pictures)
    assert {region.kind for region in both[0]} == {"text", "watermark"}
    # What is added afterwards rests on all that was found.
    for found, some, more in zip(both, texts, marks, strict=True):
        wanted = [one for one in (*some, *more) if not one.detector.endswith((BESIDE, LATTICE))]
        found = [one for one in found if not one.detector.endswith((BESIDE, LATTICE))]
        assert [(r.kind, r.detector, r.score, r.box) for r in found] == [
            (r.kind, r.detector, r.score, r.box) for r in wanted
        ]
        assert all(np.array_equal(a.mask, b.mask) for a, b in zip(found, wanted, strict=True))


def test_a_recipe_that_asks_for_both_gets_one_detector_by_two_names():
    both, one = (
        load(None, {"remove": ["text", "watermark", "face"]}),
        load(None, {"remove": ["watermark", "face"]}),
    )
    first, *rest = kinds.detectors(both)
    assert isinstance(first, WrittenDetector)
    apart = [kinds.detectors(load(None, {"remove": kind}))[0] for kind in ("text", "watermark", "face")]
    assert kinds.names_of([first, *rest]) == [detector.name for detector in apart]
    assert len(rest) == 1
    assert not any(isinstance(detector, WrittenDetector) for detector in kinds.detectors(one))


def test_what_checks_both_is_another_look_and_the_second_network_stays():
    names = [one.detector.name for one in kinds.verifiers(load(None, {"remove": ["text", "watermark"]}))]
    assert names == ["ppocr-v6-small@other-scale+marks@832", "ppocr-v4-mobile", "marks@imprint"]
