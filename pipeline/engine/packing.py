"""A unit as one row of the engine: its table in Arrow's IPC format as the payload, so that no block is ever split.

name: the unit's. start: when its first stage began, seconds since the epoch. failure: why there is no payload.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from cleanplate.pipeline.stages.rows import views

PACKED = pa.schema(
    [("name", pa.string()), ("start", pa.float64()), ("payload", pa.large_binary()), ("failure", pa.string())]
)


def pack(name: str, start: float, table: pa.Table) -> pa.Table:
    """A unit as one row: its table in Arrow's IPC stream format."""
    measured = pa.MockOutputStream()
    _write(table, measured)
    # At its size from the start: a buffer that grows holds a unit's pixels twice.
    payload = pa.allocate_buffer(measured.size())
    _write(table, pa.FixedSizeBufferWriter(payload))
    return packed_row(name, start, payload)


def _write(table: pa.Table, sink: Any) -> None:
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)


def unpack(packed: pa.Table) -> pa.Table:
    (payload,) = views(packed["payload"].slice(0, 1))
    return pa.ipc.open_stream(payload).read_all()


def packed_row(name: str, start: float, payload: bytes | pa.Buffer, failure: str = "") -> pa.Table:
    # pa.array() copies and cannot take a Buffer; from_buffers takes it as it is.
    buffer = pa.py_buffer(payload)
    offsets = pa.array([0, buffer.size], pa.int64()).buffers()[1]
    column = pa.Array.from_buffers(pa.large_binary(), 1, [None, offsets, buffer])
    return pa.table([pa.array([name]), pa.array([start]), column, pa.array([failure])], schema=PACKED)
