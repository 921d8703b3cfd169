"""The crop plan, by its properties."""

from __future__ import annotations

import time
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cleanplate.models.inpainters.crops import (
    Crop,
    CropSettings,
    cost,
    cut,
    hole_boxes,
    paste,
    plan_crops,
    snap,
    with_context,
)

SMALL = CropSettings(min_side=64, bucket=16, max_side=160, most_pixels=200 * 200, fixed=500)


@st.composite
def masks(draw: st.DrawFn) -> np.ndarray:
    """Masks of up to 400 px with a few boxes and specks."""
    height, width = draw(st.integers(1, 400)), draw(st.integers(1, 400))
    mask = np.zeros((height, width), np.bool_)
    for _ in range(draw(st.integers(0, 8))):
        y, x = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
        mask[y : y + draw(st.integers(1, 90)), x : x + draw(st.integers(1, 90))] = True
    return mask


def covered(crops: list[Crop], shape: tuple[int, ...]) -> np.ndarray:
    out = np.zeros(shape, np.bool_)
    for crop in crops:
        x0, y0, x1, y1 = crop.holes
        out[y0:y1, x0:x1] = True
    return out


@settings(max_examples=80, deadline=None)
@given(masks())
def test_every_hole_pixel_is_filled_from_a_crop_with_context(mask: np.ndarray) -> None:
    height, width = mask.shape
    crops = plan_crops(mask, SMALL)
    assert bool(crops) == bool(mask.any())
    assert not (mask & ~covered(crops, mask.shape)).any()
    for crop in crops:
        x0, y0, x1, y1 = crop.box
        a, b, c, d = crop.holes
        assert 0 <= x0 <= a < c <= x1 <= width
        assert 0 <= y0 <= b < d <= y1 <= height
        for side, limit in ((x1 - x0, width), (y1 - y0, height)):
            assert side >= min(limit, SMALL.min_side)
            assert side == limit or side % SMALL.bucket == 0
        if crop.reduced:
            assert max(crop.size) <= SMALL.max_side < max(x1 - x0, y1 - y0)
        else:
            assert max(crop.size) <= SMALL.max_side or crop.size[0] * crop.size[1] <= SMALL.most_pixels


def price(crops: list[Crop], plan: CropSettings) -> float:
    boxes = np.array([c.box for c in crops], np.int64).reshape(-1, 4)
    return float(cost(boxes, np.array([c.reduced for c in crops], np.bool_), plan).sum())


@settings(max_examples=60, deadline=None)
@given(masks())
def test_no_pair_is_left_that_would_be_cheaper_together(mask: np.ndarray) -> None:
    whole = [c for c in plan_crops(mask, SMALL) if not c.reduced]
    for p, q in combinations(whole, 2):
        both = np.array([[*np.minimum(p.box, q.box)[:2], *np.maximum(p.box, q.box)[2:]]])
        (both,) = snap(both, mask.shape, SMALL)
        one = Crop(p.holes, tuple(both.tolist()), (int(both[3] - both[1]), int(both[2] - both[0])))
        fits = max(one.size) <= SMALL.max_side or one.size[0] * one.size[1] <= SMALL.most_pixels
        # Rounding to the bucket may move a box by less than one.
        slack = SMALL.bucket * sum(one.size) * 1.2
        assert not fits or price([one], SMALL) + slack >= price([p, q], SMALL)


@settings(max_examples=60, deadline=None)
@given(masks())
def test_crops_never_cost_more_than_the_image(mask: np.ndarray) -> None:
    crops = plan_crops(mask, SMALL)
    height, width = mask.shape
    if not crops or (max(mask.shape) > SMALL.max_side and mask.size > SMALL.most_pixels):
        return
    whole = Crop((0, 0, width, height), (0, 0, width, height), (height, width))
    assert price(crops, SMALL) <= price([whole], SMALL)
    if crops == [whole]:
        return
    assert sum(h * w for h, w in (c.size for c in crops)) <= mask.size


@settings(max_examples=60, deadline=None)
@given(masks())
def test_each_part_gets_as_much_context_as_hole(mask: np.ndarray) -> None:
    crops = plan_crops(mask, SMALL)
    parts = hole_boxes(mask)
    for part, need in zip(parts, with_context(parts, mask.shape, SMALL), strict=True):
        if max(need[2:] - need[:2]) > SMALL.max_side:
            continue  # seen reduced, or in tiles
        sides, wanted = need[2:] - need[:2], np.maximum(2 * (part[2:] - part[:2]), SMALL.min_side)
        assert (sides == np.minimum(wanted, mask.shape[::-1])).all()
        assert any((need[:2] >= c.box[:2]).all() and (need[2:] <= c.box[2:]).all() for c in crops)


@settings(max_examples=60, deadline=None)
@given(masks())
def test_boxes_are_tight(mask: np.ndarray) -> None:
    assert len(hole_boxes(mask, gap=8)) <= len(hole_boxes(mask))
    boxes = np.concatenate([hole_boxes(mask), hole_boxes(mask, gap=8)])
    total = np.zeros_like(mask)
    for x0, y0, x1, y1 in boxes.tolist():
        part = mask[y0:y1, x0:x1]
        assert part[0].any()
        assert part[-1].any()
        assert part[:, 0].any()
        assert part[:, -1].any()
        total[y0:y1, x0:x1] = True
    assert not (mask & ~total).any()


def test_gap_joins_what_is_near() -> None:
    mask = np.zeros((20, 60), np.bool_)
    mask[0, 0] = mask[3, 10] = mask[19, 59] = True
    assert hole_boxes(mask, gap=4).tolist() == [[0, 0, 1, 1], [10, 3, 11, 4], [59, 19, 60, 20]]
    assert hole_boxes(mask, gap=5).tolist() == [[0, 0, 11, 4], [59, 19, 60, 20]]


def test_near_holes_share_a_crop_and_far_ones_do_not() -> None:
    mask = np.zeros((1000, 1000), np.bool_)
    mask[100:120, 100:140] = mask[100:120, 200:240] = True
    mask[900:920, 900:940] = True
    crops = plan_crops(mask, CropSettings())
    assert sorted(c.holes for c in crops) == [(100, 100, 240, 120), (900, 900, 940, 920)]
    assert {c.size for c in crops} == {(256, 352), (256, 256)}


def test_a_hole_in_the_corner_gets_a_full_crop() -> None:
    mask = np.zeros((600, 500), np.bool_)
    mask[590:, 490:] = True
    assert plan_crops(mask, CropSettings()) == [Crop((490, 590, 500, 600), (244, 344, 500, 600), (256, 256))]


def test_a_large_hole_is_seen_reduced() -> None:
    mask = np.zeros((2000, 3000), np.bool_)
    mask[500:1500, 500:2000] = True
    (crop,) = plan_crops(mask, CropSettings(max_side=768))
    assert crop.box == (0, 0, 3000, 2000)
    assert crop.size == (512, 768)


def test_a_long_thin_hole_is_filled_in_tiles_at_full_resolution() -> None:
    mask = np.zeros((2000, 3000), np.bool_)
    mask[100:1900, 100:2900] = True
    mask[140:1860, 140:2860] = False
    crops = plan_crops(mask, CropSettings())
    assert not (mask & ~covered(crops, mask.shape)).any()
    assert not any(c.reduced for c in crops)
    assert all(c.size[0] * c.size[1] <= CropSettings.most_pixels for c in crops)
    assert sum(c.size[0] * c.size[1] for c in crops) < 0.7 * mask.size


def test_scattered_holes_are_filled_in_the_whole_image_where_crops_cost_more() -> None:
    mask = np.zeros((512, 512), np.bool_)
    for y, x in ((20, 20), (20, 420), (420, 20), (420, 420), (220, 220)):
        mask[y : y + 80, x : x + 80] = True
    (crop,) = plan_crops(mask, CropSettings())
    assert (crop.box, crop.size) == ((0, 0, 512, 512), (512, 512))
    # A hole that would be seen reduced on its own, too: the image at full scale is what it is compared with.
    wide = np.zeros((1000, 1000), np.bool_)
    wide[100:600, 100:600] = wide[700:900, 50:450] = wide[650:950, 600:950] = True
    (crop,) = plan_crops(wide, CropSettings())
    assert crop.size == (1000, 1000)
    assert any(c.reduced for c in plan_crops(wide, CropSettings(most_pixels=900**2)))
    # In a photograph of 12 megapixels the same holes are filled from crops.
    large = np.zeros((3000, 4000), np.bool_)
    large[1000:1512, 1000:1512] = mask
    crops = plan_crops(large, CropSettings())
    assert sum(h * w for h, w in (c.size for c in crops)) < 800 * 800


def test_a_wider_crop_of_several_holes_is_not_reduced() -> None:
    mask = np.zeros((1000, 3000), np.bool_)
    for x in range(100, 2900, 180):  # each hole alone would do with 256 pixels
        mask[100:200, x : x + 100] = True
    crops = plan_crops(mask, CropSettings())
    assert not any(c.reduced for c in crops)
    assert max(max(c.size) for c in crops) > 768
    assert all(c.size[0] * c.size[1] <= 1 << 20 for c in crops)
    parts = plan_crops(mask, CropSettings(most_pixels=0))
    assert max(max(c.size) for c in parts) <= 768
    assert price(crops, CropSettings()) < price(parts, CropSettings())


def test_fixed_costs_join_and_growing_ones_part() -> None:
    mask = np.zeros((600, 2000), np.bool_)
    mask[250:350, 100:200] = mask[250:350, 400:500] = True

    def sides(**kwargs: float) -> int:
        return len(plan_crops(mask, CropSettings(**kwargs)))  # type: ignore[arg-type]

    assert (sides(fixed=0, growth=0.0), sides(fixed=60_000, growth=0.0), sides(fixed=60_000, growth=1.0)) == (
        2,
        1,
        2,
    )


def test_whole_image_is_one_crop_of_full_size() -> None:
    mask = np.zeros((900, 1300), np.bool_)
    mask[3, 3] = mask[800, 1200] = True
    (crop,) = plan_crops(mask, CropSettings(whole_image=True))
    assert crop == Crop((0, 0, 1300, 900), (0, 0, 1300, 900), (900, 1300))
    assert plan_crops(np.zeros((9, 9), np.bool_), CropSettings(whole_image=True)) == []


def test_a_page_of_specks_is_planned_quickly() -> None:
    mask = np.zeros((3000, 4000), np.bool_)
    mask[::40, ::40] = True
    plan_crops(mask[:300, :300], CropSettings())
    start = time.process_time()
    crops = plan_crops(mask, CropSettings())
    assert time.process_time() - start < 5
    # At full resolution in pieces of a megapixel, overlapping by their context: less than twice the image.
    assert sum(h * w for h, w in (c.size for c in crops)) < 2 * mask.size
    assert len(crops) > 10
    assert not (mask & ~covered(crops, mask.shape)).any()


def test_reduced_crops_do_not_let_hole_pixels_leak() -> None:
    image = np.zeros((640, 640, 3), np.uint8)
    mask = np.zeros((640, 640), np.bool_)
    mask[101:533, 101:533] = True
    image[mask] = 255
    (crop,) = plan_crops(mask, CropSettings(max_side=256, min_side=256))
    part, hole = cut(image, mask, crop)
    assert part.shape == (256, 256, 3)
    assert part[~hole].max() == 0


def test_paste_writes_only_holes_of_its_crop() -> None:
    mask = np.zeros((300, 300), np.bool_)
    mask[10:20, 10:20] = mask[250:260, 250:260] = True
    target = np.zeros((300, 300, 3), np.uint8)
    paste(target, mask, Crop((10, 10, 20, 20), (0, 0, 300, 300), (96, 96)), np.full((96, 96, 3), 9, np.uint8))
    assert (target[10:20, 10:20] == 9).all()
    assert target.sum() == 9 * 3 * 100


@pytest.mark.parametrize("kwargs", [{"bucket": 12}, {"bucket": 0}, {"min_side": 8}, {"min_side": 999}])
def test_impossible_settings_are_refused(kwargs: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must"):
        CropSettings(**kwargs)  # type: ignore[arg-type]
