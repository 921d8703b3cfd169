"""write: encode the output image, measure that nothing else changed, and make the rows of the part."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import unquote

import pyarrow as pa

from cleanplate.models.devices import progressed
from cleanplate.models.types import Image, Mask
from cleanplate.pipeline import schema
from cleanplate.pipeline.errors import ContractError, RowError
from cleanplate.pipeline.images import encode, rle
from cleanplate.pipeline.images.c2pa_manifest import Sign, signer
from cleanplate.pipeline.images.formats.table import FORMATS
from cleanplate.pipeline.recipe.provenance import code_version
from cleanplate.pipeline.recipe.recipe import Output
from cleanplate.pipeline.schema.rows import ReviewRow, Row
from cleanplate.pipeline.stages.rows import decoded, paste_patches
from cleanplate.pipeline.stages.stage import Needs, Work
from cleanplate.pipeline.storage.address import inner_of, key_of

_ADDS = schema.columns(
    *("image", "output_format", "output_sha256", "edited_rle", "untouched", "metadata_dropped", "note")
)
_READS = ["source_uri", "source", "source_sha256", "width", "height", "mask_rle", "patches"]


@dataclass(frozen=True)
class Write:
    output: Output
    needs: Needs = Needs(cpus=0.5, batch=16, workers=(0, 0))
    name: str = "write"
    adds: pa.Schema = _ADDS

    def open(self) -> Work:
        sign = None
        if self.output.c2pa_cert and self.output.c2pa_key:
            sign = signer(self.output.c2pa_cert, self.output.c2pa_key, code_version())

        def write(table: pa.Table) -> pa.Table:
            encoded = [_encode(row, self.output, sign) for row in table.select(_READS).to_pylist()]
            return schema.with_rows(table, _ADDS, encoded)

        return write


def _encode(row: Row, output: Output, sign: Sign | None) -> Row:
    """The write stage's columns of one row."""
    picture = decoded(row)
    edited: Image | None = None
    mask: Mask | None = None
    if row["mask_rle"]:
        mask = rle.from_rle(row["mask_rle"], row["height"], row["width"])
        edited = paste_patches(picture.pixels, row["patches"])
    done = encode.encode(
        row["source"],
        picture,
        edited,
        mask,
        format=output.format,
        quality=output.quality,
        metadata=output.metadata,
        orientation=output.orientation,
        mark_edited=output.mark != "none",
        sign=sign,
    )
    if mask is not None and mask.any() and not done.inside_changed:
        raise RowError("edit_lost", "what was to be removed is as it was: no pixel inside the mask changed")
    progressed()
    digest = hashlib.sha256(done.data).hexdigest()
    if mask is not None and mask.any() and digest == row["source_sha256"]:
        # The failure that this field knows best: the edit is made in memory and the original is written.
        raise ContractError(f"{row['source_uri']}: masked, but the output is the source's very bytes")
    return {
        "image": {"bytes": done.data, "path": path_of(row["source_uri"], done.format)},
        "output_format": done.format,
        "output_sha256": digest,
        "edited_rle": None if done.edited is None else rle.to_rle(done.edited),
        "untouched": {"pixels_equal": done.pixels_equal, "jpeg_blocks_equal": done.jpeg_blocks_equal},
        "metadata_dropped": done.metadata_dropped,
        "note": done.note,
    }


def path_of(uri: str, image_format: str) -> str:
    """A file name for the output: the source's, with the suffix that its content has now."""
    name = PurePosixPath(key_of(uri, "") if inner_of(uri) else unquote(uri, errors="replace")).name
    suffixes = FORMATS[image_format].suffixes
    same = PurePosixPath(name).suffix.lower().lstrip(".") in suffixes
    return name if same else f"{PurePosixPath(name).stem}.{suffixes[0]}"


@dataclass(frozen=True)
class Stamp:
    """What all rows of a run have in common."""

    recipe_digest: str
    code_version: str
    run_id: str
    weights: tuple[tuple[str, str], ...]
    keep_skipped: bool
    carried: tuple[str, ...] = ()
    """Columns of the source that go through."""


def finish(table: pa.Table, stamp: Stamp) -> pa.Table:
    """The rows as a part keeps them: failed and skipped ones settled, the run stamped on each, columns in
    flight gone."""
    rows = table.select(
        [n for n in table.schema.names if n not in ("found", "patches", "pixels", *stamp.carried)]
    ).to_pylist()
    for row in rows:
        row |= {
            "recipe_digest": stamp.recipe_digest,
            "code_version": stamp.code_version,
            "run_id": stamp.run_id,
            "weights": [{"name": name, "sha256": sha256} for name, sha256 in stamp.weights],
        }
        if row.get("review"):
            row["note"] = "; ".join(filter(None, (_reviewed(row["review"]), row.get("note"))))
        if row["error"]:
            _settle(row, stamp.keep_skipped)
    columns = {f.name: pa.array([row.get(f.name) for row in rows], type=f.type) for f in schema.part_schema()}
    carried = pa.schema([table.schema.field(name) for name in stamp.carried])
    return pa.table(
        [*columns.values(), *(table[n] for n in carried.names)], schema=schema.part_schema(carried=carried)
    )


def _reviewed(review: ReviewRow) -> str:
    """What a review asked for, for the note of the row."""
    if review["mark"] == "wrong":
        return (
            f"a review called what attempt {review['attempt']} removed a false find: the source is restored"
        )
    return f"a review asked to redo attempt {review['attempt']}: masks {review['grow']:.0%} wider"


def _settle(row: Row, keep_skipped: bool) -> None:
    """A row with an error: failed, or skipped by a limit. Neither carries a picture that was not cleaned,
    unless the recipe says to keep what was skipped."""
    row["status"] = "skipped" if row.get("status") == "skipped" else "failed"
    row["image"] = row["output_format"] = row["output_sha256"] = row["edited_rle"] = None
    if row["status"] == "skipped" and keep_skipped:
        row["image"] = {"bytes": row["source"], "path": path_of(row["source_uri"], row["source_format"])}
        row |= {"output_format": row["source_format"], "output_sha256": row["source_sha256"]}
