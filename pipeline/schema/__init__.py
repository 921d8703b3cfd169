"""Every Arrow column, once: its type, its unit, its meaning. Parts, the plan and the flow use no other.

Boxes are xyxy pixels in the upright image (EXIF orientation applied). Masks are COCO compressed RLE of
height x width: `pycocotools.mask.decode({"size": [height, width], "counts": rle})`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from cleanplate.pipeline.schema.rows import Row as Row

VERSION = "part/2"
"""Of a part's columns. part/1 had no edited_rle and no verifiers."""
VERSIONS = ("part/1", VERSION)
"""What is read. A column that a part has not is null in its rows."""
StoredRow = dict[str, Any]
"""A row of a part, with any of its columns, as `to_pylist` gives it."""
STATUSES = ("unchanged", "cleaned", "hidden", "residual", "skipped", "failed")
STAGES = ("read", "detect", "segment", "inpaint", "verify", "write")
MODEL_STAGES = STAGES[1:5]


def _field(name: str, kind: pa.DataType, doc: str) -> pa.Field:
    return pa.field(name, kind, metadata={"doc": doc})


BOX = pa.list_(pa.float32(), 4)
REGION = pa.struct(
    [
        pa.field("kind", pa.string()),
        pa.field("detector", pa.string()),
        pa.field("score", pa.float32()),
        pa.field("box", BOX),
        pa.field("area_px", pa.int64()),
        pa.field("rle", pa.string()),
        pa.field("by", pa.string()),
        pa.field("left", pa.float32()),
    ]
)
RESIDUAL = pa.struct([f for f in REGION if f.name in ("kind", "detector", "score", "box")])
ERROR = pa.struct(
    [pa.field("stage", pa.string()), pa.field("kind", pa.string()), pa.field("message", pa.string())]
)
REVIEW = pa.struct(
    [
        pa.field("mark", pa.string()),
        pa.field("grow", pa.float32()),
        pa.field("attempt", pa.int32()),
        pa.field("source_sha256", pa.string()),
    ]
)
WEIGHTS = pa.struct([pa.field("name", pa.string()), pa.field("sha256", pa.string())])
PATCH = pa.struct(
    [
        *(pa.field(name, pa.int32()) for name in ("x", "y", "width", "height")),
        pa.field("rgb", pa.large_binary()),
    ]
)
IMAGE = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])
UNTOUCHED = pa.struct([pa.field("pixels_equal", pa.bool_()), pa.field("jpeg_blocks_equal", pa.bool_())])
TIMINGS = pa.struct([pa.field(name, pa.float32()) for name in STAGES])

COLUMNS: dict[str, pa.Field] = {
    f.name: f
    for f in (
        _field("image_id", pa.string(), "sha256 of source_uri and source_version, hex: the row's identity"),
        _field(
            "source_uri",
            pa.string(),
            "where the image was read: s3://..., file://... (percent-quoted), or inside a container (docs/formats.md)",
        ),
        _field(
            "source_version", pa.string(), "ETag, or size-mtime_ns of a local file, as listed by the plan"
        ),
        _field("source_bytes", pa.int64(), "size of the source object in bytes, as listed by the plan"),
        _field("source_sha256", pa.string(), "sha256 of the source's bytes, hex"),
        _field("source_format", pa.string(), "what the bytes are (jpeg, png, ...), decided by content"),
        _field("width", pa.int32(), "pixels, upright"),
        _field("height", pa.int32(), "pixels, upright"),
        _field(
            "status",
            pa.string(),
            "unchanged | cleaned | hidden (some of what was found is only hidden, see `hidden`) | residual | skipped | "
            "failed",
        ),
        _field(
            "image",
            IMAGE,
            "the output image, encoded, or (layouts files, webdataset) path, where it lies below the output; "
            "null when failed or skipped",
        ),
        _field("output_format", pa.string(), "format of image.bytes"),
        _field("output_sha256", pa.string(), "sha256 of image.bytes, hex"),
        _field(
            "regions",
            pa.list_(REGION),
            "what was found and removed, each with its mask. by: what cleaned it. left: how strongly the result still "
            "shows a mark of the collection, 1 = as before, 0 = gone",
        ),
        _field(
            "hidden",
            pa.list_(pa.string()),
            "what hides (pixelate, blur, stylise, fill), where something was hidden and not removed: regions.by says "
            "which; empty = nothing",
        ),
        _field("mask_rle", pa.string(), "every pixel that was to be removed (all regions, grown by repairs)"),
        _field("mask_coverage", pa.float32(), "share of the picture under mask_rle, 0..1"),
        _field(
            "edited_rle",
            pa.string(),
            "every pixel that may differ from the source: mask_rle; in a JPEG also the blocks that it touches, and one "
            "pixel round them where colours are subsampled; all of a picture encoded anew with loss; null = none",
        ),
        _field("detectors", pa.list_(pa.string()), "the detectors that looked, found or not"),
        _field("segmenter", pa.string(), "what turned regions into masks"),
        _field("inpainter", pa.string(), "what filled the masks; null when nothing was filled"),
        _field("weights", pa.list_(WEIGHTS), "every model file the row's stages loaded"),
        _field("passes", pa.int32(), "inpainting passes: 1 + repairs; 0 when nothing was found"),
        _field(
            "residual", pa.list_(RESIDUAL), "what the verifying detectors still found after the last pass"
        ),
        _field(
            "verifiers",
            pa.list_(pa.string()),
            "the detectors that looked at the last result, each near the edits that it is owed (docs/detectors.md)",
        ),
        _field(
            "untouched",
            UNTOUCHED,
            "measured on the decoded output: pixels outside edited_rle, JPEG blocks that mask_rle does not touch; "
            "null where not applicable",
        ),
        _field("metadata_dropped", pa.list_(pa.string()), "metadata removed from the file"),
        _field("note", pa.string(), "a fallback that was taken, or what a review asked for, in words"),
        _field("recipe_digest", pa.string(), "sha256 of the resolved recipe and weights: the run's identity"),
        _field("code_version", pa.string(), "version (and git commit when known) of cleanplate"),
        _field("run_id", pa.string(), "which start of the command committed the row"),
        _field(
            "attempt",
            pa.int32(),
            "1, or more for rows planned again by --retry-failed or --review; readers take the newest",
        ),
        _field("timings_ms", TIMINGS, "milliseconds per stage, a batch's time shared evenly by its rows"),
        _field("error", ERROR, "why a row failed or was skipped: stage, kind, message"),
        # In the plan and in flight between stages only; never in a part.
        _field(
            "review",
            REVIEW,
            "what a person asked for: redo with masks wider by `grow` of a box's shorter side, or wrong; the "
            "attempt and source_sha256 that were looked at; null = no review",
        ),
        _field("source", pa.large_binary(), "the source's bytes"),
        _field(
            "found", pa.list_(REGION), "regions before segmentation; rle only where a detector knows pixels"
        ),
        _field(
            "pixels",
            pa.large_binary(),
            "the source's pixels where a stage of its own decoded them: height x width x RGB, upright; null = decode",
        ),
        _field(
            "forbidden",
            pa.string(),
            "what no fill may copy though it is not edited: finds that the recipe's limits or a detector's own "
            "dropped (run lengths, upright)",
        ),
        _field("patches", pa.list_(PATCH), "changed pixels, boxes of height x width x RGB at x, y, upright"),
    )
}


def columns(*names: str) -> pa.Schema:
    """The schema of the named columns, in this order. KeyError for a name that COLUMNS does not have."""
    return pa.schema([COLUMNS[name] for name in names])


IN_FLIGHT = ("review", "source", "pixels", "found", "forbidden", "patches")
PLAN = columns("image_id", "source_uri", "source_version", "source_bytes", "attempt")
"""What the plan knows of a row and its part repeats."""
PLANNED = columns(*PLAN.names, "review")
"""A row of the plan."""
START = columns(*PLANNED.names, "error", "timings_ms")
"""What a unit's table holds when the first stage sees it."""


def version_of(part: pa.Schema) -> str:
    """Which of VERSIONS wrote a part."""
    held: dict[bytes, bytes] = part.metadata or {}
    return held.get(b"cleanplate", b"part/1").decode(errors="replace")


def as_now(part: pa.Table) -> pa.Table | None:
    """A part of any version with the columns of this one, what it had not as null; None where it has other columns.

    A part of this version must have its columns to the letter. An earlier one may lack columns, and fields in structs.
    """
    want = part_schema(carried=carried_of(part.schema))
    if version_of(part.schema) == VERSION or version_of(part.schema) not in VERSIONS:
        return part if part.schema.equals(want) else None
    if not set(part.schema.names) <= set(want.names):
        return None
    held = [part[f.name] if f.name in part.schema.names else pa.nulls(part.num_rows, f.type) for f in want]
    try:
        cast = [column.cast(field.type) for column, field in zip(held, want, strict=True)]
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
        return None
    return pa.table(cast, schema=want)


def carried_of(part: pa.Schema) -> pa.Schema:
    """The columns of a part that were carried from its source."""
    names = json.loads((part.metadata or {}).get(b"cleanplate.carried", b"[]"))
    return pa.schema([part.field(name) for name in names])


def part_schema(pictures: bool = True, carried: pa.Schema | None = None) -> pa.Schema:
    """The schema of a part, with the metadata that lets `datasets` show the image column as pictures, where it
    holds them (pictures; other layouts keep them outside the parts). carried: columns of the source, behind ours."""
    carried = carried or pa.schema([])
    fields = [*(field for name, field in COLUMNS.items() if name not in IN_FLIGHT), *carried]
    features: dict[str, Any] = {f.name: _feature(f.type) for f in fields}
    if pictures:
        features["image"] = {"_type": "Image"}
    info = {"info": {"features": features}}
    metadata = {"huggingface": json.dumps(info), "cleanplate": VERSION}
    if len(carried):
        metadata["cleanplate.carried"] = json.dumps(carried.names)
    return pa.schema(fields, metadata=metadata)


def _feature(kind: pa.DataType) -> Any:
    """An Arrow type as Hugging Face `datasets` spells it."""
    if pa.types.is_struct(kind):
        return {field.name: _feature(field.type) for field in kind}
    if pa.types.is_fixed_size_list(kind):
        return {"feature": _feature(kind.value_type), "length": kind.list_size, "_type": "List"}
    if pa.types.is_large_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "LargeList"}
    if pa.types.is_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "List"}
    names = {pa.float32(): "float32", pa.bool_(): "bool", pa.int32(): "int32", pa.int64(): "int64"}
    return {"dtype": names.get(kind, str(kind)), "_type": "Value"}


def with_columns(table: pa.Table, schema: pa.Schema, values: Mapping[str, Sequence[Any]]) -> pa.Table:
    """`table` with the columns of `schema` appended, or replaced where it has them already.

    values: one Python sequence per column of `schema`, as long as the table.
    """
    for field in schema:
        array = pa.array(values[field.name], type=field.type)
        at = table.schema.get_field_index(field.name)
        table = table.append_column(field, array) if at < 0 else table.set_column(at, field, array)
    return table


def with_rows(table: pa.Table, schema: pa.Schema, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """As `with_columns`. rows: one a row of the table, with a key for each column of `schema`."""
    return with_columns(table, schema, {name: [row[name] for row in rows] for name in schema.names})


def merged(schema: pa.Schema, adds: pa.Schema) -> pa.Schema:
    """The schema after a stage that adds (or replaces) `adds`."""
    for field in adds:
        at = schema.get_field_index(field.name)
        schema = schema.append(field) if at < 0 else schema.set(at, field)
    return schema
