"""`Cleaner` in a Ray Data pipeline, between other operators, in each of its batch formats."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pil

from cleanplate import Cleaner

RECIPE = {"remove": ["face"], "verify.passes": 0}
PHOTO = Path("jobs/demo_photos/astronaut.jpg")


def face() -> np.ndarray:
    return np.asarray(Pil.open(PHOTO).convert("RGB").crop((96, 0, 352, 256)))


def jpeg(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Pil.fromarray(pixels).save(out, "JPEG", quality=92)
    return out.getvalue()


def rows() -> list[dict[str, Any]]:
    """Three faces and one of each bad kind, so that a block has only good, only bad or mixed rows."""
    plain = jpeg(np.full((64, 80, 3), 128, np.uint8))
    images = [jpeg(face()), plain, b"no picture", None, jpeg(face()), b"", plain, jpeg(face())]
    return [
        {"id": n, "image": image, "caption": f"caption {n} é", "tags": ["a"] * n}
        for n, image in enumerate(images)
    ]


WANT = ["hidden", "unchanged", "failed", "failed", "hidden", "failed", "unchanged", "hidden"]


def doubled(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"double": row["id"] * 2}


def first_box(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"faces": len(row["regions"]), "digest": row["provenance"]["recipe_digest"]}


@pytest.mark.parametrize("form", ["numpy", "pandas", "pyarrow"])
def test_between_other_operators(ray_local: None, form: str, tmp_path: Path) -> None:
    import ray

    cleaned = (
        ray.data.from_items(rows(), override_num_blocks=4)
        .map(doubled)
        .map_batches(
            Cleaner,
            fn_constructor_kwargs={"recipe": RECIPE},
            batch_size=2,
            concurrency=1,
            num_cpus=1,
            batch_format=form,
        )
        .map(first_box)
    )
    out = sorted(cleaned.take_all(), key=lambda row: row["id"])
    assert [row["status"] for row in out] == WANT
    for row, before in zip(out, rows(), strict=True):
        assert {name: row[name] for name in ("id", "image", "caption")} == {
            name: before[name] for name in ("id", "image", "caption")
        }
        assert list(row["tags"]) == before["tags"]
        assert row["double"] == 2 * row["id"]
        assert (row["cleaned"] is None) == (row["status"] == "failed") == bool(row["reason"])
        assert row["faces"] == (row["status"] == "hidden")
    assert len({row["digest"] for row in out}) == 1
    if form == "numpy":
        cleaned.drop_columns(["tags"]).repartition(1).write_parquet(str(tmp_path))
        assert ray.data.read_parquet(str(tmp_path)).count() == len(WANT)


def tensors(which: str) -> tuple[list[np.ndarray], list[str]]:
    """HWC arrays, and what becomes of them."""
    pixels = face()
    return {
        "stacked": ([pixels, np.full_like(pixels, 9)], ["hidden", "unchanged"]),
        "ragged": (
            [pixels, pixels[:, :200], np.full((40, 50, 3), 7, np.uint8)],
            ["hidden", "hidden", "unchanged"],
        ),
        "failed": ([np.zeros((8, 8, 3), np.float32)] * 2, ["failed", "failed"]),
    }[which]


@pytest.mark.parametrize(
    ("form", "which"),
    [
        ("numpy", "stacked"),
        ("pyarrow", "stacked"),
        ("pandas", "ragged"),
        ("pyarrow", "ragged"),
        ("numpy", "failed"),
    ],
)
def test_tensors_of_one_size_and_of_several(ray_local: None, form: str, which: str) -> None:
    import ray

    images, statuses = tensors(which)
    done = (
        ray.data.from_items([{"image": one} for one in images], override_num_blocks=1)
        .map_batches(
            Cleaner,
            fn_constructor_kwargs={"recipe": RECIPE},
            batch_size=2,
            concurrency=1,
            num_cpus=1,
            batch_format=form,
        )
        .map_batches(lambda batch: batch, batch_size=8)
        .take_all()
    )
    assert [row["status"] for row in done] == statuses
    for row, image in zip(done, images, strict=True):
        if row["status"] == "failed":
            assert row["cleaned"].size == 0
        else:
            assert row["cleaned"].shape == image.shape
            assert np.array_equal(row["cleaned"], image) == (row["status"] == "unchanged")


def test_a_wrong_recipe_ends_the_pipeline_and_says_why(ray_local: None) -> None:
    import ray

    source = ray.data.from_items([{"image": b""}])
    wrong = source.map_batches(
        Cleaner, fn_constructor_kwargs={"recipe": {"remove": ["faec"]}}, concurrency=1, num_cpus=1
    )
    with pytest.raises(Exception, match="did you mean 'face'"):
        wrong.take_all()
