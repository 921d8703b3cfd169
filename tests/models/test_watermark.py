"""The rule that tells overlay from lettering of the scene, on evidence made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from models.detectors.lines import Line
from models.detectors.overlay import Sight, hysteresis, views
from models.detectors.watermark import judge, parts, repeated, shows_through

HEIGHT, WIDTH = 160, 240


def line(text: str, x: float, y: float, width: float = 80, height: float = 24, angle: float = 0.0) -> Line:
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64)
    turn = np.radians(angle)
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    return Line(corners @ rotation + [x, y], 0.9, text, 0.95)


@pytest.fixture
def picture():
    """A dark word of bars on light ground at (20..100, 20..44), and where its strokes are."""
    image = np.full((HEIGHT, WIDTH, 3), 200, np.uint8)
    strokes = np.zeros((HEIGHT, WIDTH), np.bool_)
    for x in range(24, 96, 12):
        strokes[24:40, x : x + 4] = True
    image[strokes] = 20
    return image, strokes


def test_a_line_is_overlay_when_most_of_its_strokes_are_called_so(picture):
    image, strokes = picture
    word = line("SAMPLE", 20, 20)
    chance = np.where(strokes, 0.97, 0.0).astype(np.float32)
    cut = int(np.quantile(np.nonzero(strokes)[1], 0.8))
    chance[:, cut:] = 0  # four fifths of the word's strokes are left
    found = judge(image, chance, [word])[0] > 0
    assert found[strokes].mean() > 0.9  # the strokes complete what the network saw a part of
    assert found[~strokes].mean() < 0.01
    chance[:, int(np.quantile(np.nonzero(strokes)[1], 0.6)) :] = 0
    assert not judge(image, chance, [word])[0].any(), "three fifths are not enough"


def test_lettering_of_the_scene_stays_and_takes_the_networks_specks_with_it(picture):
    image, strokes = picture
    chance = np.zeros((HEIGHT, WIDTH), np.float32)
    chance[24:40, 24:28] = 0.97  # one letter of six
    chance[100:110, 150:200] = 0.97  # a mark elsewhere
    found = judge(image, chance, [line("BAKERY", 20, 20)])[0] > 0
    assert not found[strokes].any()
    assert found[100:110, 150:200].all()


def test_the_same_words_three_times_are_a_tiling_without_any_evidence(picture):
    image, strokes = picture
    nothing = np.zeros((HEIGHT, WIDTH), np.float32)
    tiles = [line("Stock", 20, 20), line("stock.", 130, 60), line("STOCK", 20, 110)]
    assert repeated(tiles) == {0, 1, 2}
    assert judge(image, nothing, tiles)[0][strokes].mean() > 0.8
    assert not judge(image, nothing, tiles[:2])[0].any()


@pytest.mark.parametrize(("alpha", "through"), [(0.5, True), (0.8, True), (1.0, False)])
def test_the_picture_shows_through_a_blended_line_and_not_through_paint(picture, alpha, through):
    _, strokes = picture
    rng = np.random.default_rng(0)
    image = np.full((HEIGHT, WIDTH, 3), 90.0) + 60 * np.sin(np.arange(WIDTH) / 9)[None, :, None]
    image[strokes] = image[strokes] * (1 - alpha) + 250 * alpha
    image = np.clip(image + rng.normal(0, 3, image.shape), 0, 255).astype(np.uint8)
    word = line("SAMPLE", 20, 20)
    assert shows_through(image, word.quad, strokes) == through
    hint = np.zeros((HEIGHT, WIDTH), np.float32)
    hint[24:40, 24:28] = 0.6  # a sixth of the strokes, not sure by itself
    assert bool(judge(image, hint, [word])[0].any()) == through
    assert not judge(image, 0 * hint, [word])[0].any()


@pytest.mark.parametrize(
    "others",
    [
        [line("exit", 10, 60, height=24), line("exit", 10, 100, height=40)],
        [line("exit", 10, 60), line("exit", 10, 100, angle=20)],
        [line("exit", 10, 60), line("entry", 10, 100)],
    ],
)
def test_other_words_heights_or_angles_are_no_tiling(others):
    assert repeated([line("exit", 10, 10), *others]) == set()


def test_hysteresis_keeps_what_hangs_together_with_something_sure():
    chance = np.zeros((8, 20), np.float32)
    chance[2, 2:8] = 0.5
    chance[3, 8] = 0.9  # touches by a corner
    chance[6, 12:18] = 0.5
    found = hysteresis(chance, 0.4, 0.7)
    assert found[2, 2:8].all()
    assert not found[6].any()


def test_letters_near_each_other_are_one_region():
    mask = np.zeros((40, 100), np.bool_)
    for x in (10, 18, 26, 80):
        mask[10:20, x : x + 3] = True
    found = parts(mask, reach=4)
    assert [int(part.sum()) for part in found] == [90, 30]


def test_a_large_picture_is_seen_whole_in_tiles_and_coarsely():
    small, large = np.zeros((300, 400, 3), np.uint8), np.zeros((3000, 4000, 3), np.uint8)
    assert [view.size for view in views(small, Sight())] == [(288, 384)]
    sizes = [view.size for view in views(large, Sight())]
    assert sizes[0] == (768, 1024)
    assert sizes[-1] == (384, 512)
    assert len(sizes) > 6
