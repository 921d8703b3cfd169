"""Rows as pictures: the stories that `cleanplate inspect` and the contact sheet show.

"Before" is read from the source again and checked against the row's hash: what the pipeline held in memory
may have been edited in place, and a picture that shows the edit as the original would hide the worst bugs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pyarrow as pa

from cleanplate.models.types import Image
from cleanplate.pipeline import schema
from cleanplate.pipeline.engine.job import stages_of
from cleanplate.pipeline.errors import RowError, StorageError
from cleanplate.pipeline.images import encode, rle
from cleanplate.pipeline.ledger import ledger, plan
from cleanplate.pipeline.ledger.layouts import with_bytes
from cleanplate.pipeline.recipe import provenance
from cleanplate.pipeline.recipe.recipe import Recipe
from cleanplate.pipeline.stages.rows import region_of
from cleanplate.pipeline.stages.stage import Worker
from cleanplate.pipeline.stages.write import Stamp, finish
from cleanplate.pipeline.storage.connect import Object, Store
from cleanplate.pipeline.storage.containers import read_image
from cleanplate.pipeline.ui.contact_sheet import SheetRow

COLUMNS = [
    "image_id",
    "source_uri",
    "source_sha256",
    "width",
    "height",
    "status",
    "image",
    "regions",
    "mask_rle",
    "error",
]


def run_on_images(uris: list[tuple[str, Object]], recipe: Recipe, weights: dict[str, str]) -> pa.Table:
    """The rows of a few images, through every stage, in this process; nothing is stored.

    uris: (absolute uri, its listing). weights: digests from `check`. Returns a table as schema.part_schema().
    """
    return pa.concat_tables(one_by_one(uris, recipe, weights))


def one_by_one(uris: list[tuple[str, Object]], recipe: Recipe, weights: dict[str, str]) -> Iterator[pa.Table]:
    """As run_on_images: a table of one row for each image, as soon as it is done."""
    worker = Worker(stages_of(recipe, last=True))
    stamp = Stamp(
        recipe.digest(weights),
        provenance.code_version(),
        "inspect",
        tuple(weights.items()),
        recipe.output.keep_skipped,
    )
    for row in (plan.Planned(uri, item) for uri, item in uris):
        start = {
            "image_id": row.image_id,
            "source_uri": row.uri,
            "source_version": row.object.version,
            "source_bytes": row.object.size,
            "attempt": 1,
        }
        yield finish(worker(pa.Table.from_pylist([start], schema=schema.START)), stamp)


def story(row: dict[str, Any]) -> SheetRow:
    """One committed row (COLUMNS) as a line of a sheet. A source that is gone or changed has no "before"."""
    before = _source_pixels(row)
    data = (row["image"] or {}).get("bytes")  # None too where another layout has it: `layouts.with_bytes`
    after = encode.decode(data).pixels if data is not None else None
    height, width = row["height"] or 0, row["width"] or 0
    mask = rle.from_rle(row["mask_rle"], height, width) if row["mask_rle"] else None
    # The overlay shows the whole mask at once; each region is only a labelled box.
    regions = [replace(region_of(r | {"rle": None}, height, width)) for r in row["regions"] or []]
    title = row["source_uri"].rpartition("/")[2]
    if row["error"]:
        title += f": {row['error']['kind']}, {row['error']['message']}"
    return SheetRow(before, mask, after, title, row["status"], regions)


def stories(output: Store, at_most: int) -> Iterator[SheetRow]:
    """The committed rows by name, at most so many."""
    rows = [row for table in ledger.rows(output, COLUMNS) for row in table.to_pylist()]
    for row in sorted(rows, key=lambda r: r["source_uri"])[:at_most]:
        yield story(with_bytes(output, row))


def _source_pixels(row: dict[str, Any]) -> Image | None:
    try:
        data = read_image(row["source_uri"])
        if hashlib.sha256(data).hexdigest() != row["source_sha256"]:
            return None
        return encode.decode(data).pixels
    except (StorageError, RowError):
        return None  # The row's own status says why; the sheet draws an empty frame.
