"""Where a find may be, and which areas are kept."""

from __future__ import annotations

import numpy as np
import pytest

from cleanplate.models.types import Region
from cleanplate.pipeline.errors import ConfigError
from cleanplate.pipeline.recipe import areas
from cleanplate.pipeline.recipe.recipe import load
from cleanplate.pipeline.stages.detect import allowed

PICTURE = np.zeros((100, 200, 3), np.uint8)


def region(x0: float, y0: float, x1: float, y1: float) -> Region:
    return Region("logo", "d", 0.9, (x0, y0, x1, y1))


def rule(**limits: object):  # type: ignore[no-untyped-def]
    return load(None, {"detect.logo": limits}).detect_for("logo")


def test_one_box_still_stands_alone() -> None:
    assert rule(where=[0, 0.8, 1, 1]) == rule(where=[[0, 0.8, 1, 1]])


@pytest.mark.parametrize(
    ("where", "inside", "outside"),
    [
        ([0, 0.8, 1, 1], (90, 85, 110, 95), (90, 60, 110, 90)),
        ([[0, 0, 0.1, 1], [0.9, 0, 1, 1]], (185, 40, 195, 60), (90, 40, 110, 60)),
        ("corners", (5, 5, 25, 15), (90, 5, 110, 15)),
        ("border", (90, 5, 110, 15), (90, 40, 110, 60)),
        ("border 0.05", (90, 0, 110, 8), (90, 5, 110, 15)),
        (["top", [0, 0.9, 1, 1]], (90, 92, 110, 98), (90, 50, 110, 60)),
    ],
)
def test_only_regions_whose_centre_is_there_count(where: object, inside: tuple, outside: tuple) -> None:  # type: ignore[type-arg]
    limits = rule(where=where)
    assert allowed(region(*inside), PICTURE, limits)
    assert not allowed(region(*outside), PICTURE, limits)


def test_regions_that_lie_mostly_in_a_kept_area_are_dropped() -> None:
    limits = rule(**{"except": [[0, 0, 0.5, 1]]})
    assert not allowed(region(60, 10, 110, 60), PICTURE, limits)
    assert allowed(region(90, 10, 140, 60), PICTURE, limits)
    # The pixels of the thing count, not its box: this one's are all on the other side.
    mask = np.zeros((100, 200), np.bool_)
    mask[20:30, 101:110] = True
    assert allowed(Region("logo", "d", 0.9, (60, 10, 110, 60), mask), PICTURE, limits)


def test_overlapping_areas_count_once() -> None:
    assert areas.share_inside(region(0, 0, 100, 100), (100, 200), ("border", (0, 0, 1, 0.2))) <= 1
    assert areas.share_inside(region(0, 0, 200, 100), (100, 200), ("left", "top")) == pytest.approx(0.36)


@pytest.mark.parametrize("where", ["middle", [0.5, 0, 0.2, 1], [[0, 0, 2, 1]], "border 2"])
def test_areas_that_are_none_are_refused(where: object) -> None:
    with pytest.raises(ConfigError, match="where"):
        rule(where=where)
