"""The API of notebooks: arrays and PIL images in, the same out; whole folders without `jobs`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pil

import cleanplate
from cleanplate import (
    Cleaned,
    Recipe,
    Region,
    clean,
    clean_many,
    examine,
    find,
    load_recipe,
    mask_of,
    read,
    run_here,
)
from cleanplate.pipeline.errors import ConfigError, RowError
from rigs.flow_rig import FACES, folder, put_photos

PHOTO = Path("jobs/demo_photos/astronaut.jpg")
RECIPE = {key: value for key, value in FACES.items() if not key.startswith(("engine", "units"))}
FILLED = {**RECIPE, "inpaint.per_kind": {"face": "lama-lite"}}


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return np.asarray(Pil.open(PHOTO).convert("RGB"))


def test_find_tells_the_face_and_where_it_is(photo: np.ndarray) -> None:
    (face, *_) = find(photo, RECIPE)
    assert (face.kind, face.detector) == ("face", "centerface")
    x0, y0, x1, y1 = face.box
    assert x0 < 226 < x1
    assert y0 < 132 < y1
    assert find(np.full((64, 64, 3), 128, np.uint8), RECIPE) == []


def test_clean_finds_and_fills_and_leaves_the_rest_bit_for_bit(photo: np.ndarray) -> None:
    before = photo.copy()
    done = examine(photo, RECIPE)
    assert done.status == "hidden", "faces are hidden unless a filler is named for them"
    assert examine(photo, FILLED).status == "cleaned"
    assert done.residual == []
    assert done.mask[132, 226]
    assert (done.image[132, 226] != photo[132, 226]).any()
    assert np.array_equal(done.image[~done.mask], photo[~done.mask])
    assert np.array_equal(clean(photo, recipe=RECIPE), done.image)
    assert np.array_equal(photo, before), "the caller's array is not written to"


def test_regions_can_be_chosen_drawn_and_filled(photo: np.ndarray) -> None:
    regions = find(photo, RECIPE)
    mask = mask_of(photo, regions, RECIPE)
    assert mask.dtype == np.bool_
    assert mask[132, 226]
    assert not mask_of(photo, [], RECIPE).any()
    cleaned = clean(photo, mask, RECIPE)
    assert np.array_equal(cleaned[~mask], photo[~mask])
    assert (cleaned[mask] != photo[mask]).any()


@pytest.mark.parametrize("form", ["bool", "ones", "full", "L", "1"])
def test_every_form_of_a_mask_means_the_same(photo: np.ndarray, form: str) -> None:
    mask = np.zeros(photo.shape[:2], bool)
    mask[10:40, 20:60] = True
    full = Pil.fromarray(mask.astype(np.uint8) * 255)
    given = {
        "bool": mask,
        "ones": mask.astype(np.uint8),
        "full": mask.astype(np.uint8) * 255,
        "L": full,
        "1": full.convert("1"),
    }[form]
    cleaned = clean(photo, given, {"inpaint.name": "fill"})
    assert not cleaned[mask].any()
    assert np.array_equal(cleaned[~mask], photo[~mask])


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_a_pil_image_comes_back_as_one_of_its_mode(mode: str) -> None:
    image = Pil.open(PHOTO).convert(mode)
    if mode == "RGBA":
        image.putalpha(77)
    mask = Pil.new("L", image.size)
    mask.paste(255, (10, 10, 50, 50))
    cleaned = clean(image, mask, {"inpaint.name": "telea"})
    assert (cleaned.mode, cleaned.size) == (image.mode, image.size)
    outside = np.asarray(mask) == 0
    assert np.array_equal(np.asarray(cleaned)[outside], np.asarray(image)[outside])


def test_a_photograph_that_lies_on_its_side_is_turned_upright() -> None:
    upright = Pil.open(PHOTO).convert("RGB").crop((0, 0, 512, 400))
    lying = upright.transpose(Pil.Transpose.ROTATE_90)
    lying.getexif()[0x0112] = 6  # "turn by 90 degrees clockwise to see it"
    assert any(r.box[0] < 226 < r.box[2] and r.box[1] < 132 < r.box[3] for r in find(lying, RECIPE))
    assert clean(lying, recipe=RECIPE).size == (512, 400)


def test_what_is_no_image_or_mask_is_a_value_error_that_says_what_is_one(photo: np.ndarray) -> None:
    for wrong in (photo[..., 0], photo.astype(np.float32), np.zeros((0, 4, 3), np.uint8), "photo.jpg"):
        with pytest.raises(ValueError, match="HWC uint8 RGB"):
            find(wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="mask is"):
        clean(photo, np.zeros((3, 3), bool))
    with pytest.raises(ValueError, match="HW bool"):
        clean(photo, np.zeros(photo.shape[:2], np.float32))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="did you mean 'face'"):
        find(photo, {"remove": ["faec"]})


def test_a_mask_above_the_recipes_limit_is_raised_not_swallowed(photo: np.ndarray) -> None:
    with pytest.raises(RowError, match=r"masks\.max_coverage") as caught:
        clean(photo, recipe={**FILLED, "masks.max_coverage": 0.001})
    assert caught.value.kind == "max_coverage"


def test_what_is_still_found_is_said() -> None:
    nothing = np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), bool), ()
    left = Region("face", "centerface@960", 0.7, (0.0, 0.0, 2.0, 2.0))
    assert Cleaned(*nothing, (left, left), "residual", 3).left() == "after 3 passes still found: face"
    assert Cleaned(*nothing, (), "cleaned", 1).left() == ""


def test_a_file_is_cleaned_with_what_its_row_says(photo: np.ndarray, tmp_path: Path) -> None:
    done = clean(PHOTO, recipe=RECIPE)
    assert (done.status, done.reason) == ("hidden", "")
    assert [region.kind for region in done.regions] == ["face"], "none that its mosaic made"
    assert done.image is not None
    assert done.image.shape == photo.shape
    assert done.provenance["source_format"] == "jpeg"
    done.save(tmp_path / "out.jpg")
    assert (tmp_path / "out.jpg").read_bytes() == done.data
    with pytest.raises(RowError, match="no such file"):
        clean(tmp_path / "gone.jpg", recipe=RECIPE)
    with pytest.raises(ValueError, match="open it"):
        clean(str(PHOTO), np.ones((4, 4), bool), RECIPE)  # type: ignore[call-overload]


def test_many_come_back_in_order_with_the_bad_ones_among_them(photo: np.ndarray, tmp_path: Path) -> None:
    plain = np.full((64, 80, 3), 128, np.uint8)
    images = [plain, PHOTO, tmp_path / "gone.jpg", Pil.fromarray(plain), b"no picture", str(PHOTO), photo]
    taken: list[int] = []

    def lazily() -> Iterator[object]:
        for n, image in enumerate(images):
            taken.append(n)
            yield image

    results = clean_many(lazily(), RECIPE, batch=3)  # type: ignore[arg-type]
    assert taken == []
    first = next(results)
    assert taken == [0, 1, 2], "a batch at a time"
    done = [first, *results]
    assert [one.status for one in done] == [
        "unchanged",
        "hidden",
        "failed",
        "unchanged",
        "failed",
        "hidden",
        "hidden",
    ]
    assert [one.image is None for one in done] == [bool(one.reason) for one in done]
    assert done[1].data == done[5].data == clean(PHOTO, recipe=RECIPE).data
    assert np.array_equal(done[6].image, examine(photo, RECIPE).image)
    with pytest.raises(ValueError, match="no picture to save: read/missing"):
        done[2].save(tmp_path / "x.jpg")
    assert list(clean_many([], RECIPE)) == []


def test_many_say_what_is_wrong_before_the_first_is_taken() -> None:
    with pytest.raises(ConfigError, match="use run_here"):
        clean_many("photos/")
    with pytest.raises(ConfigError, match="did you mean 'face'"):
        clean_many([], {"remove": ["faec"]})
    with pytest.raises(ConfigError, match="batch must be"):
        clean_many([], RECIPE, batch=0)


def test_a_folder_is_cleaned_without_jobs_and_read_as_a_table(tmp_path: Path) -> None:
    source, output = folder(tmp_path / "in"), str(tmp_path / "out")
    files = put_photos(source, 3)
    (tmp_path / "in" / "broken.jpg").write_bytes(b"no picture")
    recipe = load_recipe(None, FACES)
    assert isinstance(recipe, Recipe)
    tally = run_here(source, Path(output), recipe, progress=False)
    assert tally.rows == len(files) + 1
    assert tally.statuses["failed"] == 1
    assert run_here(source, output, recipe, progress=False).rows == tally.rows, "the same call resumes"
    rows = read(output, ["status", "source_uri"])
    assert rows.column_names == ["status", "source_uri"]
    assert rows.num_rows == 4
    with pytest.raises(ConfigError, match="holds no run"):
        read(tmp_path / "in")


def test_the_package_names_what_it_has() -> None:
    assert set(cleanplate.__all__) <= set(dir(cleanplate))
    for name in cleanplate.__all__:
        assert getattr(cleanplate, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'cleann'"):
        cleanplate.cleann  # noqa: B018


def test_the_api_needs_no_jobs_package(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom cleanplate import Recipe, clean, find, run_here\nassert 'jobs' not in sys.modules"
    )
    subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:cleanplate", "-c", code], check=True, timeout=240
    )
