import numpy as np
import pytest

from cleanplate.models.training.lama.masks import (
    MASKS,
    Boxes,
    MaskRecipe,
    Strokes,
    bounded_mask,
    box_mask,
    random_mask,
    scaled,
    statistics,
    stroke_mask,
)

# Statistics of 1000 masks of the authors' own generators (the reference run at commit 786f593), per recipe:
# side in px, mean and standard deviation of the hole's share, median of the largest inscribed radius in px.
REFERENCE = {
    "large": (256, 0.3549, 0.2069, 57.0),
    "narrow": (256, 0.2277, 0.1568, 32.1),
    "thin-256": (256, 0.2967, 0.1358, 15.0),
    "thin-512": (512, 0.2954, 0.1355, 24.3),
    "medium-256": (256, 0.2459, 0.1348, 33.4),
    "medium-512": (512, 0.3037, 0.1598, 69.1),
    "thick-256": (256, 0.4040, 0.2177, 62.5),
    "thick-512": (512, 0.4614, 0.2492, 149.9),
}


def test_every_recipe_has_reference_statistics():
    assert REFERENCE.keys() == MASKS.keys()


@pytest.mark.parametrize("name", MASKS)
def test_statistics_are_the_reference_generators(name):
    side, mean, deviation, radius = REFERENCE[name]
    rng = np.random.default_rng(1)
    masks = [random_mask(rng, side, side, MASKS[name]) for _ in range(500)]
    areas = np.array([mask.mean() for mask in masks])
    result = statistics(masks[:250])
    # Both means are estimates: 4 standard errors of their difference.
    assert areas.mean() == pytest.approx(mean, abs=4 * deviation * np.sqrt(1 / 500 + 1 / 1000))
    assert areas.std() == pytest.approx(deviation, rel=0.12)
    assert result.radius == pytest.approx(radius, rel=0.12)
    assert result.mean == pytest.approx(areas[:250].mean())
    assert result.low < result.median < result.high


def test_the_two_shapes_of_the_large_recipe_match_apart():
    rng = np.random.default_rng(2)
    boxes = MASKS["large"].boxes
    assert boxes is not None
    strokes_mean = np.mean([stroke_mask(rng, 256, 256, MASKS["large"].strokes).mean() for _ in range(500)])
    boxes_mean = np.mean([box_mask(rng, 256, 256, boxes).mean() for _ in range(500)])
    assert strokes_mean == pytest.approx(0.4552, abs=0.035)
    assert boxes_mean == pytest.approx(0.2511, abs=0.02)


def test_box_sides_and_margin_stay_in_their_limits():
    rng = np.random.default_rng(3)
    params = Boxes(margin=10, min_size=30, max_size=50, min_times=1, max_times=1)
    sides = set()
    for _ in range(400):
        ys, xs = np.nonzero(box_mask(rng, 100, 120, params))
        assert ys.min() >= 10
        assert ys.max() < 90
        assert xs.min() >= 10
        assert xs.max() < 110
        sides |= {int(np.ptp(ys)) + 1, int(np.ptp(xs)) + 1}
    assert min(sides) == 30
    assert max(sides) == 50


def test_boxes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="too small for boxes of 30 px"):
        box_mask(np.random.default_rng(0), 48, 256, Boxes(10, 30, 150, 1, 4))


def test_a_mask_follows_from_the_seed_alone():
    first, again, other = (
        random_mask(np.random.default_rng(seed), 128, 96, MASKS["thin-256"]) for seed in (5, 5, 6)
    )
    assert first.shape == (128, 96)
    assert first.dtype == np.bool_
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_bounded_masks_keep_the_limit_and_are_never_empty():
    rng = np.random.default_rng(4)
    areas = [bounded_mask(rng, 64, 64, scaled(MASKS["thick-256"], 0.25), 0.3).mean() for _ in range(200)]
    assert max(areas) <= 0.3
    assert min(areas) > 0


def test_an_impossible_bound_is_said():
    recipe = MaskRecipe(Strokes(1, 1, 1, 1), Boxes(0, 60, 60, 1, 1), 0.0, 1.0)
    with pytest.raises(ValueError, match="1000 draws"):
        bounded_mask(np.random.default_rng(0), 64, 64, recipe, 0.1)


def test_scaled_masks_cover_about_the_same_share():
    rng = np.random.default_rng(6)
    half = scaled(MASKS["medium-256"], 0.5)
    areas = [random_mask(rng, 128, 128, half).mean() for _ in range(500)]
    assert np.mean(areas) == pytest.approx(REFERENCE["medium-256"][1], abs=0.06)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (MaskRecipe(Strokes(1, 1, 5, 5), strokes_weight=0.0), "one of them above 0"),
        (MaskRecipe(Strokes(1, 1, 5, 5), strokes_weight=0.0, boxes_weight=1.0), "no parameters"),
    ],
)
def test_recipes_without_sense_are_refused(recipe, message):
    with pytest.raises(ValueError, match=message):
        random_mask(np.random.default_rng(0), 64, 64, recipe)
