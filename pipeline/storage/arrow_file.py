"""Arrow IPC files and streams (what `datasets` saves to disk): find the record batches, read one of them.

Arrow columnar format, "Encapsulated message format": a marker, the size of a flatbuffer, the flatbuffer, a body.
The few numbers that are needed are read from the flatbuffer here, so that listing fetches no bodies.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any

import pyarrow as pa

from cleanplate.pipeline.errors import RowError

_MAGIC, _GO_ON = b"ARROW1\0\0", b"\xff\xff\xff\xff"
_SCHEMA, _DICTIONARY, _RECORD_BATCH = 1, 2, 3


@dataclass(frozen=True)
class Batch:
    """A record batch's message. at, size: bytes from the file's start."""

    at: int
    size: int
    rows: int


def begins(head: bytes) -> bool:
    """Do the first bytes of a file look like an Arrow file or stream?"""
    return head[:8] == _MAGIC or (head[:4] == _GO_ON and len(head) > 8)


def schema(file: io.RawIOBase) -> pa.Schema:
    """Raises RowError("container")."""
    try:
        return pa.ipc.read_schema(pa.py_buffer(_head(file)))
    except (pa.ArrowException, OSError, ValueError, struct.error) as error:
        raise RowError("container", f"the Arrow file cannot be opened: {error}") from error


def batches(file: io.RawIOBase) -> Iterator[Batch]:
    """Every record batch, in order. Raises RowError("container") at the first place that cannot be read."""
    try:
        end = file.seek(0, io.SEEK_END)
        for at, size, kind, rows in _messages(file):
            if at + size > end:
                raise RowError("container", "the Arrow file ends inside a record batch")
            if kind == _RECORD_BATCH:
                yield Batch(at, size, rows)
    except (struct.error, ValueError, OverflowError) as error:
        raise RowError("container", f"the Arrow file cannot be read on: {error}") from error


def read_batch(file: io.RawIOBase, at: int, columns: Sequence[str]) -> pa.RecordBatch:
    """Some columns of the batch whose message starts at `at`. Raises pa.ArrowException, KeyError, RowError."""
    head = _head(file)
    whole = pa.ipc.read_schema(pa.py_buffer(head))
    numbers = [whole.get_field_index(column) for column in columns]
    if min(numbers, default=-1) < 0:
        raise KeyError(", ".join(columns))
    size = next(size for start, size, _, _ in _messages(file, at) if start == at)
    file.seek(at)
    batch = file.read(size)
    coded = any(_is_coded(field.type) for field in whole)  # The reader wants all of them, whatever is read.
    stream = head + (_dictionaries(file, at) if coded else b"") + batch + _GO_ON + bytes(4)
    options = pa.ipc.IpcReadOptions(included_fields=numbers)
    with pa.ipc.open_stream(pa.py_buffer(stream), options=options) as reader:
        return reader.read_next_batch()


def _is_coded(kind: pa.DataType) -> bool:
    """Is there a dictionary in the type, at any depth?"""
    if pa.types.is_dictionary(kind):
        return True
    return any(_is_coded(kind.field(n).type) for n in range(kind.num_fields))


def _dictionaries(file: io.RawIOBase, end: int) -> bytes:
    """The messages of dictionaries that lie before `end`."""
    found = []
    for at, size, kind, _ in _messages(file):
        if at >= end:
            break
        if kind == _DICTIONARY:
            place = file.tell()
            file.seek(at)
            found.append(_exactly(file, size))
            file.seek(place)
    return b"".join(found)


def _head(file: io.RawIOBase) -> bytes:
    """The schema's message."""
    for at, size, kind, _ in _messages(file):
        if kind != _SCHEMA:
            break
        file.seek(at)
        return _exactly(file, size)
    raise RowError("container", "the Arrow file does not begin with its schema")


def _messages(file: io.RawIOBase, at: int | None = None) -> Iterator[tuple[int, int, int, int]]:
    """(start, size, kind, rows) of each message from `at` (default: the first) to the end mark."""
    if at is None:
        file.seek(0)
        at = len(_MAGIC) if file.read(len(_MAGIC)) == _MAGIC else 0
    while True:
        file.seek(at)
        head = file.read(8) or b""
        if not head or head == _GO_ON + bytes(4):
            return
        if head[:4] != _GO_ON:
            raise ValueError(f"no message begins at byte {at}")
        length = struct.unpack_from("<i", head, 4)[0]
        if not 0 < length < 1 << 28:
            raise ValueError(f"a message of impossible length at byte {at}")
        kind, body, rows = _described(_exactly(file, length))
        size = 8 + length + body
        yield at, size, kind, rows
        at += size


def _exactly(file: IO[bytes] | io.RawIOBase, size: int) -> bytes:
    data = file.read(size) or b""
    if len(data) != size:
        raise ValueError("the file ends early")
    return data


def _described(message: bytes) -> tuple[int, int, int]:
    """Kind, body length and (of a record batch) rows, from the Message table of format/Message.fbs."""
    (root,) = struct.unpack_from("<I", message, 0)
    kind = _field(message, root, 1, "<B", 0)
    body = _field(message, root, 3, "<q", 0)
    rows = 0
    if kind == _RECORD_BATCH and (at := _where(message, root, 2)):
        rows = _field(message, at + struct.unpack_from("<I", message, at)[0], 0, "<q", 0)
    return kind, body, rows


def _where(message: bytes, table: int, number: int) -> int:
    """Where a flatbuffer table's field lies; 0 where it is left out."""
    (back,) = struct.unpack_from("<i", message, table)
    start = table - back
    (length,) = struct.unpack_from("<H", message, start)
    at = 4 + 2 * number
    offset = struct.unpack_from("<H", message, start + at)[0] if at < length else 0
    return table + offset if offset else 0


def _field(message: bytes, table: int, number: int, code: str, default: int) -> Any:
    at = _where(message, table, number)
    return struct.unpack_from(code, message, at)[0] if at else default
