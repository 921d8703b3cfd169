from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cleanplate.models.training.marks import fonts
from cleanplate.models.training.marks.data import MarkSamples, _piece, lettered, varied
from cleanplate.models.training.marks.figures import KINDS
from cleanplate.models.training.marks.render import UNSEEN, plan_mark, render
from cleanplate.models.training.marks.trials import Case, cases, score, standout, trial

FONTS = fonts.floor_fonts()


@pytest.fixture(scope="module")
def photo():
    rng = np.random.default_rng(0)
    ramp = np.linspace(60, 180, 200)[:, None, None] + np.array([0, 20, -20])
    return np.clip(ramp + rng.normal(0, 3, (200, 260, 3)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("kind", KINDS)
def test_a_mark_changes_its_own_pixels_and_no_other(photo, kind):
    rng = np.random.default_rng(3)
    mark = replace(plan_mark(rng, kind, (0.6, 0.9)), blend="normal", colour=(1.0, 1.0, 1.0), edge=None)
    before = photo.copy()
    marked = render(rng, photo, FONTS, mark, jpeg=False)
    changed = np.abs(marked.image.astype(int) - photo).max(2)
    assert np.array_equal(photo, before)
    assert not changed[marked.matte == 0].any()
    assert (changed[marked.mask & marked.seen] >= UNSEEN).all()
    assert marked.mask.sum() > 30
    assert marked.matte.max() <= mark.alpha + 1e-6
    assert not marked.mask[marked.matte == 0].any()
    assert marked.seen[~marked.mask].all()


def test_the_opacity_is_the_one_that_was_planned(photo):
    rng = np.random.default_rng(1)
    mark = replace(
        plan_mark(rng, "large", (0.4, 0.4)),
        colour=(1.0, 1.0, 1.0),
        blend="normal",
        edge=None,
        shadow=False,
        hollow=False,
        size=0.3,
    )
    marked = render(rng, photo, FONTS, mark, jpeg=False)
    full = marked.matte == marked.matte.max()
    alpha = (marked.image[full].astype(float) - photo[full]) / (255.0 - photo[full])
    assert alpha.mean() == pytest.approx(marked.matte.max(), abs=0.01)


def test_what_cannot_be_seen_is_said(photo):
    white = np.full_like(photo, 254)
    rng = np.random.default_rng(2)
    mark = replace(
        plan_mark(rng, "line", (0.3, 0.3)), colour=(1.0, 1.0, 1.0), blend="normal", edge=None, shadow=False
    )
    marked = render(rng, white, FONTS, mark, jpeg=False)
    assert marked.mask.any()
    assert not (marked.mask & marked.seen).any()


def test_the_same_seed_is_the_same_sample_and_another_is_not(photo):
    class Bank:
        images = (photo,)

        def draw(self, rng):
            return photo

    samples = MarkSamples(Bank(), FONTS, 64, seed=5)
    image, mask, counted = samples[3]
    again, *_ = samples[3]
    other, *_ = samples[4]
    assert image.shape == (3, 64, 64)
    assert mask.shape == counted.shape == (1, 64, 64)
    assert (image == again).all()
    assert (image != other).any()


def test_ground_is_varied_and_the_photograph_stays(photo):
    square = np.ascontiguousarray(photo[:128, :128])
    before = square.copy()
    some = [varied(np.random.default_rng(seed), square) for seed in range(40)]
    assert np.array_equal(square, before)
    assert {one.shape for one in some} == {square.shape}
    assert {one.dtype for one in some} == {square.dtype}
    assert np.array_equal(some[3], varied(np.random.default_rng(3), square))
    assert len({one.tobytes() for one in some}) > 25
    means = [float(one.mean()) for one in some]
    assert min(means) < square.mean() - 15 < square.mean() + 15 < max(means)


def test_a_piece_is_cut_where_its_mark_is_and_may_hold_nothing_else():
    side, size = 128, 64
    where = np.add.outer(np.arange(side), np.arange(side)).astype(np.uint8)
    image = np.repeat(where[..., None], 3, 2)
    spot = np.zeros((side, side), np.bool_)
    spot[5:9, 120:126] = True
    wide = np.ones((side, side), np.bool_)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        piece, mask, counted = _piece(rng, (image, spot, ~spot), size)
        assert piece.shape == (size, size, 3)
        assert mask.any()
        assert (counted == ~mask).all()
        assert (np.diff(piece[0, :, 0]) == 1).all()  # as it lay in the picture
        assert _piece(rng, (image, wide, wide), size)[1].all()
        assert not _piece(rng, (image, ~wide, wide), size)[1].any()


def test_lettering_of_the_scene_is_no_mark_but_is_there(photo):
    rng = np.random.default_rng(0)
    assert (lettered(rng, photo, FONTS) != photo).any()


def test_fonts_of_a_folder_are_sorted_by_what_they_hold(tmp_path):
    with pytest.raises(ValueError, match="no usable font"):
        fonts.load_fonts(tmp_path)
    (tmp_path / "broken.ttf").write_bytes(b"not a font")
    with pytest.raises(ValueError, match="no usable font"):
        fonts.load_fonts(tmp_path)
    assert set(FONTS.of_script) == {"latin"}
    assert len(FONTS.faces) == 1 + len(fonts.HERSHEY)


def test_cases_are_the_same_for_a_seed_and_cover_every_kind_and_level():
    some = cases(["text", "watermark", "face"], photos=5, each=2, seed=1, clean=3)
    assert some == cases(["text", "watermark", "face"], photos=5, each=2, seed=1, clean=3)
    assert sum(case.kind == "watermark" and case.mark != "" for case in some) == 2 * len(KINDS) * 3
    assert sum(case.kind == "watermark" and case.level == "lettered" for case in some) == 3
    assert {case.level for case in some if case.kind == "face"} == {"clean"}
    assert {case.level for case in some if case.kind == "text"} == {"opaque", "clean"}


def test_scores_of_a_perfect_an_empty_and_a_wrong_find(photo):
    given = trial(Case("watermark", "stamp", "opaque", 0, 7), photo, FONTS, seed=1)
    nothing = np.zeros(photo.shape[:2], np.bool_)
    perfect = score(given, [given.mask], given.mask)
    assert (perfect.hit, perfect.recall, perfect.precision, perfect.iou, perfect.harm) == (True, 1, 1, 1, 0)
    missed = score(given, [], nothing)
    assert (missed.hit, missed.recall, missed.iou, missed.regions) == (False, 0, 0, 0)
    far = nothing.copy()
    far[np.unravel_index(int(np.argmin(given.mask)), given.mask.shape)] = True
    astray = score(given, [far], far)
    assert (astray.hit, astray.false, astray.iou) == (False, 1, 0)
    assert astray.harm == pytest.approx(1 / far.size)


def test_a_clean_picture_scores_harm_only(photo):
    clean = trial(Case("watermark", "", "clean", 0, 0), photo, FONTS, seed=1)
    assert clean.image is photo
    everything = np.ones(photo.shape[:2], np.bool_)
    found = score(clean, [everything], everything)
    assert found.harm == found.edited == 1
    assert np.isnan(found.recall)
    assert not found.hit


def test_standing_out_is_change_by_what_the_ground_hides():
    rng = np.random.default_rng(4)
    flat = np.full((80, 80, 3), 100, np.uint8)
    rough = np.clip(100 + rng.normal(0, 20, (80, 80, 1)).repeat(3, 2), 0, 255).astype(np.uint8)
    shown = np.zeros((80, 80), np.bool_)
    shown[30:50, 30:50] = True
    assert standout(flat, np.where(shown[..., None], 110, flat).astype(np.uint8), shown) == pytest.approx(10)
    assert standout(flat, np.where(shown[..., None], 120, flat).astype(np.uint8), shown) == pytest.approx(20)
    assert standout(rough, np.where(shown[..., None], rough + 10, rough).astype(np.uint8), shown) < 1
    assert np.isnan(standout(flat, flat, ~shown & shown))


def test_how_far_a_mark_stands_out_is_measured_before_jpeg(photo):
    marked = trial(Case("watermark", "stamp", "opaque", 0, 7), photo, FONTS, seed=1)
    assert marked.standout > 1
    assert np.isnan(trial(Case("watermark", "", "clean", 0, 0), photo, FONTS, seed=1).standout)
