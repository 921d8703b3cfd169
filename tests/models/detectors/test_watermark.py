"""The rule that tells overlay from lettering of the scene, on evidence made by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from cleanplate.models.detectors.lettering.lines import Line
from cleanplate.models.detectors.overlay.candidates import candidates, parts
from cleanplate.models.detectors.overlay.evidence import NAMES, cut, evidence, window
from cleanplate.models.detectors.overlay.overlay_map import Looks, Sight, hysteresis, views
from cleanplate.models.detectors.overlay.rule import Rule, fit_logistic, has_rule, read_rule, write_rule
from cleanplate.models.detectors.watermark import WatermarkDetector, decided, repeated
from cleanplate.models.weights.registry import resolve

HEIGHT, WIDTH = 160, 240
BY_CHANCE = Rule({"bias": -1.0, "agreed": 1.0}, {"bias": -2.0, "agreed": 1.0}, first=0.8, more=0.5)
"""Nothing but the mean of the U-Net's looks: a line with .73 of it is even odds."""


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


def judge(image, seen, lines, rule):
    return decided(candidates(image, seen, lines), image.shape[:2], rule)


def looks(*maps):
    return Looks(tuple(np.round(255 * np.asarray(one)).astype(np.uint8) for one in maps))


def of_mask(image, mask):
    """The evidence of pixels of which the network is sure."""
    chance, box = mask.astype(np.float32), window(mask)
    return evidence(np.clip(image, 0, 255).astype(np.uint8), chance, chance, box, cut(mask, box))


def test_a_line_that_the_network_calls_overlay_is_taken_whole(picture):
    image, strokes = picture
    word = line("SAMPLE", 20, 20)
    chance = np.where(strokes, 0.97, 0.0)
    chance[:, int(np.quantile(np.nonzero(strokes)[1], 0.95)) :] = 0
    found = judge(image, looks(chance), [word], BY_CHANCE) > 0
    assert found[strokes].mean() > 0.9  # the strokes complete what the network saw a part of
    assert found[~strokes].mean() < 0.01
    chance[:, int(np.quantile(np.nonzero(strokes)[1], 0.4)) :] = 0
    assert not judge(image, looks(chance), [word], BY_CHANCE).any(), "two fifths are not enough"


def test_the_shipped_rule_takes_a_sure_line_and_leaves_an_unseen_one(picture):
    """In a photograph's noise, a mark of one colour: what the fitted weights must get right whatever else they do."""
    _, strokes = picture
    rng = np.random.default_rng(0)
    ground = 110 + 40 * np.sin(np.arange(WIDTH) / 9)[None, :, None] + rng.normal(0, 12, (HEIGHT, WIDTH, 3))
    blended = np.where(strokes[..., None], 0.5 * ground + 0.5 * 250, ground)
    image = np.clip(blended, 0, 255).astype(np.uint8)
    word, rule = line("SAMPLE", 20, 20), read_rule(resolve("marks"))
    sure, nothing = np.where(strokes, 0.97, 0.01), np.full(strokes.shape, 0.01)
    assert judge(image, looks(sure, sure), [word], rule)[strokes].mean() > 0.7
    assert not judge(image, looks(nothing, nothing), [word], rule).any()


def test_lettering_of_the_scene_stays_and_takes_the_networks_specks_with_it(picture):
    image, strokes = picture
    chance = np.zeros((HEIGHT, WIDTH))
    chance[24:40, 24:28] = 0.97  # one letter of six
    chance[100:110, 150:200] = 0.97  # a mark elsewhere
    found = judge(image, looks(chance), [line("BAKERY", 20, 20)], BY_CHANCE) > 0
    assert not found[strokes].any()
    assert found[100:110, 150:200].all()


def test_a_line_found_in_the_networks_own_map_takes_nothing_with_it(picture):
    image, strokes = picture
    lines_never = replace(BY_CHANCE, lines={"bias": -20.0})
    chance, word = np.where(strokes, 0.97, 0.0), line("SAMPLE", 20, 20)
    assert not judge(image, looks(chance), [word], lines_never).any(), "a sign of the scene"
    assert judge(image, looks(chance), [replace(word, drawn=True)], lines_never)[strokes].all()


def test_the_same_words_found_twice_at_one_place_are_no_tiling(picture):
    image, _ = picture
    nothing = looks(np.zeros((HEIGHT, WIDTH)))
    signs = [line("exit", 20, 20), line("exit", 130, 60)]
    again = [replace(one, drawn=True) for one in signs]
    assert not judge(image, nothing, signs + again, BY_CHANCE).any()


def test_where_one_mark_is_less_sure_ones_count_as_well(picture):
    image, _ = picture
    chance = np.zeros((HEIGHT, WIDTH))
    chance[70:80, 20:60] = 0.955  # both looks: logit 3.1, .74 by BY_CHANCE
    chance[20:30, 150:200] = 0.9  # .55: most such pieces are the scene's
    again = chance.copy()
    assert not judge(image, looks(chance, again), [], BY_CHANCE).any(), (
        "nothing here is sure enough to begin with"
    )
    for one in (chance, again):
        one[120:130, 150:200] = 0.99
    found = judge(image, looks(chance, again), [], BY_CHANCE) > 0
    assert found[120:130, 150:200].all()
    assert found[70:80, 20:60].all()
    assert not found[20:30].any()


def test_within_an_overlaid_line_its_strokes_are_the_mark(picture):
    """And not the fog that the U-Net calls overlay round about them."""
    image, strokes = picture
    ys, xs = np.nonzero(strokes)
    word = line("word", xs.min() - 4, ys.min() - 4, np.ptp(xs) + 9, np.ptp(ys) + 9)
    fog = np.zeros((HEIGHT, WIDTH))
    fog[ys.min() - 2 : ys.max() + 3, xs.min() - 2 : xs.max() + 3] = 0.45
    fog[strokes] = 0.99
    found = judge(image, looks(fog, fog), [word], BY_CHANCE) > 0
    assert found[strokes].mean() > 0.95
    assert found.sum() < 1.3 * strokes.sum()


def test_the_same_words_three_times_are_a_tiling_without_any_evidence(picture):
    image, strokes = picture
    nothing = looks(np.zeros((HEIGHT, WIDTH)))
    tiles = [line("Stock", 20, 20), line("stock.", 130, 60), line("STOCK", 20, 110)]
    assert repeated(tiles) == {0, 1, 2}
    assert judge(image, nothing, tiles, BY_CHANCE)[strokes].mean() > 0.8
    assert not judge(image, nothing, tiles[:2], BY_CHANCE).any()


@pytest.mark.parametrize("alpha", [0.3, 0.6, 0.9, 1.0])
def test_the_evidence_knows_how_much_shows_through(picture, alpha):
    """1 - a is the slope of what is seen against what is behind."""
    _, strokes = picture
    rng = np.random.default_rng(0)
    image = np.linspace(20, 480, WIDTH)[None, :, None].repeat(HEIGHT, 0).repeat(3, 2)  # the word ends at 200
    image = image + rng.normal(0, 6, image.shape)
    image[strokes] = image[strokes] * (1 - alpha) + 250 * alpha
    found = of_mask(image, strokes)
    assert set(found) == set(NAMES)
    assert found["slope"] == pytest.approx(1 - alpha, abs=0.12)


def test_a_wide_mark_is_calmer_than_the_ground_by_what_shows_through():
    image = np.random.default_rng(0).normal(110, 12, (HEIGHT, WIDTH, 3))
    mark = np.zeros((HEIGHT, WIDTH), np.bool_)
    mark[40:100, 60:180] = True
    image[mark] = image[mark] * 0.4 + 200 * 0.6
    found = of_mask(image, mark)
    assert 10 ** found["calm"] == pytest.approx(0.4, abs=0.15)
    assert 0.5 < 10 ** found["contrast"] / 54 < 1.5


def test_a_picture_is_searched_at_every_look_and_a_piece_is_told_once(picture):
    image, _ = picture
    fine, coarse = np.zeros((HEIGHT, WIDTH)), np.zeros((HEIGHT, WIDTH))
    fine[60:70, 20:80] = coarse[60:70, 20:80] = 0.9
    coarse[120:150, 150:220] = 0.9
    found = candidates(image, looks(fine, coarse), [])
    assert sorted(int(one.mask.sum()) for one in found) == [600, 2100]
    only = next(one for one in found if one.mask.sum() == 2100)
    both = next(one for one in found if one.mask.sum() == 600)
    assert only.evidence["chance"] == pytest.approx(both.evidence["chance"], abs=0.05)
    assert only.evidence["agreed"] < 0 < both.evidence["agreed"]


def test_a_map_that_calls_half_of_the_picture_overlay_speaks_for_nothing_more(picture):
    image, _ = picture
    little, half = np.zeros((HEIGHT, WIDTH)), np.zeros((HEIGHT, WIDTH))
    little[60:70, 20:80] = half[: HEIGHT // 2] = 0.9
    (one,), (other,) = (candidates(image, looks(chance), []) for chance in (little, half))
    assert one.evidence["map"] == pytest.approx(600 / (HEIGHT * WIDTH), rel=1e-3)
    assert other.evidence["map"] == 0.1


def test_the_rule_lives_in_the_weights_and_changes_nothing_else(tmp_path):
    path = tmp_path / "w.safetensors"
    save_file({"a": np.arange(3.0)}, path, metadata={"licence": "x"})
    assert not has_rule(path)
    with pytest.raises(ValueError, match="fit_watermark"):
        read_rule(path)
    write_rule(path, BY_CHANCE)
    assert read_rule(path) == BY_CHANCE
    assert np.array_equal(load_file(path)["a"], np.arange(3.0))
    assert json.loads(BY_CHANCE.text())["first"] == 0.8
    (tmp_path / "no").write_bytes(b"no safetensors")
    with pytest.raises(ValueError, match="cannot be read"):
        read_rule(tmp_path / "no")


def test_the_fit_finds_the_weights_that_made_the_data():
    rng = np.random.default_rng(1)
    evidence = rng.normal(0, [1, 10, 2], (4000, 3))
    logit = 0.5 + 1.5 * evidence[:, 0] - 0.2 * evidence[:, 1]
    overlay = (rng.random(4000) < 1 / (1 + np.exp(-logit))).astype(float)
    assert fit_logistic(evidence, overlay) == pytest.approx([0.5, 1.5, -0.2, 0], abs=0.2)


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
    assert [int(part.sum()) for _, part in found] == [90, 30]
    assert found[1][0] == (80, 10, 83, 20)


def test_a_large_picture_is_seen_in_tiles_whole_and_coarsely():
    small, large = np.zeros((300, 400, 3), np.uint8), np.zeros((3000, 4000, 3), np.uint8)
    assert [[view.size for view in level] for level in views(small, Sight())] == [[(288, 384)], [(192, 256)]]
    levels = views(large, Sight())
    assert [level[0].size for level in levels[1:]] == [(768, 1024), (384, 512), (192, 256)]
    assert len(levels[0]) > 4
    assert [len(level) for level in views(large, Sight(coarse=False))] == [len(levels[0]), 1]


@pytest.mark.parametrize(("text", "marked"), [("SAMPLE", True), ("7", False), ("", True)])
def test_a_single_letter_marks_no_picture(picture, text, marked):
    image, strokes = picture
    sure, lines_only = np.where(strokes, 0.97, 0.0), replace(BY_CHANCE, blobs={"bias": -20.0})
    assert judge(image, looks(sure), [line(text, 20, 20)], lines_only).any() == marked


@pytest.mark.parametrize(("text", "there"), [("SAMPLE", True), ("", False)])
def test_a_line_of_a_large_part_of_the_picture_must_be_read(picture, text, there):
    image, strokes = picture
    wide = line(text, 10, 15, width=200, height=40)
    found = candidates(image, looks(np.where(strokes, 0.97, 0.0)), [wide])
    assert any(one.line is wide for one in found) == there


def test_pieces_that_cover_much_of_a_picture_together_must_be_surer():
    """Walls of petals and discs of light: as sure as a mark by themselves, and too much of the picture."""
    image = np.full((HEIGHT, WIDTH, 3), 120, np.uint8)
    rule = Rule({"bias": -9.0}, {"bias": -2.0, "agreed": 1.0}, first=0.8, more=0.5)

    def found(sides):
        chance = np.zeros((HEIGHT, WIDTH))
        for n, side in enumerate(sides):
            chance[10 : 10 + side, 10 + 75 * n : 10 + 75 * n + side] = 0.98
        return judge(image, looks(chance), [], rule) > 0

    assert found([20]).sum() == 400
    assert found([44]).sum() == 44 * 44  # .05 of the picture
    assert not found([44, 44, 44]).any()
    sure = Rule(rule.lines, {"bias": 0.0, "agreed": 1.0}, first=0.8, more=0.5)
    assert (judge(image, looks(np.pad(np.full((120, 200), 0.99), 20)), [], sure) > 0).sum() == 120 * 200


def test_what_may_be_a_mark_is_doubted_and_not_found(picture):
    """A word of even odds makes no picture a marked one, but no fill may copy it."""
    image, strokes = picture
    detector = WatermarkDetector(SimpleNamespace(rule=BY_CHANCE))
    for chance, doubted in ((0.75, True), (0.0, False)):
        seen = [looks(np.where(strokes, chance, 0.0))]
        assert detector.regions([image], seen, [[line("SAMPLE", 20, 20)]]) == [[]]
        (found,) = detector.regions([image], seen, [[line("SAMPLE", 20, 20)]], doubts=True)
        assert [(r.kind, r.doubtful) for r in found] == [("watermark", True)] * doubted
        assert all(r.box[0] <= 24 and r.box[2] >= 88 for r in found)
