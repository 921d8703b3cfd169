"""A part as a file: Parquet that seals itself, so that a byte that changed anywhere shows."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cleanplate.pipeline import schema
from cleanplate.pipeline.errors import DamagedError
from cleanplate.pipeline.storage.connect import Store

MAKE_ANEW = "delete it and run the same command again: its rows are made anew"
FROM_A_COPY = "put a copy of it back, or clean into another output"
_BROKEN = (pa.ArrowException, OSError, ValueError, KeyError, IndexError, MemoryError)


@contextmanager
def reading(output: Store, key: str, remedy: str = MAKE_ANEW) -> Iterator[None]:
    """What a Parquet reader raises at a file of the output in this `with`, as a DamagedError that names the file and
    says what to do. Not so where a part's seal holds: then the file is right, and something else is wrong."""
    try:
        yield
    except _BROKEN as error:
        if seal_holds(output.get(key)):
            raise
        message = " ".join(str(error).split())[:160]
        raise DamagedError(
            f"{output.uri(key)} is damaged ({message or type(error).__name__}): {remedy}"
        ) from error


def opened(file: Any, **how: Any) -> pq.ParquetFile:
    """A part, open for reading. Raises ValueError where its columns are not those of its version: no checksum covers
    the footer, where one flipped bit renames a column."""
    part = pq.ParquetFile(file, page_checksum_verification=True, **how)
    there = part.schema_arrow
    if schema.version_of(there) == schema.VERSION and list(there) != list(
        schema.part_schema(carried=schema.carried_of(there))
    ):
        raise ValueError("its footer names other columns")
    return part


def part_bytes(table: pa.Table) -> bytes:
    """The table (schema.part_schema()) as a Parquet file, sealed: see `seal_holds`."""
    return joined_bytes(iter([table]))


def joined_bytes(tables: Iterator[pa.Table]) -> bytes:
    """As `part_bytes`, of which only a table at a time need be in memory beside the file."""
    rest = next(tables)
    sink = io.BytesIO()
    # Images are compressed already: zstd would spend time on them for nothing. The rest is small text.
    squeezed = [name for name in rest.schema.names if name != "image"]
    compression = dict.fromkeys(_leaves(rest.schema, squeezed), "zstd")
    compression |= dict.fromkeys(_leaves(rest.schema, ["image"]), "none")
    with pq.ParquetWriter(sink, rest.schema, compression=compression, **_WRITING) as writer:
        for table in tables:
            rest = pa.concat_tables([rest, table])
            if whole := rest.num_rows // _GROUP * _GROUP:
                writer.write_table(rest.slice(0, whole), row_group_size=_GROUP)
                rest = rest.slice(whole)
        if rest.num_rows:
            writer.write_table(rest, row_group_size=_GROUP)
        writer.add_key_value_metadata({_SEAL: _BLANK})
    return _sealed(sink.getvalue())


_WRITING: dict[str, Any] = {"write_page_index": True, "write_page_checksum": True}
_GROUP = 256
"""Rows of a row group: what a reader of a few pictures has to fetch."""


_SEAL, _BLANK = "cleanplate.sha256", "0" * 64


def _sealed(data: bytes) -> bytes:
    """The file with its own sha256 in its footer, taken while that place held zeros: Parquet's page checksums
    leave page headers, indexes and the footer without any."""
    at = data.rindex(_BLANK.encode())
    return data[:at] + hashlib.sha256(data).hexdigest().encode() + data[at + len(_BLANK) :]


def seal_holds(data: bytes, footer: pq.FileMetaData | None = None) -> bool:
    """True when every byte of a part is as `part_bytes` made it. footer: the part's, where it is open already; one that
    cannot be opened is not as it was made."""
    try:
        footer = footer or pq.read_metadata(pa.BufferReader(data))
    except (pa.ArrowException, OSError, ValueError):
        return False
    seal = (footer.metadata or {}).get(_SEAL.encode(), b"")
    at = data.rfind(seal)
    blank = data[:at] + _BLANK.encode() + data[at + len(_BLANK) :]
    return len(seal) == len(_BLANK) and hashlib.sha256(blank).hexdigest().encode() == seal


def _leaves(whole: pa.Schema, names: list[str]) -> list[str]:
    """Parquet's dotted paths of the leaf columns below `names`."""
    empty = io.BytesIO()
    pq.write_table(whole.empty_table().select(names), empty)
    leaves = pq.ParquetFile(empty).schema
    return [leaves.column(i).path for i in range(len(leaves))]
