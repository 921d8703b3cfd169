"""A row between stages, as Python: what `to_pylist` gives of its columns, and a stage gives back.

Names are those of `schema.COLUMNS` (a test compares them). Stages see healthy rows alone: a column that only a failed
row lacks is not None here. A key is absent where the table has no such column yet."""

from __future__ import annotations

from typing import Any, TypedDict


class RegionRow(TypedDict, total=False):
    """schema.REGION. box: xyxy pixels, upright. rle: COCO's compressed run lengths of height x width; null in `found`
    where the detector knows a box only. filler: no column; verification's choice for a repair, see `inpaint`."""

    kind: str
    detector: str
    score: float
    box: list[float]
    area_px: int | None
    rle: str | None
    by: str | None
    left: float | None
    filler: str | None


class ReviewRow(TypedDict):
    """schema.REVIEW. grow: a share of a box's shorter side."""

    mark: str
    grow: float
    attempt: int
    source_sha256: str


class ErrorRow(TypedDict):
    """schema.ERROR. kind: a word of docs/recipe.md's table of causes."""

    stage: str
    kind: str
    message: str


class Patch(TypedDict):
    """schema.PATCH: height x width x RGB, raw, at x, y of the upright image."""

    x: int
    y: int
    width: int
    height: int
    rgb: bytes


class UntouchedRow(TypedDict):
    pixels_equal: bool | None
    jpeg_blocks_equal: bool | None


class ImageRow(TypedDict):
    bytes: bytes | None
    path: str | None


class WeightsRow(TypedDict):
    name: str
    sha256: str


class Row(TypedDict, total=False):
    """One image. The meaning of each column stands in `schema.COLUMNS`."""

    image_id: str
    source_uri: str
    source_version: str
    source_bytes: int
    source_sha256: str
    source_format: str
    width: int
    height: int
    status: str | None
    image: ImageRow | None
    output_format: str | None
    output_sha256: str | None
    regions: list[RegionRow]
    hidden: list[str]
    mask_rle: str | None
    mask_coverage: float | None
    edited_rle: str | None
    detectors: list[str]
    segmenter: str | None
    inpainter: str | None
    weights: list[WeightsRow]
    passes: int
    residual: list[RegionRow]
    verifiers: list[str]
    untouched: UntouchedRow | None
    metadata_dropped: list[str]
    note: str | None
    recipe_digest: str
    code_version: str
    run_id: str
    attempt: int
    timings_ms: dict[str, float | None]
    error: ErrorRow | None
    review: ReviewRow | None
    source: bytes
    found: list[RegionRow]
    pixels: Any
    """A buffer of height x width x RGB where a stage of its own decoded it."""
    forbidden: str | None
    patches: list[Patch]
