"""The limits of the rule that tells overlay from scene, fitted to made-up evidence."""

from __future__ import annotations

import numpy as np
import pytest

from cleanplate.models.detectors.overlay.candidates import Candidate
from cleanplate.models.training.marks.overlay_rule import Study, fit, measured

SHAPE = (40, 50)


def study(name, level, evidence, *, marked=False, side=4):
    """A picture with one candidate, `side` pixels wide and high."""
    mask = np.ones((side, side), np.bool_)
    fields = {"sign": evidence, "area": float(np.log10(mask.size / (SHAPE[0] * SHAPE[1])))}
    one = Candidate((5, 5, 5 + side, 5 + side), mask, None, np.zeros_like(mask), False, fields)
    visible = np.zeros(SHAPE, np.bool_)
    if marked:
        visible[5 : 5 + side, 5 : 5 + side] = True
    packed = np.packbits(visible)
    return Study(name, level, SHAPE, (one,), (float(marked),), packed, packed)


@pytest.fixture
def pictures():
    """Marks and photographs whose evidence overlaps, each photograph of another name."""
    rng = np.random.default_rng(0)
    some = [study(f"m{n}", "semi", float(rng.normal(3, 1)), marked=True) for n in range(100)]
    some += [study(f"c{n}", "clean", float(rng.normal(0, 1))) for n in range(100)]
    return some + [study(f"t{n}", "trained", float(rng.normal(0, 1))) for n in range(100)]


def test_each_level_of_clean_pictures_keeps_its_limit(pictures):
    rule, result = fit(pictures, {"clean": 0.02, "trained": 0.02}, harmed=1.0)
    assert result["clean edited"] <= 0.02
    assert result["trained edited"] <= 0.02
    assert result["semi recall"] > 0.4
    strict, fewer = fit(pictures, {"clean": 0.02, "trained": 0.0}, harmed=1.0)
    assert fewer["trained edited"] == 0.0
    assert strict.first >= rule.first


def test_photographs_held_out_tell_more_than_those_that_the_network_knows(pictures):
    known = [one for one in pictures if one.level != "clean"]
    unlike = [study(f"h{n}", "clean", 4.0 if n % 10 == 0 else 0.0) for n in range(50)]
    easy, _ = fit(known, harmed=1.0)
    assert measured([(one, easy) for one in unlike])["clean edited"] == pytest.approx(0.1)
    _, result = fit(known + unlike, harmed=1.0)
    assert result["clean edited"] <= 0.02


def test_pictures_a_tenth_of_which_would_go_raise_the_limit(pictures):
    walls = [study(f"w{n}", "clean", 2.2, side=14) for n in range(2)]
    loose, result = fit(pictures + walls, {"clean": 0.05}, harmed=1.0)
    assert result["pixels"] > 0.001
    tight, fewer = fit(pictures + walls, {"clean": 0.05}, harmed=0.001)
    assert fewer["pixels"] <= 0.001
    assert tight.first > loose.first
    assert 0 < fewer["semi recall"] < result["semi recall"]


def test_a_limit_that_cannot_be_kept_ends_the_search(pictures):
    rule, result = fit(pictures[::10], {"clean": 0.05}, harmed=-1.0)
    assert rule.first > 0.999
    assert result["pixels"] == 0
