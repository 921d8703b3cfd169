"""Kinds whose finders carry something to the workers (files, models, a collection's mark): Ray does as one process."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from finders_rig import badge, laid
from flow_rig import check_complete, clean, comparable, rows_of
from marked import blended, crops, drawn
from PIL import Image as Pil
from scenes import DEMO_PHOTOS

from pipeline.recipe import load

KINDS = ("watermark", "logo", "given", "person", "static-watermark")


def collection(folder: Path) -> dict[str, bytes]:
    """Ten crops under one mark; photographs with a badge, with people, with a word laid over; a broken one."""
    folder.mkdir()
    photo = {
        name: Pil.open(DEMO_PHOTOS / f"{name}.jpg").convert("RGB") for name in ("coffee", "friends", "fig")
    }
    small = {name: np.asarray(image.resize((360, 270))) for name, image in photo.items()}
    alpha, colour = drawn("text", 0.9)
    pictures = {f"crop{n}": blended(picture, alpha, colour) for n, picture in enumerate(crops(10))}
    pictures["badge"] = laid(small["coffee"], 200, 120, 90, 8, 0.8)[0]
    pictures["people"] = small["friends"]
    word = small["fig"].copy()
    stroke, _ = drawn("text", 1.0)
    part = word[: stroke.shape[0], : stroke.shape[1]]
    part[stroke > 0.5] = 255
    pictures["word"] = word
    for name, pixels in pictures.items():
        Pil.fromarray(pixels).save(folder / f"{name}.png", compress_level=1)
    (folder / "broken.png").write_bytes(b"no picture")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_every_kind_makes_the_same_rows_on_ray(tmp_path: Path, ray_local: None) -> None:
    files = collection(tmp_path / "in")
    badge().save(tmp_path / "brand.png")
    (tmp_path / "boxes.json").write_text(json.dumps([{"image": "people.png", "box": [10, 10, 60, 40]}]))
    recipe = load(
        None,
        {
            "remove": list(KINDS),
            "logos": {"references": [str(tmp_path / "brand.png")], "rotation": 10},
            "given.file": str(tmp_path / "boxes.json"),
            "consensus": {"min_images": 8, "sample": 16},
            "inpaint.name": "telea",
            "verify.passes": 1,
            "units.rows": 7,
            "engine.workers": 2,
        },
    )
    source = str(tmp_path / "in")
    for engine in ("here", "ray"):
        clean(source, str(tmp_path / engine), recipe, engine)
        check_complete(source, str(tmp_path / engine), files)
    here, ray = (comparable(rows_of(str(tmp_path / engine))) for engine in ("here", "ray"))
    assert here == ray
    told = {Path(row["source_uri"]).stem: row for row in ray}
    assert told["broken"]["status"] == "failed"
    found = {region["kind"] for row in ray for region in row["regions"] or []}
    assert found >= {"logo", "given", "person", "static-watermark"}, found
    assert "watermark" in found
