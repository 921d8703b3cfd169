"""Kinds whose finders carry something to the workers (files, models, a collection's mark): Ray does as one process."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image as Pil

from cleanplate.pipeline.recipe.recipe import load
from rigs.finders_rig import badge, laid
from rigs.flow_rig import check_complete, clean, comparable, rows_of
from rigs.marked import blended, crops, drawn
from rigs.scenes import DEMO_PHOTOS

KINDS = ("watermark", "logo", "given", "person", "static-watermark")


def collection(folder: Path) -> dict[str, bytes]:
    """Eight crops under one mark; a photograph with a badge, one with a person, one broken."""
    folder.mkdir()
    coffee, astronaut = (
        Pil.open(DEMO_PHOTOS / f"{name}.jpg").convert("RGB") for name in ("coffee", "astronaut")
    )
    alpha, colour = drawn("text", 0.9)
    pictures = {f"crop{n}": blended(picture, alpha, colour) for n, picture in enumerate(crops(8))}
    pictures["badge"] = laid(np.asarray(coffee.resize((300, 225))), 180, 90, 90, 0, 0.8)[0]
    pictures["person"] = np.asarray(astronaut.resize((256, 256)))
    for name, pixels in pictures.items():
        Pil.fromarray(pixels).save(folder / f"{name}.png", compress_level=1)
    (folder / "broken.png").write_bytes(b"no picture")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_every_kind_makes_the_same_rows_on_ray(tmp_path: Path, ray_local: None) -> None:
    files = collection(tmp_path / "in")
    badge().save(tmp_path / "brand.png")
    (tmp_path / "boxes.json").write_text(json.dumps([{"image": "person.png", "box": [10, 10, 60, 40]}]))
    recipe = load(
        None,
        {
            "remove": list(KINDS),
            "logos": {
                "references": [str(tmp_path / "brand.png")],
                "rotation": 0,
                "smallest": 0.25,
                "largest": 0.4,
            },
            "given.file": str(tmp_path / "boxes.json"),
            "consensus": {"min_images": 8, "sample": 16},
            "inpaint.name": "telea",
            "masks.max_coverage": 0.9,
            "verify.scope": "none",
            "units.rows": 6,
            "engine.workers": 2,
        },
    )
    source = str(tmp_path / "in")
    for engine in ("here", "ray"):
        clean(source, str(tmp_path / engine), recipe, engine)
        check_complete(source, str(tmp_path / engine), files)
    here, ray = (comparable(rows_of(str(tmp_path / engine))) for engine in ("here", "ray"))
    assert here == ray
    fields = {Path(row["source_uri"]).stem: row for row in ray}
    assert fields["broken"]["status"] == "failed"
    found = {region["kind"] for row in ray for region in row["regions"] or []}
    assert found == set(KINDS), "each kind found something to compare"
