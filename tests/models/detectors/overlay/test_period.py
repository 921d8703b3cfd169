"""A tiling by the period of its map: the copies and parts of copies that were missed, at the edges as well."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from cleanplate.models.detectors.overlay.completion import with_rest
from cleanplate.models.detectors.overlay.lattice import VIEW
from cleanplate.models.detectors.overlay.overlay_map import Looks
from cleanplate.models.detectors.overlay.period import folded
from cleanplate.models.types import Mask, Region

SIZE = (360, 520)


def sheet(angle: float, step: tuple[int, int], brick: bool) -> Mask:
    """A word again and again over the whole picture, slanted, rows shifted against each other or not."""
    word = np.zeros((36, 120), np.uint8)
    cv2.putText(word, "DRAFT", (4, 28), cv2.FONT_HERSHEY_DUPLEX, 1.0, 255, 3, cv2.LINE_AA)
    cell = np.zeros((step[1], step[0]), np.uint8)
    cell[:36, :120] = word
    row = np.tile(cell, (1, 12))
    shift = step[0] // 2 if brick else 0
    whole = np.concatenate([np.roll(row, shift * (n % 2), 1) for n in range(16)])[:900, :900]
    matrix = cv2.getRotationMatrix2D((450, 450), angle, 1.0)
    return cv2.warpAffine(whole, matrix, (900, 900))[250 : 250 + SIZE[0], 190 : 190 + SIZE[1]] > 127


def gaps(mask: Mask, seed: int) -> Mask:
    """The places, a fifth of the picture, at which nothing was found."""
    rng = np.random.default_rng(seed)
    hole = np.zeros(SIZE, np.bool_)
    while hole.mean() < 0.2:
        x, y = int(rng.integers(0, SIZE[1])), int(rng.integers(0, SIZE[0]))
        hole[y : y + 50, x : x + 120] = True
    return hole & mask


@pytest.mark.parametrize(
    ("angle", "step", "brick"),
    [(0, (170, 76), False), (30, (170, 76), True), (-45, (150, 60), False), (12, (240, 120), True)],
)
def test_what_was_missed_of_a_tiling_is_known_by_its_period(
    angle: float, step: tuple[int, int], brick: bool
) -> None:
    truth = sheet(angle, step, brick)
    missed = gaps(truth, 3)
    found = folded((truth & ~missed).astype(np.float32) * 0.9)
    assert found is not None
    assert (found & missed).sum() > 0.85 * missed.sum()
    near = cv2.dilate(truth.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    assert (found & ~near).sum() < 0.03 * truth.sum()


def test_one_word_noise_and_nothing_have_no_period() -> None:
    word = np.zeros(SIZE, np.uint8)
    cv2.putText(word, "DRAFT", (90, 200), cv2.FONT_HERSHEY_DUPLEX, 3.0, 230, 8)
    one = word.astype(np.float32) / 255
    noise = np.random.default_rng(2).random(SIZE).astype(np.float32)
    blots = cv2.GaussianBlur(noise, (0, 0), 9)
    blots = (blots > np.percentile(blots, 85)).astype(np.float32)
    for chance in (one, noise, blots, np.zeros(SIZE, np.float32)):
        assert folded(chance) is None


def test_pieces_of_a_tiling_are_regions_of_its_kind() -> None:
    truth = sheet(30, (170, 76), True)
    missed = gaps(truth, 5)
    count, labels = cv2.connectedComponents(cv2.dilate((truth & ~missed).astype(np.uint8), np.ones((9, 9))))
    given = []
    for number in range(1, count):
        mask = (labels == number) & truth & ~missed
        ys, xs = np.nonzero(mask)
        box = (float(xs.min()), float(ys.min()), float(xs.max() + 1), float(ys.max() + 1))
        given.append(Region("watermark", "marks", 0.9, box, mask))
    looks = Looks((np.zeros(SIZE, np.uint8),))
    found = with_rest(looks, given)
    assert found[: len(given)] == given
    assert {(one.kind, one.detector) for one in found[len(given) :]} == {("watermark", "marks" + VIEW)}
    together = np.logical_or.reduce([one.mask for one in found if one.mask is not None])
    assert (together & truth).sum() > 0.97 * truth.sum()
    assert with_rest(looks, given[:2]) == given[:2]
