"""What is done to masks before they are filled: gaps, blocks, shadows."""

from __future__ import annotations

import numpy as np
import pytest

from cleanplate.models.segmenters.masks import close_gaps, swept, whole_blocks


def blank(height: int = 60, width: int = 80) -> np.ndarray:
    return np.zeros((height, width), np.bool_)


def test_gaps_close_and_nothing_else_grows() -> None:
    mask = blank()
    mask[20:40, 10:30] = mask[20:40, 36:60] = True
    closed = close_gaps(mask, 6)
    assert closed[25:35, 30:36].all()
    assert closed[mask].all()
    assert not closed[:20].any()
    assert not closed[:, :10].any()
    assert not close_gaps(mask, 3)[25:35, 33].any()
    assert (close_gaps(mask, 0) == mask).all()
    assert not close_gaps(blank(), 9).any()


def test_gaps_to_the_picture_s_edge_stay() -> None:
    mask = blank()
    mask[0:10, 3:20] = True
    assert (close_gaps(mask, 8) == mask).all()


@pytest.mark.parametrize("side", [8, 16])
def test_blocks_are_whole_and_no_more(side: int) -> None:
    mask = blank(61, 83)
    mask[17, 33] = mask[60, 82] = True
    out = whole_blocks(mask, side)
    y, x = 17 // side * side, 33 // side * side
    assert out[y : y + side, x : x + side].all()
    assert out[60, 82]
    assert out.shape == mask.shape
    last = (61 - 60 // side * side) * (83 - 82 // side * side)
    assert out.sum() == side * side + last


def test_a_shadow_falls_down_and_to_the_sides() -> None:
    mask = blank()
    mask[20:25, 40:45] = True
    out = swept(mask, 10, 4)
    assert out[20:35, 36:49].all()
    assert out.sum() == 15 * 13
    assert (swept(mask, 0, 0) == mask).all()
