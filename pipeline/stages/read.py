"""read: fetch the source's bytes, hash them, and say what they are. Decides by content, never by name.

A row whose bytes are in the table already (`source`) is not fetched."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from cleanplate.pipeline import schema
from cleanplate.pipeline.errors import CleanplateError, RowError, StorageError
from cleanplate.pipeline.images.formats.base import ImageError
from cleanplate.pipeline.images.formats.table import header, orientation_of
from cleanplate.pipeline.recipe.recipe import Limits
from cleanplate.pipeline.stages.stage import Needs, Work, error_of
from cleanplate.pipeline.storage import columns
from cleanplate.pipeline.storage.containers import read_images
from cleanplate.pipeline.storage.parquet_file import Fetched
from cleanplate.pipeline.storage.web import Manners

_ADDS = schema.columns("source", "source_sha256", "source_format", "width", "height", "error")
_THREADS = 16


@dataclass(frozen=True)
class Read:
    """last: on the run's last pass a source that stays unreachable becomes a failed row; before that it
    raises, so that the unit stays uncommitted and a later pass takes it again."""

    limits: Limits
    last: bool = False
    carried: str | None = None
    """Columns of the source's tables and tars that go into the rows: `columns.packed`."""
    manners: Manners = Manners()
    """How hosts of the web are asked."""
    needs: Needs = Needs(cpus=0.5, batch=512, workers=(0, 0))
    name: str = "read"

    @property
    def adds(self) -> pa.Schema:
        return schema.merged(_ADDS, columns.unpacked(self.carried))

    def open(self) -> Work:
        return self._read

    def _read(self, table: pa.Table) -> pa.Table:
        planned = table.select(["source_uri", "source_version", "source_bytes", "review"]).to_pylist()
        held = table["source"].to_pylist() if "source" in table.schema.names else [None] * len(planned)
        absent = [row for row, data in zip(planned, held, strict=True) if data is None]
        small = [row for row in absent if row["source_bytes"] <= self.limits.max_bytes]
        uris, versions = ([row[name] for row in small] for name in ("source_uri", "source_version"))
        found = read_images(
            uris, versions=versions, most=self.limits.max_bytes, give_up=not self.last, manners=self.manners
        )
        fetched = dict(zip(zip(uris, versions, strict=True), found, strict=True))
        pairs = [
            (row, fetched.get((row["source_uri"], row["source_version"]), b"") if data is None else data)
            for row, data in zip(planned, held, strict=True)
        ]
        with ThreadPoolExecutor(_THREADS) as threads:
            read = list(threads.map(lambda pair: self._one(*pair), pairs))
        wanted = columns.unpacked(self.carried)
        if not len(wanted):
            return schema.with_columns(table, _ADDS, {n: [row[n] for row in read] for n in _ADDS.names})
        every, of = ([row[name] for row in planned] for name in ("source_uri", "source_version"))
        beside, failed = columns.read(every, of, wanted, most=self.limits.max_bytes, give_up=not self.last)
        for n, error in failed.items():
            if read[n]["error"] is None:
                read[n] = dict.fromkeys(_ADDS.names) | {"error": error_of(self.name, error)}
        done = schema.with_columns(table, _ADDS, {n: [row[n] for row in read] for n in _ADDS.names})
        for field in wanted:
            done = done.append_column(field, beside[field.name].combine_chunks())
        return done

    def _one(self, planned: dict[str, Any], data: Fetched) -> dict[str, Any]:
        row: dict[str, Any] = dict.fromkeys(_ADDS.names)
        try:
            if isinstance(data, CleanplateError):
                raise data
            size = max(planned["source_bytes"], len(data))  # Of a container's row the plan knows an average.
            if size > self.limits.max_bytes:
                raise RowError("too_large", f"{size} bytes; the limit is {self.limits.max_bytes}")
            row["source_sha256"] = hashlib.sha256(data).hexdigest()
            judged = (planned["review"] or {}).get("source_sha256")
            if judged and judged != row["source_sha256"]:
                raise RowError("changed", "the source is no longer the picture that was reviewed")
            row |= probe(data, self.limits.max_pixels)
            row["source"] = data
        except StorageError as error:
            if error.kind == "unreachable" and not self.last:
                raise
            row["error"] = error_of(self.name, error)
        except RowError as error:
            row["error"] = error_of(self.name, error)
        return row


def probe(data: bytes, max_pixels: int) -> dict[str, Any]:
    """source_format, and width and height as the picture stands upright, from the file's header alone.

    Raises ImageError for what is no image or declares more than max_pixels. That the rest of the file decodes
    shows when a detector needs its pixels.
    """
    head = header(data)
    if head.width * head.height > max_pixels:
        raise ImageError("too_large", f"{head.width} x {head.height} pixels, the limit is {max_pixels}")
    turned = orientation_of(data, head.format) >= 5
    width, height = (head.height, head.width) if turned else (head.width, head.height)
    return {"source_format": head.format, "width": width, "height": height}
