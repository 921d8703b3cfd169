"""A huge picture is searched in a smaller copy: regions come back in its own frame, and the row says so."""

from __future__ import annotations

import numpy as np
import pytest

from cleanplate.models.types import Region
from cleanplate.pipeline.recipe.recipe import load
from cleanplate.pipeline.stages.detect import enlarged, shrunk
from rigs.flow_rig import clean, faces, folder, rows_of
from rigs.scenes import DEMO_PHOTOS


def test_only_what_is_larger_is_shrunk() -> None:
    picture = np.zeros((1000, 2000, 3), np.uint8)
    assert shrunk(picture, 2_000_000) is picture
    small = shrunk(picture, 500_000)
    assert small.shape == (500, 1000, 3)
    assert shrunk(np.zeros((1, 60_000, 3), np.uint8), 10_000).shape[0] == 1


def test_a_region_comes_back_into_the_picture_s_frame() -> None:
    picture, view = np.zeros((1001, 2003, 3), np.uint8), np.zeros((500, 1001, 3), np.uint8)
    mask = np.zeros((500, 1001), np.bool_)
    mask[100:200, 300:400] = True
    region = enlarged(Region("face", "d", 0.9, (300, 100, 1001, 500), mask), view, picture)
    assert region.box[2:] == pytest.approx((2003, 1001))
    assert region.mask is not None
    assert region.mask.shape == (1001, 2003)
    rows, columns = np.nonzero(region.mask)
    assert (rows.min(), columns.min()) == pytest.approx((200, 600), abs=2)
    assert region.mask.mean() == pytest.approx(mask.mean(), rel=0.02)


def test_the_face_of_a_huge_picture_is_found_and_the_row_says_how(tmp_path) -> None:  # type: ignore[no-untyped-def]
    from PIL import Image as Pil

    source = folder(tmp_path / "in")
    photo = Pil.open(DEMO_PHOTOS / "astronaut.jpg").resize((1500, 1500))
    photo.save(tmp_path / "in" / "huge.jpg")
    clean(source, str(tmp_path / "out"), faces(**{"limits.detect_pixels": 1_000_000}))
    (row,) = rows_of(str(tmp_path / "out"))
    assert "searched at 1000x1000" in row["detectors"]
    x0, y0, x1, y1 = row["regions"][0]["box"]
    assert x0 < 226 * 1500 / 512 < x1
    assert y0 < 132 * 1500 / 512 < y1
    assert load(None).limits.detect_pixels == 50_000_000
