"""Rows as the stages see them: pixels, regions, masks and patches behind the Arrow columns."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cleanplate.models.devices import progressed
from cleanplate.models.types import Image, Mask, Region
from cleanplate.pipeline.images import encode, rle
from cleanplate.pipeline.schema.rows import Patch, RegionRow, Row

KEPT_PIXELS = 64_000_000
KEPT_PICTURES = 1024


class _Kept(OrderedDict[str, encode.Decoded]):
    """Decoded sources of this process, by content hash: stages that share a worker decode each source once. The
    oldest go first. Their pixels are counted as they come and go: a sum over a thousand for each new one took longer
    than decoding it."""

    pixels = 0

    def keep(self, key: str, found: encode.Decoded) -> None:
        self[key] = found
        self.pixels += found.width * found.height
        while len(self) > 1 and (self.pixels > KEPT_PIXELS or len(self) > KEPT_PICTURES):
            _, gone = self.popitem(last=False)
            self.pixels -= gone.width * gone.height

    def forget(self) -> None:
        self.clear()
        self.pixels = 0


_decoded = _Kept()


def decoded(row: Row) -> encode.Decoded:
    """The row's source, decoded: HWC uint8 RGB, upright; kept for the next stage. Raises images.ImageError."""
    key = row["source_sha256"]
    if key in _decoded:
        _decoded.move_to_end(key)
        return _decoded[key]
    found = decode(row)
    _decoded.keep(key, found)
    return found


def decode(row: Row) -> encode.Decoded:
    """As `decoded`, and not kept."""
    # Its size has been held against the recipe's limit by `read`.
    found = encode.decode(row["source"], max_pixels=row["width"] * row["height"])
    progressed()
    if (found.height, found.width) != (row["height"], row["width"]):
        raise encode.ImageError(
            "corrupt", f"decodes to {found.width} x {found.height}, its header says otherwise"
        )
    return found


def pixels_of(row: Row) -> Image:
    """The row's source as HWC uint8 RGB, upright, read-only: as the decode stage left it in the row, else decoded now.
    Raises images.ImageError."""
    raw = row.get("pixels")
    if raw is None:
        return decoded(row).pixels
    pixels = np.frombuffer(raw, np.uint8).reshape(row["height"], row["width"], 3)
    pixels.flags.writeable = False
    return pixels


def rows_of(table: pa.Table, names: Sequence[str]) -> list[Row]:
    """These columns as rows; with `pixels`, as views and not copies, where the table has that column."""
    rows: list[Row] = table.select(list(names)).to_pylist()
    if "pixels" in table.schema.names:
        for row, pixels in zip(rows, views(table["pixels"]), strict=True):
            row["pixels"] = pixels
    return rows


def without_pixels(table: pa.Table, keep: Sequence[bool] | None = None) -> pa.Table:
    """The table without the pixels that no later stage looks at: all, or those of rows that are False in `keep`."""
    at = table.schema.get_field_index("pixels")
    if at < 0:
        return table
    field, none = table.schema.field(at), pa.nulls(table.num_rows, pa.large_binary())
    left = none if keep is None else pc.if_else(pa.array(keep), table["pixels"], none)
    return table.set_column(at, field, left)


def forget() -> None:
    """Let go of every decoded source: for whoever runs out of memory."""
    _decoded.forget()


def asked_for(row: Row, mark: str) -> bool:
    """True when this attempt was planned because a review gave the row this mark: "redo" or "wrong"."""
    return row["review"] is not None and row["review"]["mark"] == mark


def region_struct(region: Region, mask: Mask | None) -> RegionRow:
    """A region as the `regions` column keeps it. mask: HW bool, upright, or None."""
    return {
        "kind": region.kind,
        "detector": region.detector,
        "score": region.score,
        "box": [float(v) for v in region.box],
        "area_px": None if mask is None else int(np.count_nonzero(mask)),
        "rle": None if mask is None else rle.to_rle(mask),
    }


def region_of(struct: RegionRow, height: int, width: int) -> Region:
    """The region behind a struct of `found` or `regions`."""
    x0, y0, x1, y1 = struct["box"]
    mask = rle.from_rle(struct["rle"], height, width) if struct["rle"] else None
    return Region(struct["kind"], struct["detector"], struct["score"], (x0, y0, x1, y1), mask)


def cut_patches(edited: Image, mask: Mask) -> list[Patch]:
    """The pixels under `mask` as schema.PATCH: the boxes round its connected parts, raw. No codec: a GPU worker has
    better things to do.

    edited: HWC uint8 RGB; mask: HW bool of the same size. Boxes may overlap; they hold the same pixels there.
    """
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    boxes = [(x, y, x + w, y + h) for x, y, w, h, _ in stats[1:].tolist()]
    return [
        {"x": x0, "y": y0, "width": x1 - x0, "height": y1 - y0, "rgb": edited[y0:y1, x0:x1].tobytes()}
        for x0, y0, x1, y1 in _merged(boxes)
    ]


def paste_patches(image: Image, patches: Sequence[Patch]) -> Image:
    """A copy of `image` (HWC uint8 RGB) with the patches laid on."""
    out = image.copy()
    for patch in patches:
        height, width = patch["height"], patch["width"]
        at = np.s_[patch["y"] : patch["y"] + height, patch["x"] : patch["x"] + width]
        out[at] = np.frombuffer(patch["rgb"], np.uint8).reshape(height, width, 3)
    return out


def _merged(boxes: list[tuple[int, int, int, int]]) -> list[tuple[int, int, int, int]]:
    """Boxes, those that overlap (or whose union costs no more pixels than both) joined; at most one for more
    than 256 specks, where a patch each would cost more than the pixels between them."""
    if len(boxes) > 256:
        arr = np.array(boxes)
        x0, y0 = arr[:, :2].min(axis=0).tolist()
        x1, y1 = arr[:, 2:].max(axis=0).tolist()
        return [(x0, y0, x1, y1)]
    merged: list[tuple[int, int, int, int]] = []
    for box in boxes:
        current = box
        while (near := next((b for b in merged if _cheaper_together(b, current)), None)) is not None:
            merged.remove(near)
            current = _around(near, current)
        merged.append(current)
    return merged


def _around(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    return min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])


def _cheaper_together(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> bool:
    return _area(_around(a, b)) <= _area(a) + _area(b)


def _area(box: tuple[int, int, int, int]) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])


def views(column: pa.ChunkedArray) -> list[pa.Buffer | None]:
    """The values of a large_binary column as buffers that share its memory; a scalar would be a copy."""
    found: list[pa.Buffer | None] = []
    for chunk in filter(len, column.chunks):
        _, ends, data = chunk.buffers()
        at = np.frombuffer(ends, np.int64)[chunk.offset : chunk.offset + len(chunk) + 1].tolist()
        there = chunk.is_valid().to_pylist()
        found += [data.slice(a, b - a) if ok else None for a, b, ok in zip(at, at[1:], there, strict=False)]
    return found
