"""Lines straightened and put back; strokes of lettering, and none where there is none."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PilImage
from PIL import ImageDraw, ImageFont

from cleanplate.models.detectors.lettering.letters import (
    BEYOND,
    CLOSER,
    GAP,
    HEIGHT,
    LINE,
    STEP,
    Lettering,
    StrokeFinder,
    close_up,
    put_back,
    straightened,
    without_next,
)
from cleanplate.models.detectors.lettering.lines import Line, beside
from cleanplate.models.detectors.lettering.reading import is_lettering, reads_well
from cleanplate.models.metrics.pixelwise import mask_iou
from cleanplate.models.segmenters.masks import grow, polygon_mask
from cleanplate.models.training.data import PhotoBank
from cleanplate.models.training.marks.fonts import floor_fonts
from cleanplate.models.training.marks.lines_data import LineSamples
from cleanplate.models.types import Image, Mask

Photo = Callable[[str], Image]


@pytest.fixture(scope="module")
def finder(weights_path: Callable[[str], Path]) -> StrokeFinder:
    return StrokeFinder(weights_path("strokes"))


def turned_quad(x: float, y: float, long: float, high: float, degrees: float) -> np.ndarray:
    turn = math.radians(degrees)
    along, down = np.array([math.cos(turn), math.sin(turn)]), np.array([-math.sin(turn), math.cos(turn)])
    corners = [(-long, -high), (long, -high), (long, high), (-long, high)]
    return np.array([[x, y] + (a * along + b * down) / 2 for a, b in corners])


def written(
    image: Image, text: str, at: tuple[int, int], size: int, colour: int
) -> tuple[Image, Mask, np.ndarray]:
    """The image with opaque text, its pixels, and the quadrilateral about it as a detector gives it."""
    layer = PilImage.new("L", image.shape[1::-1])
    drawing, font = ImageDraw.Draw(layer), ImageFont.load_default(size)
    drawing.text(at, text, fill=255, font=font)
    x0, y0, x1, y1 = drawing.textbbox(at, text, font=font)
    alpha = np.asarray(layer, np.float64)[..., None] / 255
    rim = size / 8
    quad = np.array(
        [[x0 - rim, y0 - rim], [x1 + rim, y0 - rim], [x1 + rim, y1 + rim], [x0 - rim, y1 + rim]], np.float64
    )
    return (image * (1 - alpha) + colour * alpha).astype(np.uint8), alpha[..., 0] > 0.5, quad


@pytest.mark.parametrize(
    ("long", "high", "degrees"), [(200, 30, 0), (90, 18, 12), (300, 150, -40), (60, 60, 90), (400, 9, 3)]
)
def test_what_a_strip_says_comes_back_to_its_place(long: float, high: float, degrees: float) -> None:
    """A bar along the middle of the line is a bar along the middle of its strip, and the other way round."""
    quad = turned_quad(320, 240, long, high, degrees)
    bar = polygon_mask((480, 640), turned_quad(320, 240, 0.8 * long, 0.4 * high, degrees))
    image = np.repeat(bar[..., None] * np.uint8(255), 3, 2)
    strip = straightened(image, quad)
    assert strip.pixels.shape[0] == HEIGHT
    assert strip.pixels.shape[1] % STEP == 0
    seen = strip.pixels[..., 0] / np.float32(255)
    ys, xs = np.nonzero(seen > 0.5)
    assert abs(ys.mean() + 0.5 - HEIGHT / 2) < 1.6
    assert abs(xs.mean() + 0.5 - strip.pixels.shape[1] / 2) < 1.6
    back = put_back((480, 640), strip, seen)
    assert mask_iou(back.strokes, bar) > (0.9 if high > 20 else 0.7)


def test_a_line_at_the_edge_and_one_beyond_it() -> None:
    image = np.full((40, 60, 3), 200, np.uint8)
    for quad in (
        turned_quad(2, 20, 60, 30, 10),
        turned_quad(59, 39, 8, 4, 0),
        turned_quad(-50, 20, 20, 10, 0),
    ):
        strip = straightened(image, quad)
        back = put_back((40, 60), strip, np.ones(strip.inside.shape, np.float32))
        assert back.strokes.shape == (40, 60)


@pytest.mark.parametrize(
    ("name", "text", "size", "colour"),
    [
        ("chelsea.jpg", "Harbour 27", 40, 255),
        ("astronaut.jpg", "SAMPLE", 70, 20),
        ("coffee.jpg", "north", 24, 240),
    ],
)
def test_strokes_on_photographs(
    finder: StrokeFinder, photo: Photo, name: str, text: str, size: int, colour: int
) -> None:
    image, truth, quad = written(photo(name), text, (30, 60), size, colour)
    (seen,) = finder(image, [quad])
    assert mask_iou(seen.strokes, truth) > 0.6
    assert (grow(seen.strokes, 2) & truth).sum() > 0.94 * truth.sum()
    assert is_lettering(Line(quad, 0.8), seen, image.shape[0] * image.shape[1])


def test_a_closer_look_draws_letters_more_tightly(finder: StrokeFinder, photo: Photo) -> None:
    """In quadrilaterals with a rim of a quarter of their letters' size, as detectors give them."""
    wide, close = [], []
    for name, text, size, colour in (
        ("chelsea.jpg", "Harbour", 16, 255),
        ("astronaut.jpg", "SAMPLE", 24, 20),
        ("coffee.jpg", "north by 7", 20, 240),
        ("chelsea.jpg", "Kelp", 90, 10),
    ):
        image, truth, quad = written(photo(name), text, (30, 60), size, colour)
        quad += size / 8 * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
        seen = finder(image, [quad])
        (strokes,) = finder.closer(image, [quad], seen)
        assert (grow(strokes, 2) & truth).sum() > 0.9 * truth.sum()
        wide.append(mask_iou(seen[0].strokes, truth))
        close.append(mask_iou(strokes, truth))
    assert np.mean(close) > np.mean(wide) + 0.02
    assert min(close) > 0.6


def test_what_a_closer_look_does_not_reach_stays_as_it_was(finder: StrokeFinder, photo: Photo) -> None:
    """A letter that stands out of its line by a fifth."""
    image, _, quad = written(photo("coffee.jpg"), "north", (30, 60), 60, 240)
    out = np.zeros(image.shape[:2], np.bool_)
    y = int(quad[0, 1] - 0.2 * (quad[3, 1] - quad[0, 1]))
    out[y, 40:50] = True
    (strokes,) = finder.closer(image, [quad], [Lettering(out, share=0.3, sure=0.9)])
    assert strokes[y, 40:50].all()
    assert finder.closer(image, [], []) == []


def test_where_a_closer_look_sees_nothing_the_first_one_counts(finder: StrokeFinder) -> None:
    flat, strokes = np.full((100, 300, 3), 90, np.uint8), np.zeros((100, 300), np.bool_)
    strokes[45:55, 60:240] = True
    (mask,) = finder.closer(flat, [turned_quad(150, 50, 200, 40, 0)], [Lettering(strokes, 0.3, 0.9)])
    assert np.array_equal(mask, strokes)


@pytest.mark.parametrize(
    ("long", "high", "degrees"), [(200, 30, 0), (20, 60, 0), (90, 18, 12), (300, 150, -40)]
)
def test_a_close_up_is_lower_and_longer(long: float, high: float, degrees: float) -> None:
    wanted = turned_quad(50, 40, long + 2 * BEYOND * high, CLOSER * high, degrees)
    np.testing.assert_allclose(close_up(turned_quad(50, 40, long, high, degrees)), wanted, atol=1e-9)


def test_what_lies_apart_beyond_the_end_is_no_part_of_the_line() -> None:
    """Strokes go on for as long as there is no gap of more than GAP of the line's height."""
    strip = straightened(np.zeros((200, 600, 3), np.uint8), close_up(turned_quad(300, 100, 200, 40, 0)))
    high, columns = LINE / CLOSER, np.flatnonzero(strip.inside.any(0))
    first, last = (round(end) for end in (columns[0] + BEYOND * high, columns[-1] - BEYOND * high))
    chance = np.zeros(strip.inside.shape, np.float32)
    near, gap = round(0.3 * high), round((GAP + 0.1) * high)
    for start in (
        first,
        last - 5,
        last + near,
        first - near - 5,
        last + near + 5 + gap,
        first - near - 10 - gap,
    ):
        chance[20:40, start : start + 5] = 0.9
    kept = np.flatnonzero(without_next(chance, strip.inside).any(0))
    assert kept.min() == first - near - 5
    assert kept.max() == last + near + 4
    assert without_next(np.ones_like(chance), strip.inside).all(), "no gap, nothing cut"


def test_letters_that_the_lines_detector_lost(finder: StrokeFinder, photo: Photo) -> None:
    """The last letter and a half of a word."""
    image, truth, quad = written(photo("chelsea.jpg"), "HARBOUR", (30, 60), 48, 255)
    cut = quad.copy()
    cut[1:3, 0] -= 45
    lost = truth & ~polygon_mask(image.shape[:2], cut)
    seen = finder(image, [cut])
    (strokes,) = finder.closer(image, [cut], seen)
    assert (strokes & lost).sum() > 0.8 * lost.sum() > 100


def test_no_strokes_where_nothing_is_written(finder: StrokeFinder, photo: Photo) -> None:
    """Fur, cloth and a table: what a text detector proposes there must not count for its strokes."""
    kept = 0
    for name in ("chelsea.jpg", "astronaut.jpg", "coffee.jpg"):
        image = photo(name)
        quads = [turned_quad(x, y, 160, 40, 0) for x in (100, 220, 340) for y in (60, 140, 220)]
        lines = finder(image, quads)
        kept += sum(
            is_lettering(Line(quad, 0.8), seen, image.shape[0] * image.shape[1])
            for quad, seen in zip(quads, lines, strict=True)
        )
    assert kept <= 1


def test_what_is_no_ink_or_all_ink_is_no_lettering() -> None:
    quad = turned_quad(100, 50, 120, 30, 0)
    strokes = np.zeros((100, 200), np.bool_)
    unread, doubtful, single = (
        Line(quad, 0.9),
        Line(quad, 0.9, "2a", 0.6),
        Line(turned_quad(100, 50, 40, 30, 0), 0.9, "O", 0.84),
    )
    for line, sure in ((unread, 0.9), (doubtful, 0.75)):
        assert is_lettering(line, Lettering(strokes, share=0.3, sure=sure), 200_000)
        assert not is_lettering(line, Lettering(strokes, share=0.8, sure=sure), 200_000)
        assert not is_lettering(line, Lettering(strokes, share=0.01, sure=sure), 200_000)
        assert not is_lettering(line, Lettering(strokes, share=0.3, sure=sure), 5_000)
    assert not is_lettering(unread, Lettering(strokes, share=0.3, sure=0.75), 200_000)
    assert not is_lettering(doubtful, Lettering(strokes, share=0.3, sure=0.6), 200_000)
    assert not is_lettering(single, Lettering(strokes, share=0.3, sure=0.75), 200_000), "a loudspeaker's cone"
    assert is_lettering(single, Lettering(strokes, share=0.3, sure=0.88), 200_000)


def test_less_is_asked_of_a_line_beside_text_and_of_one_fairly_read() -> None:
    quad, strokes = turned_quad(100, 50, 120, 30, 0), np.zeros((100, 200), np.bool_)
    line = Line(quad, 0.9)
    for share, sure, counts in ((0.3, 0.8, True), (0.3, 0.7, False), (0.6, 0.8, False), (0.01, 0.8, False)):
        ink = Lettering(strokes, share=share, sure=sure)
        assert is_lettering(line, ink, 200_000, beside=True) == counts
        assert not is_lettering(line, ink, 200_000)
    ink = Lettering(strokes, share=0.3, sure=0.75)
    large = 20_000  # of which the line takes more than 3 %
    assert is_lettering(Line(quad, 0.9, "Rehazoc", 0.66), ink, large)
    assert not is_lettering(Line(quad, 0.9, "Re", 0.66), ink, large)
    assert not is_lettering(Line(quad, 0.9, "Rehazoc", 0.55), ink, large)


@pytest.mark.parametrize(
    ("x", "y", "long", "high", "degrees", "near"),
    [
        (100, 95, 80, 28, 0, True),
        (100, 200, 80, 28, 0, False),
        (100, 95, 80, 60, 0, False),
        (100, 95, 80, 28, 20, False),
        (230, 52, 100, 30, 0, True),
        (300, 52, 100, 30, 0, False),
    ],
)
def test_lines_of_one_text(x: float, y: float, long: float, high: float, degrees: float, near: bool) -> None:
    """Under it, far under it, twice as high, aslant, going on after a space, after a gap."""
    one, other = (
        Line(turned_quad(100, 50, 120, 30, 2), 0.9),
        Line(turned_quad(x, y, long, high, degrees), 0.9),
    )
    assert beside(one, other) == beside(other, one) == near


def test_samples_are_made_from_their_number_alone() -> None:
    rng = np.random.default_rng(0)
    pictures = tuple(rng.integers(0, 255, (200, 260, 3), dtype=np.uint8) for _ in range(2))
    bank = PhotoBank(("a", "b"), pictures, np.array([0.5, 0.5]))
    lines = LineSamples(bank, floor_fonts(), 128, seed=1)
    samples = [lines.sample(n) for n in range(24)]
    again = LineSamples(bank, floor_fonts(), 128, seed=1).sample(5)
    assert all(np.array_equal(one, other) for one, other in zip(samples[5], again, strict=True))
    lettered = [mask for _, mask, _ in samples if mask.any()]
    assert 10 <= len(lettered) <= 22
    for image, mask, counted in samples:
        assert image.shape == (HEIGHT, 128, 3)
        assert mask.shape == counted.shape == (HEIGHT, 128)
    # Letters lie in the middle of a strip, with room above and below.
    rows = np.mean([mask.mean(1) for mask in lettered], axis=0)
    assert rows[HEIGHT // 2 - 8 : HEIGHT // 2 + 8].mean() > 3 * max(rows[:4].mean(), rows[-4:].mean())


@pytest.mark.parametrize(
    ("text", "width", "height", "sure", "drawn", "believed"),
    [
        ("日日", 120, 60, 0.97, False, False),  # a row of windows
        ("囗", 60, 60, 0.97, False, False),
        ("m", 150, 45, 0.91, False, False),  # the pattern of a bowl's rim
        ("m", 60, 45, 0.91, False, True),
        ("米", 300, 250, 0.9, False, False),  # a wheel
        ("0", 25, 28, 0.92, True, False),  # a button
        ("", 120, 40, 0.92, False, True),  # a script that the recogniser does not know
        ("D1", 240, 120, 0.8, False, False),
        ("D1", 60, 30, 0.8, False, True),
    ],
)
def test_a_lone_line_that_is_not_read_is_lettering_only_where_nothing_else_looks_so(
    text: str, width: float, height: float, sure: float, drawn: bool, believed: bool
) -> None:
    quad = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64)
    line = Line(quad, 0.7, text, 0.65 if text == "D1" else 0.5, drawn=drawn)
    seen = Lettering(np.ones((2, 2), np.bool_), 0.3, sure)
    assert is_lettering(line, seen, 480_000) is believed


def test_a_chain_that_reads_as_two_letters_again_and_again_is_not_read_well() -> None:
    quad = np.array([[0, 0], [700, 0], [700, 130], [0, 130]], np.float64)
    assert not reads_well(Line(quad, 0.6, "DOODODOD", 0.9), 480_000)
    assert reads_well(Line(quad, 0.6, "Mississippi", 0.9), 480_000)
    assert reads_well(Line(quad, 0.6, "0101010101", 0.9), 480_000)
