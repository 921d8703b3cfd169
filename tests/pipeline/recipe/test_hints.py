"""A mistyped word gets the word that was meant."""

from __future__ import annotations

from typing import Any

import pytest

from cleanplate.models.weights.registry import WeightsError, find
from cleanplate.pipeline.errors import ConfigError
from cleanplate.pipeline.recipe.hints import did_you_mean, keys_at
from cleanplate.pipeline.recipe.recipe import Masks, Recipe, load


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"masks.grwo": 1}, "masks.grwo: no such key; did you mean 'grow'?"),
        ({"mask.grow": 1}, "mask: no such key; did you mean 'masks'?"),
        ({"detect.face.minscore": 0.1}, "did you mean 'min_score'?"),
        ({"remove": ["faec"]}, "did you mean 'face'?"),
        ({"masks.segmenter": "grabcat"}, "did you mean 'grabcut'?"),
        ({"qqqqq": 1}, "known keys: version, remove"),
        ({"masks.checkpoint": "x"}, "wrong recipe: masks.checkpoint goes with the segmenter sam"),
        ({"output.quality": 700}, "output.quality: Input should be less than or equal to 100 (got 700)"),
    ],
)
def test_a_wrong_recipe_says_what_to_write(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(None, overrides)
    assert message in str(caught.value)
    assert "Value error" not in str(caught.value)


def test_weights_that_are_nearly_named() -> None:
    with pytest.raises(WeightsError, match="did you mean 'big-lama'"):
        find("big-lmaa")
    with pytest.raises(WeightsError) as caught:
        find("zzzzzzz")
    assert "did you mean" not in str(caught.value)


def test_nothing_near_is_nothing_said() -> None:
    assert did_you_mean("zebra", ["face", "text"]) == ""
    assert keys_at(Recipe, ["masks"]) == list(Masks.model_fields)
    assert "min_score" in keys_at(Recipe, ["detect", "face"])
    assert keys_at(Recipe, ["remove", 0]) == []
