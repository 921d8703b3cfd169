"""Holes shaped like objects: where they may lie, and where the outlines come from."""

import cv2
import numpy as np
import pytest

from cleanplate.models.training.lama.batches import draw_mask
from cleanplate.models.training.lama.objects import Moves, coloured_pieces, moved_object


def disc(centre, radius, side=128):
    canvas = np.zeros((side, side), np.uint8)
    cv2.circle(canvas, centre, radius, 1, -1)
    return canvas > 0


def test_a_moved_object_keeps_its_outline_and_the_limits():
    objects = [disc((30, 64), 20), disc((95, 64), 18)]
    shares = []
    for seed in range(60):
        hole = moved_object(np.random.default_rng(seed), objects)
        assert hole is not None
        for mask in objects:
            shared = (hole & mask).sum()
            assert shared <= 0.5 * mask.sum()
            assert shared <= 0.5 * hole.sum()
        ys, xs = np.nonzero(hole)
        inside = ys.min() > 0 and ys.max() < 127 and xs.min() > 0 and xs.max() < 127
        if inside:  # a disc again, 25 % smaller or larger
            width, height = np.ptp(xs) + 1, np.ptp(ys) + 1
            assert width / height == pytest.approx(1, abs=0.1)
            assert 0.7 * 37 <= width <= 1.3 * 41
            assert hole.sum() / (width * height) == pytest.approx(0.75, abs=0.1)
        assert hole.mean() >= 0.02
        assert abs((ys.min() + ys.max()) / 2 - 64) <= 0.1 * 128 + 6  # shifted up or down by a tenth at most
        shares.append(hole.mean())
    assert np.std(shares) > 0.002


def test_what_cannot_be_moved_gives_no_hole():
    rng = np.random.default_rng(0)
    assert moved_object(rng, []) is None
    assert moved_object(rng, [np.zeros((64, 64), bool)]) is None
    assert moved_object(rng, [disc((64, 64), 60)]) is None  # above 30 % of the image
    assert moved_object(rng, [disc((64, 64), 4)]) is None  # its hole would be below 2 %
    assert moved_object(rng, [disc((64, 64), 36)], Moves(overlap=0.0)) is None
    with pytest.raises(ValueError, match="masks of its size"):
        moved_object(rng, [np.zeros((64, 64), bool), np.zeros((32, 64), bool)])


def test_the_pieces_of_a_drawn_scene_are_its_shapes():
    scene = np.full((160, 200, 3), (200, 220, 250), np.uint8)
    cv2.rectangle(scene, (20, 30), (70, 90), (200, 30, 30), -1)
    cv2.circle(scene, (140, 90), 30, (20, 120, 40), -1)
    pieces = coloured_pieces(scene)
    truth = [np.zeros((160, 200), bool), np.zeros((160, 200), bool)]
    truth[0][30:91, 20:71] = True
    cv2.circle(canvas := np.zeros((160, 200), np.uint8), (140, 90), 30, 1, -1)
    truth[1] = canvas > 0
    for shape in truth:
        assert max((shape & p).sum() / (shape | p).sum() for p in pieces) > 0.85
    assert all(0.02 <= p.mean() < 0.31 for p in pieces)
    for a, b in zip(pieces, coloured_pieces(scene), strict=True):
        np.testing.assert_array_equal(a, b)


def test_training_draws_them_from_the_crop_and_has_a_way_out():
    flat = np.full((64, 64, 3), 128, np.uint8)
    scene = flat.copy()
    scene[20:40, 10:30] = (250, 0, 0)
    for picture in (flat, scene):
        mask = draw_mask(np.random.default_rng(3), picture, "segmentation", 0.5)
        assert mask.shape == (64, 64)
        assert 0 < mask.mean() <= 0.5
