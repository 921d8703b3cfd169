"""Marks shared by a collection: found, measured, taken off; drawn here on crops of real photographs."""

from __future__ import annotations

import io
from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image as Pil
from PIL import ImageDraw, ImageFont

from cleanplate.models.static_watermark.estimate import common_marks, find_marks
from cleanplate.models.static_watermark.overlay import PRESENT, Mark, placed, strength, take_off
from cleanplate.models.static_watermark.traces import showing, with_unsure
from rigs.marked import SIZE, blended, crops, drawn

Floats = npt.NDArray[np.float32]


def psnr(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8], where: npt.NDArray[np.bool_]) -> float:
    error = float(((a[where].astype(np.float64) - b[where]) ** 2).mean())
    return 10 * float(np.log10(255**2 / max(error, 1e-9)))


def one(marks: list[Mark]) -> tuple[Mark, Floats]:
    """The mark, and its opacity over the whole frame."""
    assert len(marks) == 1
    whole = np.zeros(SIZE[::-1], np.float32)
    x0, y0, x1, y1 = marks[0].box
    whole[y0:y1, x0:x1] = marks[0].alpha
    return marks[0], whole


@pytest.mark.parametrize("opacity", [0.25, 0.6])
def test_a_mark_is_found_and_taken_off(opacity: float) -> None:
    pictures = crops(44)
    alpha, colour = drawn("text", opacity)
    marked = [blended(p, alpha, colour) for p in pictures]
    mark, found = one(find_marks(np.stack(marked)))
    true = alpha > 0.04
    assert (true & (found > 0)).sum() / (true | (found > 0)).sum() > 0.9
    assert np.abs(found - alpha)[true].mean() < 0.03
    assert mark.support >= 42
    clean, rest = take_off(marked[0], mark)
    assert not rest.any()
    outside = found == 0
    assert np.array_equal(clean[outside], marked[0][outside])
    assert np.mean([psnr(take_off(m, mark)[0], p, true) for m, p in zip(marked, pictures, strict=True)]) > 35


def test_strength_tells_with_from_without_and_after() -> None:
    pictures = crops(52)
    alpha, colour = drawn("text", 0.4)
    mark, _ = one(find_marks(np.stack([blended(p, alpha, colour) for p in pictures[:40]])))
    for picture in pictures[40:]:  # Seen by nobody before.
        marked = blended(picture, alpha, colour)
        assert strength(marked, mark) > 0.8
        assert abs(strength(picture, mark)) < 0.2
        assert abs(strength(take_off(marked, mark)[0], mark)) < 0.3


def test_two_colours_and_what_is_opaque() -> None:
    pictures = crops(44)
    alpha, colour = drawn("logo", 0.3)
    mark, found = one(find_marks(np.stack([blended(p, alpha, colour) for p in pictures])))
    true = alpha > 0.04
    assert (true & (found > 0)).sum() / (true | (found > 0)).sum() > 0.95
    across = np.broadcast_to(np.arange(mark.box[0], mark.box[2]), mark.alpha.shape)
    red, blue = (np.median(mark.colour[mark.mask & side], axis=0) for side in (across < 50, across > 60))
    assert np.abs(red - (220, 30, 30)).max() < 6
    assert np.abs(blue - (30, 60, 200)).max() < 6
    clean = [take_off(blended(p, alpha, colour), mark)[0] for p in pictures]
    assert np.mean([psnr(c, p, true) for c, p in zip(clean, pictures, strict=True)]) > 40
    alpha, colour = drawn("text", 0.95)
    mark, _ = one(find_marks(np.stack([blended(p, alpha, colour) for p in pictures])))
    _, rest = take_off(blended(pictures[0], alpha, colour), mark)
    assert rest.sum() > 0.5 * (alpha > 0.9).sum(), "what is opaque is left to an inpainter"


def test_nothing_in_common_gives_nothing() -> None:
    assert find_marks(np.stack(crops(40))) == []
    assert find_marks(np.stack(crops(7))) == [], "too few to tell"
    flat = np.full((20, 40, 60, 3), 200, np.uint8)
    assert find_marks(flat) == [], "no gradients at all"


def test_a_mark_in_another_size() -> None:
    alpha, colour = drawn("text", 0.5)
    mark, found = one(find_marks(np.stack([blended(p, alpha, colour) for p in crops(40)])))
    twice = placed(mark, (2 * SIZE[0], 2 * SIZE[1]))
    assert twice is not None
    assert twice.box == tuple(2 * v for v in mark.box)
    assert twice.alpha.shape == (2 * mark.alpha.shape[0], 2 * mark.alpha.shape[1])
    assert abs(float(twice.alpha.mean()) - float(mark.alpha.mean())) < 0.01
    assert placed(mark, SIZE) is mark
    assert PRESENT < 1
    assert found.max() < 0.6


@pytest.mark.parametrize("anchor", [(1, 1), (0.5, 0)])
def test_a_mark_that_keeps_its_pixels_in_pictures_of_several_sizes(anchor: tuple[float, float]) -> None:
    alpha, colour = drawn("text", 0.6)
    ink = alpha[100:150, 95:235]
    sizes = [(240, 160), (200, 160), (240, 140)]
    pictures, places = [], []
    for n, picture in enumerate(crops(45)):
        wide, high = sizes[n % 3]
        picture = picture[:high, :wide].copy()
        y, x = int((high - 6 - 50) * anchor[1]) + 3, int((wide - 6 - 140) * anchor[0] // 1) + 3
        picture[y : y + 50, x : x + 140] = blended(picture[y : y + 50, x : x + 140], ink, colour[:50, :140])
        pictures.append(picture)
        places.append((x, y))
    (mark,) = common_marks(pictures)
    assert mark.anchor == anchor
    assert mark.support >= 40
    for wide, high in sizes:
        there = placed(mark, (wide, high))
        assert there is not None
        x, y = places[sizes.index((wide, high))]
        ys, xs = np.nonzero(there.alpha > 0.3)
        ty, tx = np.nonzero(ink > 0.3)
        assert abs(there.box[0] + xs.min() - x - tx.min()) <= 1
        assert abs(there.box[1] + ys.max() - y - ty.max()) <= 1
    assert placed(mark, (100, 60)) is None, "no room for so many pixels"


def test_a_mark_that_grows_with_the_picture_has_no_anchor() -> None:
    alpha, colour = drawn("text", 0.6)
    marked = [blended(p, alpha, colour) for p in crops(36)]
    small = [cv2.resize(m, (180, 120), interpolation=cv2.INTER_AREA) for m in marked[::3]]
    (mark,) = common_marks([*marked, *small])
    assert mark.anchor is None
    assert mark.frame == SIZE


def through_jpeg(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    buffer = io.BytesIO()
    Pil.fromarray(picture).save(buffer, "JPEG", quality=92, subsampling=2)
    return np.asarray(Pil.open(buffer), np.uint8)


def test_two_colours_where_colour_is_stored_at_half_the_size() -> None:
    alpha, colour = drawn("logo", 0.4)
    mark, found = one(
        find_marks(np.stack([through_jpeg(blended(p, alpha, colour)) for p in crops(40)]), coarse=True)
    )
    true = alpha > 0.04
    assert (true & (found > 0)).sum() / (true | (found > 0)).sum() > 0.9
    assert np.abs(found - alpha)[true].mean() < 0.03
    across = np.broadcast_to(np.arange(mark.box[0], mark.box[2]), mark.alpha.shape)
    red, blue = (np.median(mark.colour[mark.mask & side], axis=0) for side in (across < 50, across > 60))
    assert np.abs(red - (220, 30, 30)).max() < 25
    assert np.abs(blue - (30, 60, 200)).max() < 25


def test_a_mark_of_a_hundred_colours() -> None:
    alpha, colour = drawn("logo", 0.5)
    hues = np.linspace(0, 179, SIZE[0]).astype(np.uint8)
    hsv = np.stack([np.broadcast_to(hues, SIZE[::-1]), *[np.full(SIZE[::-1], 230, np.uint8)] * 2], axis=-1)
    colour = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB).astype(np.float32)
    colour = np.roll(cv2.resize(colour, None, fx=0.5, fy=1), 15, axis=1).repeat(2, axis=1)
    pictures = crops(40)
    marked = [blended(p, alpha, colour) for p in pictures]
    mark, found = one(find_marks(np.stack(marked)))
    true = alpha > 0.04
    assert (true & (found > 0)).sum() / (true | (found > 0)).sum() > 0.85
    before = np.mean([psnr(m, p, true) for m, p in zip(marked, pictures, strict=True)])
    after = np.mean([psnr(take_off(m, mark)[0], p, true) for m, p in zip(marked, pictures, strict=True)])
    assert after > before + 6


def several(design: str, opacity: float) -> tuple[Floats, Floats]:
    """Opacity and colour over SIZE: colours that touch, a band to the border, a small part of another colour."""
    layer = Pil.new("RGBA", SIZE)
    draw = ImageDraw.Draw(layer)
    red, white = (230, 40, 40, 255), (255, 255, 255, 255)
    if design == "rim":  # The red touches nothing but the white.
        draw.ellipse((140, 60, 210, 130), fill=red, outline=white, width=8)
    elif design == "band":
        draw.rectangle((0, 120, 240, 160), fill=(0, 0, 0, 255))
        draw.text((60, 125), "ALPEN", font=ImageFont.load_default(26), fill=white)
    else:
        draw.ellipse((140, 30, 210, 100), outline=white, width=6)
        draw.polygon([(175, 45), (190, 80), (160, 80)], fill=red)
        draw.text((120, 110), "ALPEN", font=ImageFont.load_default(26), fill=white)
    mark = np.asarray(layer, np.float32)
    return mark[..., 3] / 255 * np.float32(opacity), mark[..., :3]


@pytest.mark.parametrize("design", ["rim", "band", "apart"])
def test_every_colour_of_a_mark_is_taken_off(design: str) -> None:
    alpha, colour = several(design, 0.35)
    pictures = crops(44)
    marked = [blended(p, alpha, colour) for p in pictures]
    mark, _ = one(find_marks(np.stack(marked)))
    assert mark.unsure is None
    clean = [take_off(m, mark)[0] for m in marked]
    assert min(psnr(c, p, alpha > 0) for c, p in zip(clean, pictures, strict=True)) > 42
    assert max(abs(showing(c, mark, 0.35)) for c in clean) == 0


def test_a_part_that_was_not_understood_is_seen_and_left_to_an_inpainter() -> None:
    alpha, colour = several("apart", 0.35)
    pictures = crops(44)
    marked = [blended(p, alpha, colour) for p in pictures]
    mark, _ = one(find_marks(np.stack(marked)))
    x0, y0, x1, y1 = mark.box
    red = (colour[..., 1] == 40)[y0:y1, x0:x1] & (mark.alpha > 0)
    wrong = replace(
        mark, alpha=np.where(cv2.dilate(red.astype(np.uint8), np.ones((3, 3))) > 0, 0, mark.alpha)
    )
    cleaned = [take_off(m, wrong)[0] for m in marked]
    assert np.mean([showing(c, wrong, 0.35) > 0.6 for c in cleaned]) > 0.6
    assert max(abs(showing(take_off(m, mark)[0], mark, 0.35)) for m in marked) == 0
    result = with_unsure(wrong, marked, coarse=False)
    assert result.unsure is not None
    assert result.unsure[red].mean() > 0.95
    assert result.unsure.sum() < 3 * red.sum(), "the ring and the word are known"
    _, rest = take_off(marked[0], result)
    assert rest[y0:y1, x0:x1][red].mean() > 0.95
