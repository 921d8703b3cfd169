"""Codes: found where they lie, with their quiet zones, at any turn; gone is what nobody decodes."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from cleanplate.models.detectors.codes import SEEN_ONLY, CodeDetector, SecondCodeDetector, with_quiet
from cleanplate.models.types import Image
from rigs.code_scenes import FORMS, drawn, scene
from rigs.scenes import DEMO_PHOTOS


def photograph(name: str, side: int = 700) -> Image:
    image = cv2.imread(str(DEMO_PHOTOS / name))
    factor = side / max(image.shape)
    return np.ascontiguousarray(cv2.resize(image, None, fx=factor, fy=factor)[..., ::-1])


@pytest.mark.parametrize("form", FORMS)
def test_a_code_on_a_photograph_is_found_with_its_quiet_zone(form: str) -> None:
    rng = np.random.default_rng(len(form))
    image, truth, _ = scene(photograph("coffee.jpg"), form, rng)
    (found,) = CodeDetector()([image])
    assert [(r.kind, r.score) for r in found] == [("code", 1.0)]
    assert found[0].mask is not None
    assert (found[0].mask & truth).sum() > 0.8 * truth.sum()
    assert (found[0].mask & ~truth).sum() < 0.5 * truth.sum()


def test_bars_of_which_one_line_was_read_are_covered_from_end_to_end() -> None:
    image = photograph("cat.jpg")
    code = drawn("Code128", 7, 3)
    turn = cv2.getRotationMatrix2D((code.shape[1] / 2, code.shape[0] / 2), 25, 1.0)
    turn[:, 2] += (120, 160)
    height, width = image.shape[:2]
    laid = cv2.warpAffine(code, turn, (width, height))
    cover = cv2.warpAffine(np.full(code.shape[:2], 255, np.uint8), turn, (width, height)) > 127
    image[cover] = laid[cover]
    (found,) = CodeDetector()([image])
    assert found[0].mask is not None
    dark = cover & (laid[..., 0] < 100)
    assert (found[0].mask & dark).sum() > 0.95 * dark.sum()


def test_photographs_without_a_code_have_none() -> None:
    pictures = [photograph(name) for name in ("friends.jpg", "brushes.jpg", "wine.jpg", "motorcycle.jpg")]
    assert CodeDetector()(pictures) == [[], [], [], []]
    assert SecondCodeDetector()(pictures) == [[], [], [], []]


def test_a_code_that_cannot_be_decoded_is_seen_and_counts_less() -> None:
    image = photograph("coffee.jpg")
    code = drawn("QRCode", 123, 6)
    size = code.shape[0]
    code[size // 2 - 30 : size // 2 + 20, size // 2 - 30 : size // 2 + 20] = 128
    image[60 : 60 + size, 100 : 100 + size] = code
    (found,) = CodeDetector()([image])
    assert [(r.detector, r.score) for r in found] == [("codes:QRCode", SEEN_ONLY)]
    assert CodeDetector(harder=True)([image]) == [[]], "what cannot be decoded is no residue"


@pytest.mark.parametrize(("blur", "hidden"), [(2.0, False), (14.0, True)])
def test_a_blurred_code_counts_for_as_long_as_it_can_be_decoded(blur: float, hidden: bool) -> None:
    image = photograph("coffee.jpg")
    code = drawn("QRCode", 123, 6)
    image[60 : 60 + code.shape[0], 100 : 100 + code.shape[1]] = code
    soft = cv2.GaussianBlur(image, (0, 0), blur)
    found = [*CodeDetector(harder=True)([soft])[0], *SecondCodeDetector()([soft])[0]]
    assert (not found) == hidden


def test_the_quiet_zone_follows_the_code_s_turn() -> None:
    square = np.array([[0, 0], [100, 0], [100, 100], [0, 100]], np.float64)
    assert with_quiet("QRCode", square).tolist() == [[-16, -16], [116, -16], [116, 116], [-16, 116]]
    bars = np.array([[0, 0], [0, 200], [-40, 200], [-40, 0]], np.float64)
    wide = with_quiet("EAN13", bars)
    assert wide[:, 1].min() == pytest.approx(-20)
    assert wide[:, 0].max() == pytest.approx(20)


def test_tiny_and_flat_pictures() -> None:
    pictures = [
        np.full((1, 1, 3), 9, np.uint8),
        np.zeros((8, 40, 3), np.uint8),
        np.full((300, 5, 3), 255, np.uint8),
    ]
    assert CodeDetector()(pictures) == [[], [], []]
    assert CodeDetector(harder=True)(pictures) == [[], [], []]
    assert SecondCodeDetector()(pictures) == [[], [], []]
