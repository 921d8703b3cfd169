"""`Cleaner` over every form of a batch in this process: one bad row among good ones, other columns as they were."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image as Pil

from cleanplate import Cleaner
from cleanplate.pipeline.errors import ConfigError
from cleanplate.pipeline.images import encode, rle

RECIPE = {"remove": ["face"], "verify.passes": 0}
STATUSES = ["hidden", "failed", "unchanged"]
PHOTO = Path("jobs/demo_photos/astronaut.jpg")


def jpeg(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Pil.fromarray(pixels).save(out, "JPEG", quality=92)
    return out.getvalue()


@pytest.fixture(scope="module")
def cleaner() -> Cleaner:
    return Cleaner(RECIPE)


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    """A face, HWC uint8 RGB of 256 x 256."""
    return np.asarray(Pil.open(PHOTO).convert("RGB").crop((96, 0, 352, 256)))


@pytest.fixture(scope="module")
def files(pixels: np.ndarray) -> list[bytes]:
    """A face, no picture, and a picture without a face."""
    return [jpeg(pixels), b"no picture", jpeg(np.full((64, 80, 3), 128, np.uint8))]


def check_files(files: list[bytes], out: dict[str, list[Any]]) -> None:
    assert list(out["status"]) == STATUSES
    assert [bool(reason) for reason in out["reason"]] == [False, True, False]
    assert out["reason"][1].startswith("read/not_an_image: ")
    assert [len(regions) for regions in out["regions"]] == [1, 0, 0]
    face, none, plain = out["cleaned"]
    assert none is None
    assert plain == files[2]
    row, region = out["provenance"][0], out["regions"][0][0]
    assert (region["kind"], region["by"]) == ("face", "pixelate")
    assert row["recipe_digest"] == out["provenance"][1]["recipe_digest"] != ""
    before, after = encode.decode(files[0]).pixels, encode.decode(face).pixels
    edited = rle.from_rle(row["edited_rle"], row["height"], row["width"])
    assert np.array_equal(before[~edited], after[~edited])
    assert (before[edited] != after[edited]).any()


def test_a_dict_of_lists_with_a_bad_row(cleaner: Cleaner, files: list[bytes]) -> None:
    batch = {"image": files, "caption": ["a", "b", "c"], "n": [1, 2, 3]}
    out = cleaner(batch)
    assert list(batch) == ["image", "caption", "n"], "the caller's batch is not written to"
    assert list(out) == ["image", "caption", "n", "cleaned", "status", "reason", "regions", "provenance"]
    assert out["image"] is files
    assert out["caption"] == ["a", "b", "c"]
    check_files(files, out)


def test_pandas_and_pyarrow_give_the_same_in_their_own_form(cleaner: Cleaner, files: list[bytes]) -> None:
    frame = pd.DataFrame({"image": files, "n": [1, 2, 3]}, index=[7, 8, 9])
    out = cleaner(frame)
    assert list(out.index) == [7, 8, 9]
    check_files(files, {name: list(out[name]) for name in out})

    table = pa.table({"image": pa.chunked_array([files[:1], files[1:]]), "n": [1, 2, 3]})
    arrow = cleaner(table)
    assert arrow.schema.field("cleaned").type == pa.binary()
    check_files(files, {name: arrow[name].to_pylist() for name in arrow.column_names})
    assert cleaner(table.slice(2)).schema == arrow.schema, "types do not hang on what is in a batch"
    assert cleaner(table.slice(0, 0)).schema == arrow.schema


def test_structs_keep_their_path(cleaner: Cleaner, files: list[bytes], tmp_path: Path) -> None:
    (tmp_path / "there.jpg").write_bytes(files[0])
    structs = [
        {"bytes": files[0], "path": "a/face.jpg"},
        {"bytes": None, "path": None},
        {"bytes": None, "path": str(tmp_path / "there.jpg")},
        None,
    ]
    table = pa.table({"photo": structs})
    out = Cleaner(RECIPE, column="photo", prefix="x_")(table)
    assert out["x_cleaned"].type == table["photo"].type
    first, second, third, fourth = out["x_cleaned"].to_pylist()
    assert first["path"] == "a/face.jpg"
    assert third == {"bytes": first["bytes"], "path": str(tmp_path / "there.jpg")}
    assert second is fourth is None
    assert out["x_status"].to_pylist() == ["hidden", "failed", "hidden", "failed"]
    assert out["x_reason"].to_pylist()[3] == "read/empty: there is no image in the row"


def test_paths_are_read_and_a_missing_one_is_a_row(
    cleaner: Cleaner, files: list[bytes], tmp_path: Path
) -> None:
    (tmp_path / "ä #1.jpg").write_bytes(files[0])
    out = cleaner({"image": [str(tmp_path / "ä #1.jpg"), str(tmp_path / "gone.jpg")]})
    assert out["status"] == ["hidden", "failed"]
    assert out["reason"][1].startswith("read/missing: ")
    assert out["cleaned"][0].startswith(b"\xff\xd8")


def test_arrays_stacked_and_of_several_sizes(cleaner: Cleaner, pixels: np.ndarray) -> None:
    plain = np.full_like(pixels, 128)
    out = cleaner({"image": np.stack([pixels, plain]), "n": np.arange(2)})
    assert out["cleaned"].shape == (2, 256, 256, 3)
    assert list(out["status"]) == ["hidden", "unchanged"]
    row = out["provenance"][0]
    mask = rle.from_rle(row["mask_rle"], 256, 256)
    assert np.array_equal(out["cleaned"][0][~mask], pixels[~mask])
    assert (out["cleaned"][0][mask] != pixels[mask]).any()
    assert row["untouched"] == {"pixels_equal": True, "jpeg_blocks_equal": None}
    assert np.array_equal(out["cleaned"][1], plain)

    mixed = np.empty(4, object)
    for n, one in enumerate([pixels, plain[:40, :50], plain[..., 0], plain.astype(np.float32)]):
        mixed[n] = one
    ragged = cleaner({"image": mixed})
    assert list(ragged["status"]) == ["hidden", "unchanged", "failed", "failed"]
    assert [one.shape for one in ragged["cleaned"]] == [(256, 256, 3), (40, 50, 3), (0, 0, 3), (0, 0, 3)]
    assert "HWC uint8 RGB" in ragged["reason"][2]


def test_native_tensors_of_arrow_stay_such(cleaner: Cleaner, pixels: np.ndarray) -> None:
    cells = pa.FixedShapeTensorArray.from_numpy_ndarray(np.stack([pixels, np.full_like(pixels, 9)]))
    out = cleaner(pa.table({"image": cells}))
    assert out["cleaned"].type == cells.type
    assert out["status"].to_pylist() == ["hidden", "unchanged"]


def test_pil_images_come_back_as_such(cleaner: Cleaner, pixels: np.ndarray) -> None:
    faint = Pil.fromarray(pixels).convert("RGBA")
    broken = Pil.open(io.BytesIO(jpeg(pixels)[:3000]))
    out = cleaner({"image": [faint, broken]})
    assert (out["cleaned"][0].mode, out["cleaned"][0].size) == ("RGBA", (256, 256))
    assert out["status"] == ["hidden", "failed"]
    assert out["cleaned"][1] is None


def test_limits_of_the_recipe_hold_for_arrays_and_files(pixels: np.ndarray) -> None:
    small = Cleaner({**RECIPE, "limits.max_pixels": 1000})
    for image in (pixels, jpeg(pixels)):
        assert small({"image": [image]})["reason"][0].startswith("read/too_large: ")
    skips = Cleaner({**RECIPE, "masks.max_coverage": 0.0001, "inpaint.per_kind": {"face": "telea"}})
    out = skips({"image": [jpeg(pixels)]})
    assert (out["status"], out["cleaned"]) == (["skipped"], [None])
    keeps = Cleaner(
        {
            **RECIPE,
            "masks.max_coverage": 0.0001,
            "inpaint.per_kind": {"face": "telea"},
            "output.keep_skipped": True,
        }
    )
    assert np.array_equal(keeps({"image": [pixels]})["cleaned"][0], pixels)


def test_what_is_wrong_with_the_call_is_said_before_any_work(cleaner: Cleaner, files: list[bytes]) -> None:
    with pytest.raises(ConfigError, match="no column 'image' in the batch, which has bytes, n"):
        cleaner({"bytes": files, "n": [1, 2, 3]})
    with pytest.raises(ConfigError, match="already: give a prefix"):
        cleaner({"image": files, "status": [1, 2, 3]})
    with pytest.raises(ConfigError, match="did you mean 'face'"):
        Cleaner({"remove": ["faec"]})
    with pytest.raises(ConfigError, match="only `cleanplate run`"):
        Cleaner({"remove": ["static-watermark"]})


def test_it_travels_as_its_arguments(cleaner: Cleaner, files: list[bytes]) -> None:
    packed = pickle.dumps(Cleaner(RECIPE, column="bytes", prefix="p_"))
    assert len(packed) < 1000
    out = pickle.loads(packed)({"bytes": files[2:]})  # noqa: S301 - packed above
    assert out["p_status"] == ["unchanged"]


def test_datasets_map_takes_it(cleaner: Cleaner, files: list[bytes]) -> None:
    datasets = pytest.importorskip("datasets")
    table = datasets.Dataset.from_dict({"image": files, "caption": ["a", "b", "c"]})
    out = table.map(cleaner, batched=True, batch_size=2)
    check_files(files, out.to_dict())
    assert out["caption"] == ["a", "b", "c"]
