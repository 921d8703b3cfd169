"""Where output pictures lie. In every layout the parts are the ledger, and a row without a picture has none anywhere.

    parquet      image.bytes in the part
    files        images/<the source's key>: put only if absent, then the part, which names it in image.path
    webdataset   shards/<unit>.tar: one conditional put, then the part, whose image.path is a member's address

A picture is never overwritten. In `files`, a name that another picture has (a replaced source, two keys that end
in one name, an attempt that was killed and came out otherwise) sends this one to `images/~/<id>-<hash>`. In
`webdataset` a unit has one tar: who finds it there takes over the rows that lie in it, so that tar and part always
tell of the same attempt. What a killed attempt leaves unnamed by any part is removed by `verify --sweep`.
"""

from __future__ import annotations

import base64
import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote_from_bytes

import pyarrow as pa
import pyarrow.parquet as pq

from cleanplate.pipeline import schema
from cleanplate.pipeline.errors import DamagedError, RowError, StorageError
from cleanplate.pipeline.images.formats.table import FORMATS
from cleanplate.pipeline.ledger import part_file
from cleanplate.pipeline.schema import StoredRow
from cleanplate.pipeline.storage import columns, tar_file
from cleanplate.pipeline.storage.address import Inner, inner_of, key_of
from cleanplate.pipeline.storage.connect import Store
from cleanplate.pipeline.storage.range_file import RangeFile

IMAGES, SHARDS = "images", "shards"
_ROWS = ".cleanplate.parquet"
"""The member of a shard that holds its rows; WebDataset readers pass over names that begin with a dot."""
_THREADS = 16
_LONGEST_SEGMENT, _LONGEST_KEY = 200, 800  # bytes; file systems allow 255 a name, S3 1024 in all


def place(output: Store, unit: str, table: pa.Table, layout: str, below: str) -> pa.Table:
    """Put a unit's pictures where the layout wants them and return the part's rows.

    table: schema.part_schema(), pictures in image.bytes. below: uri of the source's root, which keys are below.
    """
    if layout == "files":
        return _files(output, table, below)
    if layout == "webdataset":
        return _shard(output, unit, table)
    return table


def with_bytes(output: Store, row: StoredRow) -> StoredRow:
    """The row with its picture in image.bytes, wherever it lies. Raises StorageError."""
    image = row["image"]
    if image is None or image["bytes"] is not None or image["path"] is None:
        return row
    return {**row, "image": {**image, "bytes": _fetched(output, image["path"])}}


def _fetched(output: Store, path: str) -> bytes:
    inner = inner_of(path)
    if inner is None:
        return output.get(path)
    return output.get_range(inner.container, inner.at, inner.size)


# --- files ---


def _files(output: Store, table: pa.Table, below: str) -> pa.Table:
    rows = table.select(["image_id", "source_uri", "image", "output_format", "output_sha256"]).to_pylist()
    with ThreadPoolExecutor(_THREADS) as threads:
        paths = list(threads.map(lambda row: _file(output, row, below), rows))
    return _pointing(table, paths)


def _file(output: Store, row: StoredRow, below: str) -> str | None:
    if row["image"] is None:
        return None
    data, suffixes = row["image"]["bytes"], FORMATS[row["output_format"]].suffixes
    aside = f"{IMAGES}/~/{row['image_id'][:32]}-{row['output_sha256'][:16]}.{suffixes[0]}"
    for key in (f"{IMAGES}/{mirrored(key_of(row['source_uri'], below), suffixes)}", aside):
        if len(key.encode()) <= _LONGEST_KEY and _stored(output, key, data):
            return key
    raise StorageError("other", f"{output.uri(aside)} exists and holds something else")


def mirrored(key: str, suffixes: tuple[str, ...]) -> str:
    """The output's name for a source key: the same, made safe, with the suffix that the content has now. A suffix
    that does not fit stays before the new one, so that a.jpg and a.png do not both become a.webp."""
    segments = [_safe(segment) for segment in key.split("/") if segment] or ["_"]
    path = PurePosixPath(segments[-1])
    if path.suffix.lower().lstrip(".") not in suffixes:
        segments[-1] = f"{path.name}.{suffixes[0]}"
    return "/".join(segments)


def _safe(segment: str) -> str:
    """One part of a key as one that every store takes: nothing that leaves the folder, no control characters."""
    if segment in (".", ".."):
        return segment.replace(".", "%2E")
    name = "".join(c if c.isprintable() and c != "\\" else quote_from_bytes(_bytes_of(c)) for c in segment)
    if len(name.encode()) <= _LONGEST_SEGMENT:
        return name
    stem, suffix = PurePosixPath(name).stem, PurePosixPath(name).suffix[:20]
    return stem.encode()[: _LONGEST_SEGMENT - 40].decode(errors="ignore") + "~" + suffix


def _bytes_of(character: str) -> bytes:
    escaped = "\udc80" <= character <= "\udcff"  # a byte of a local name that is no UTF-8
    return character.encode("utf-8", "surrogateescape" if escaped else "surrogatepass")


def _stored(output: Store, key: str, data: bytes) -> bool:
    """True when `key` holds these bytes now. False: it holds others, or cannot be a file (a folder is there)."""
    try:
        return output.put_new(key, data) or output.get(key) == data
    except StorageError as error:
        if error.kind == "unreachable":
            raise
        return False


# --- shards ---


def shard_key(unit: str) -> str:
    return f"{SHARDS}/{unit}.tar"


def _shard(output: Store, unit: str, table: pa.Table) -> pa.Table:
    key = shard_key(unit)
    files: list[tuple[str, bytes]] = []
    rows = table.to_pylist()
    members = columns.members_of(schema.carried_of(table.schema))
    ours = columns.OUR_MEMBER if "json" in members else "json"
    pictures = set()
    for row in rows:
        if row["image"] is not None:
            fields = {name: value for name, value in row.items() if name not in ("image", *members)}
            beside = json.dumps(fields, ensure_ascii=False, default=_in_words).encode()
            picture = f"{row['image_id']}.{FORMATS[row['output_format']].suffixes[0]}"
            pictures.add(picture)
            files.append((f"{row['image_id']}.{ours}", beside))
            files.append((picture, row["image"]["bytes"]))
            files += [(f"{row['image_id']}.{m}", _bytes(row[m])) for m in members if row[m] is not None]
    lies = {m.name.partition(".")[0]: m for m in tar_file.make(files)[1] if m.name in pictures}
    paths = [
        Inner("tar", key, at=m.at, size=m.size, member=m.name).uri
        if (m := lies.get(row["image_id"]))
        else None
        for row in rows
    ]
    pointing = _pointing(table, paths)
    data, _ = tar_file.make([*files, (_ROWS, part_file.part_bytes(pointing))])
    return pointing if output.put_new(key, data) else _taken_over(output, key)


def _bytes(member: str | bytes) -> bytes:
    return member.encode() if isinstance(member, str) else member


def _in_words(value: Any) -> Any:
    """What JSON has no type for, of a carried column: bytes as base64, the rest as text. The part has it as it was."""
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)


def _taken_over(output: Store, key: str) -> pa.Table:
    """The rows of the shard that another attempt at this unit put: they tell what its pictures are."""
    with suppress(RowError):  # Not a tar, or half of one.
        for member in tar_file.members(RangeFile(output, key)):
            if member.name == _ROWS:
                data = output.get_range(key, member.at, member.size)
                if part_file.seal_holds(data):
                    return pq.read_table(pa.BufferReader(data))
    raise DamagedError(f"{output.uri(key)} is damaged: {part_file.MAKE_ANEW}")


def _pointing(table: pa.Table, paths: list[str | None]) -> pa.Table:
    """The table with paths instead of pictures."""
    images: list[dict[str, Any] | None] = [{"bytes": None, "path": path} if path else None for path in paths]
    pointing = schema.with_columns(table, schema.columns("image"), {"image": images})
    carried = schema.carried_of(table.schema)
    return pointing.replace_schema_metadata(schema.part_schema(pictures=False, carried=carried).metadata)
