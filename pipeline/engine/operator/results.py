"""What became of an image, for people and for other engines: its row in words, arrays and columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image as Pil

from cleanplate.models.types import Image, Mask, Region
from cleanplate.pipeline import schema
from cleanplate.pipeline.engine.operator.held_images import Done
from cleanplate.pipeline.images import encode, rle
from cleanplate.pipeline.schema import StoredRow
from cleanplate.pipeline.schema.rows import RegionRow
from cleanplate.pipeline.stages.rows import region_of

_ASIDE = ("image_id", "source_uri", "source_version", "source_bytes", "status", "image", "regions", "error")
PROVENANCE = tuple(
    n for n in schema.part_schema().names if n not in (*_ASIDE, "attempt", "run_id", "timings_ms")
)
"""The columns of a part that tell where a picture comes from and what was done to it."""


@dataclass(frozen=True)
class Cleaned:
    """What became of one image.

    image: HWC uint8 RGB, upright, as large as the source; None where it failed or was skipped. Of pixels it is, outside
    `mask`, the source bit for bit; of a file it is what the output file decodes to.
    mask: HW bool, True = a pixel that was allowed to change. In a JPEG an edit carries whole blocks along.
    regions: what was found and removed, each with its own HW bool mask, boxes in xyxy pixels.
    residual: what a second look still found in the result; empty = not found again.
    status: as in the column of that name: unchanged, cleaned, hidden, residual, skipped or failed.
    passes: fills: 1 and the repairs; 0 where nothing was found.
    reason: why it failed or was skipped, or what is still found; "" else.
    data: the encoded output of a file; None where pixels came in.
    provenance: the other columns of its row (docs/columns.md).
    """

    image: Image | None
    mask: Mask
    regions: Sequence[Region]
    residual: Sequence[Region]
    status: str
    passes: int
    reason: str = ""
    data: bytes | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def left(self) -> str:
        """What is left, in words; "" when nothing is."""
        return still_found(self.passes, (region.kind for region in self.residual))

    def save(self, path: str | PathLike[str]) -> None:
        """Write the output file, or pixels in the format of the path's ending. Raises ValueError without a picture."""
        if self.image is None:
            raise ValueError(f"there is no picture to save: {self.reason}")
        if self.data is not None:
            Path(path).write_bytes(self.data)
        else:
            Pil.fromarray(self.image).save(path)


def cleaned_of(done: Done) -> Cleaned:
    """The same for people: arrays instead of run lengths."""
    row, image = done.row, done.pixels
    if done.data is not None:
        image = encode.decode(done.data).pixels
    height, width = row["height"] or 0, row["width"] or 0
    whole = rle.from_rle(row["mask_rle"], height, width) if row["mask_rle"] else None
    left: list[RegionRow] = [struct | {"rle": None} for struct in row["residual"] or []]
    return Cleaned(
        image,
        np.zeros((height, width), np.bool_) if whole is None else whole,
        [region_of(struct, height, width) for struct in row["regions"] or []],
        [region_of(struct, height, width) for struct in left],
        row["status"],
        row["passes"] or 0,
        why_of(row),
        done.data,
        provenance_of(row),
    )


def provenance_of(row: StoredRow) -> dict[str, Any]:
    """PROVENANCE of a row. Lists and structs are never None: engines that guess a batch's types from its values could
    not join it with another batch."""
    return {name: _there(row[name], schema.COLUMNS[name].type) for name in PROVENANCE}


def _there(value: Any, kind: pa.DataType) -> Any:
    if value is not None:
        return value
    return (
        [] if pa.types.is_list(kind) else {f.name: None for f in kind} if pa.types.is_struct(kind) else None
    )


def why_of(row: StoredRow) -> str:
    """Why a row is not as it should be, in words; "" where it is."""
    if row["error"]:
        return f"{row['error']['stage']}/{row['error']['kind']}: {row['error']['message']}"
    return still_found(row["passes"], (region["kind"] for region in row["residual"] or []))


def still_found(passes: int, kinds: Iterable[str]) -> str:
    """What is left after so many passes, in words; "" when nothing is."""
    words = ", ".join(sorted(set(kinds)))
    return f"after {passes} passes still found: {words}" if words else ""
