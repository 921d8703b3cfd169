"""What no fill may copy travels from the detectors to the fillers."""

from __future__ import annotations

import numpy as np

from cleanplate.models.inpainters.copying import PatchMatch
from cleanplate.models.types import Region
from cleanplate.pipeline.images import rle
from cleanplate.pipeline.recipe.recipe import Recipe
from cleanplate.pipeline.stages.detect import apart
from cleanplate.pipeline.stages.inpaint import closed_of, fill, masks_by_filler

FACE = Region("face", "test", 0.9, (20, 20, 44, 44))
SECOND = Region("face", "test", 0.2, (60, 16, 90, 48), doubtful=True)
SIGN = Region("text", "test", 0.4, (10, 60, 90, 80))


def picture() -> np.ndarray:
    """Grey grain; a red patch where SECOND is, a blue one where SIGN is."""
    image = np.repeat(np.random.default_rng(0).integers(60, 180, (100, 100, 1), np.uint8), 3, axis=2)
    image[16:48, 60:90, 1:] = image[60:80, 10:90, :2] = 0
    return image


def test_a_fill_has_nothing_of_what_was_doubted_or_left_out_by_the_limits() -> None:
    recipe = Recipe.model_validate({"remove": ["face", "text"], "detect": {"text": {"min_score": 0.5}}})
    image = picture()
    found, forbidden = apart([FACE, SECOND, SIGN], image, recipe)
    assert found == [FACE]
    assert forbidden is not None
    mask = rle.from_box(FACE.box, 100, 100)
    row = {
        "height": 100,
        "width": 100,
        "mask_rle": rle.to_rle(mask),
        "forbidden": forbidden,
        "regions": [{"kind": "face", "rle": rle.to_rle(mask)}],
    }
    assert closed_of(row)[16:48, 60:90].all()
    assert closed_of(row)[60:80, 10:90].all()
    fillers = {"": PatchMatch()}
    (filled,) = fill([image], [masks_by_filler(row, fillers)], fillers, [closed_of(row)])
    assert np.ptp(filled[mask].astype(int), axis=1).max() == 0, "grey, as what may be copied"
    assert np.array_equal(filled[~mask], image[~mask])


def test_nothing_is_forbidden_where_nothing_is_filled() -> None:
    recipe = Recipe.model_validate({"remove": ["face"]})
    assert apart([SECOND], picture(), recipe) == ([], None)
    assert apart([FACE], picture(), recipe) == ([FACE], None)


def test_a_second_view_of_what_is_found_closes_nothing() -> None:
    """A doubtful box about a slanted find, and one beside it: only the latter may not be copied."""
    recipe = Recipe.model_validate({"remove": ["face"]})
    again = Region("face", "test", 0.2, (2, 2, 70, 70), doubtful=True)
    found, forbidden = apart([FACE, again, SECOND], picture(), recipe)
    assert found == [FACE]
    assert forbidden is not None
    assert np.array_equal(rle.from_rle(forbidden, 100, 100), rle.from_box(SECOND.box, 100, 100))
