"""static-watermark through the whole flow: a pass over a sample, then every image without its mark."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flow_rig import check_complete, clean, comparable, rows_of
from marked import blended, crops, drawn
from PIL import Image as Pil

from pipeline import images
from pipeline.errors import ConfigError
from pipeline.recipe import load
from pipeline.storage import open_store

RECIPE: dict[str, Any] = {"remove": ["static-watermark"], "inpaint.name": "telea", "units.rows": 20}


def png(pixels: Any) -> bytes:
    buffer = io.BytesIO()
    Pil.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def collection(folder: Path) -> tuple[dict[str, bytes], list[Any]]:
    """40 marked pictures of one size, four without a mark, two of another size, one broken; and the pictures."""
    alpha, colour = drawn("text", 0.5)
    pictures = crops(44)
    files = {f"m/{n:02}.png": png(blended(p, alpha, colour)) for n, p in enumerate(pictures[:40])}
    files |= {f"plain/{n}.png": png(p) for n, p in enumerate(pictures[40:])}
    files |= {f"other/{n}.png": png(pictures[n][:100]) for n in range(2)}
    files["broken.png"] = b"no picture"
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return files, pictures


def test_the_mark_of_a_collection_is_taken_off(tmp_path: Path, ray_local: None) -> None:
    files, pictures = collection(tmp_path / "in")
    source, output = str(tmp_path / "in"), str(tmp_path / "out")
    recipe = load(None, RECIPE)
    clean(source, output, recipe)
    rows = check_complete(source, output, files)
    told = {row["source_uri"].rpartition("/in/")[2]: row for row in rows}
    statuses = [told[f"m/{n:02}.png"]["status"] for n in range(40)]
    assert statuses.count("cleaned") >= 38, statuses
    assert {told[f"plain/{n}.png"]["status"] for n in range(4)} == {"unchanged"}
    assert told["other/0.png"]["detectors"] == ["consensus: too few images alike"]
    assert told["broken.png"]["status"] == "failed"
    alpha, _ = drawn("text", 0.5)
    errors = []
    for n in range(40):
        row = told[f"m/{n:02}.png"]
        if row["inpainter"] == "take-off":
            after = images.decode(row["image"]["bytes"]).pixels.astype(np.float64)
            errors.append(((after - pictures[n])[alpha > 0.04] ** 2).mean())
    assert len(errors) >= 36
    assert 10 * np.log10(255**2 / np.mean(errors)) > 33
    store = open_store(output)
    index = json.loads(store.get("consensus/index.json"))
    assert index["240x160"]["marks"] == 1
    assert index["240x100"] == {"images": 2, "marks": 0, "sha256": None}
    pictured = [item.key for item in store.list("consensus") if item.key.endswith(".png")]
    assert len(pictured) == 1
    again = str(tmp_path / "ray")
    clean(source, again, recipe, "ray")
    assert comparable(rows_of(again)) == comparable(rows)


def test_one_image_alone_has_nothing_in_common(tmp_path: Path) -> None:
    from pipeline import kit
    from pipeline.graph import stages_of

    recipe = load(None, RECIPE)
    assert kit.weights_of(recipe) == ()
    with pytest.raises(ConfigError, match="whole collection"):
        stages_of(recipe)[1].open()
    with pytest.raises(ConfigError, match="min_images"):
        load(None, RECIPE | {"consensus.min_images": 100})
