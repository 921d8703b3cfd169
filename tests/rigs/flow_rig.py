"""Small real runs for the tests of the flow: demo photographs in a folder or a bucket, cleaned of faces.

Faces only, because CenterFace costs a tenth of what reading text does; the flow is the same.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cleanplate.pipeline.engine import run as runs
from cleanplate.pipeline.images import encode, rle
from cleanplate.pipeline.ledger import ledger, plan
from cleanplate.pipeline.ledger.receipt import Receipt
from cleanplate.pipeline.recipe.recipe import Recipe, load
from cleanplate.pipeline.storage.connect import Store, open_store, read_uri
from rigs.scenes import photos

FACES: dict[str, Any] = {
    "remove": ["face"],
    "inpaint.name": "telea",
    "verify.passes": 1,
    "engine.workers": 2,
    "units.rows": 8,
}


def faces(**overrides: Any) -> Recipe:
    """Faces, removed by what fills everything else (without it they would be hidden)."""
    asked = FACES | overrides
    return load(
        None,
        asked if "inpaint.per_kind" in asked else asked | {"inpaint.per_kind.face": asked["inpaint.name"]},
    )


def put_photos(source: str, n: int, seed: int = 0) -> dict[str, bytes]:
    """n photographs below the source; key -> bytes."""
    store = open_store(source)
    files = dict(photos(n, seed))
    for key, data in files.items():
        store.put(key, data)
    return files


def clean(
    source: str, output: str, recipe: Recipe, engine: runs.Engine = "here", **planning: Any
) -> list[Receipt]:
    run = runs.start(source, output, recipe)
    units = runs.plan_new(run, **planning)
    receipts: list[Receipt] = []
    runs.execute(run, units, engine, receipts.append)
    return receipts


def rows_of(output: str | Store) -> list[dict[str, Any]]:
    store = open_store(output) if isinstance(output, str) else output
    return [row for table in ledger.rows(store) for row in table.to_pylist()]


def check_complete(source: str, output: str, files: dict[str, bytes]) -> list[dict[str, Any]]:
    """Every object of the source is in exactly one committed row, and every row tells the truth about itself."""
    store = open_store(source)
    rows = rows_of(output)
    assert Counter(row["source_uri"] for row in rows) == Counter({store.uri(key): 1 for key in files})
    by_uri = {store.uri(key): data for key, data in files.items()}
    for row in rows:
        assert row["image_id"] == plan.image_id(row["source_uri"], row["source_version"])
        if row["source_sha256"]:
            assert row["source_sha256"] == hashlib.sha256(by_uri[row["source_uri"]]).hexdigest()
        if row["image"]:
            check_image(row)
    return rows


def check_image(row: dict[str, Any]) -> None:
    """The output opens, hashes as said, is as large as said, and differs from the source under the mask only."""
    data = row["image"]["bytes"]
    assert row["output_sha256"] == hashlib.sha256(data).hexdigest()
    after = encode.decode(data)
    assert (after.height, after.width, after.format) == (row["height"], row["width"], row["output_format"])
    before = encode.decode(read_uri(row["source_uri"])).pixels
    mask = np.zeros(before.shape[:2], bool)
    if row["mask_rle"]:
        mask = rle.from_rle(row["mask_rle"], row["height"], row["width"])
        assert np.isclose(mask.mean(), row["mask_coverage"], atol=1e-6)
        assert (after.pixels[mask] != before[mask]).any(), "cleaned, but nothing inside the mask changed"
        assert row["output_sha256"] != row["source_sha256"]
    if row["output_format"] != "jpeg":
        assert np.array_equal(after.pixels[~mask], before[~mask])
    assert row["untouched"]["pixels_equal"] is not False
    assert row["untouched"]["jpeg_blocks_equal"] is not False


def comparable(rows: list[dict[str, Any]]) -> pa.Table:
    """Rows without what differs between two starts, in one order."""
    items = [{k: v for k, v in row.items() if k not in ("run_id", "timings_ms")} for row in rows]
    return sorted(items, key=lambda row: str(row["image_id"]))


def folder(path: Path) -> str:
    path.mkdir(parents=True, exist_ok=True)
    return str(path)
