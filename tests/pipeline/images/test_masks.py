"""Masks: COCO run-length codes there and back, against pycocotools itself."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as coco

from cleanplate.models.types import Region
from cleanplate.pipeline.images import rle
from cleanplate.pipeline.recipe.recipe import Masks
from cleanplate.pipeline.stages.segment import grow

ANY_MASK = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=40))


@given(ANY_MASK)
@settings(max_examples=100, deadline=None)
def test_rle_comes_back_and_is_what_pycocotools_reads(mask: np.ndarray) -> None:
    height, width = mask.shape
    counts = rle.to_rle(mask)
    assert (rle.from_rle(counts, height, width) == mask).all()
    assert coco.area({"size": [height, width], "counts": counts}) == mask.sum()


@given(ANY_MASK)
@settings(max_examples=100, deadline=None)
def test_box_is_the_smallest_that_holds_the_mask(mask: np.ndarray) -> None:
    box = rle.box_of(mask)
    if box is None:
        assert not mask.any()
        return
    x0, y0, x1, y1 = (int(v) for v in box)
    inside = mask[y0:y1, x0:x1]
    assert inside.sum() == mask.sum()
    assert inside[0].any()
    assert inside[-1].any()
    assert inside[:, 0].any()
    assert inside[:, -1].any()
    assert (rle.from_box(box, *mask.shape) >= mask).all()


@given(st.text(alphabet=[chr(c) for c in range(48, 112)], max_size=30))
@settings(max_examples=200, deadline=None)
def test_a_foreign_string_is_a_mask_or_a_value_error(counts: str) -> None:
    try:
        mask = rle.from_rle(counts, 6, 7)
    except ValueError:
        return
    assert mask.shape == (6, 7)


def test_sizes_that_do_not_fit_are_refused() -> None:
    counts = rle.to_rle(np.eye(5, dtype=bool))
    with pytest.raises(ValueError, match="25 pixels"):
        rle.from_rle(counts, 5, 6)
    with pytest.raises(ValueError, match="character"):
        rle.from_rle("\x01", 5, 5)
    with pytest.raises(ValueError, match="HW bool"):
        rle.to_rle(np.zeros((3, 3), np.uint8))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="mask of"):
        rle.union([np.zeros((3, 4), bool)], 4, 3)


def test_union_area_and_coverage() -> None:
    one, other = np.zeros((4, 5), bool), np.zeros((4, 5), bool)
    one[0, :3], other[0, 2:] = True, True
    both = rle.union([one, other], 4, 5)
    assert rle.area(both) == 5
    assert rle.coverage(both) == 0.25
    assert rle.area(one) == 3, "the union must not write into its parts"
    assert not rle.union([], 2, 2).any()


def test_a_box_outside_the_image_is_cut_off() -> None:
    assert rle.from_box((-3.5, 1.2, 2.1, 99), 4, 5).sum() == 3 * 3
    assert not rle.from_box((10, 10, 20, 20), 4, 5).any()
    assert not rle.from_box((-9, -9, -1, -1), 4, 5).any()


@pytest.mark.parametrize(("kind", "margin"), [("watermark", 3), ("logo", 8)])
def test_a_mark_that_spans_the_picture_is_widened_by_its_strokes_not_by_its_box(
    kind: str, margin: int
) -> None:
    net = np.zeros((400, 400), np.bool_)
    net[::100, :] = net[:, ::100] = True
    net = cv2.dilate(net.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    wide = grow(net, Region(kind, "x", 1.0, (0, 0, 400, 400), net), Masks())  # type: ignore[arg-type]
    line = np.flatnonzero(wide[50:300, 150])
    assert line[0] == 50 - 2 - margin  # the line at row 100 reaches from 98 to 102
