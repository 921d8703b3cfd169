"""Parquet files of images: how many bytes a row has about, and the cells of some rows.

A cell's size is not known before it is read: footers tell of a column chunk how large it is, packed and unfolded. That
bounds what is read at once, so that ten kilobytes that unfold to gigabytes cost no more than a few pictures do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from cleanplate.pipeline.errors import CleanplateError, RowError
from cleanplate.pipeline.storage.range_file import RangeFile

Fetched = bytes | CleanplateError
_AT_ONCE = 32  # rows of a row group in memory at a time, at most
_UNFOLDED = 1 << 30  # ... as far as these bytes are enough for them if each were as large as all are together
_MOST_UNFOLDED = 4
"""A row group that unfolds to more than so many times `most` is not read where its rows have more than `most` each."""


def opened(file: RangeFile) -> pq.ParquetFile:
    """Raises RowError("container")."""
    try:
        return pq.ParquetFile(file)
    except (pa.ArrowException, OSError) as error:
        raise RowError("container", f"the Parquet file cannot be opened: {error}") from error


def sizes(table: pq.ParquetFile, column: str) -> Iterator[tuple[int, int, int]]:
    """(rows, packed bytes, unfolded bytes) of a column in each row group."""
    for n in range(table.num_row_groups):
        group = table.metadata.row_group(n)
        chunks = [group.column(c) for c in range(group.num_columns)]
        ours = [c for c in chunks if c.path_in_schema.partition(".")[0] == column]
        packed = sum(c.total_compressed_size for c in ours)
        yield group.num_rows, packed, sum(c.total_uncompressed_size for c in ours)


def cells(file: RangeFile, column: str, rows: Sequence[int], most: int | None) -> list[Fetched]:
    """The bytes of some rows, numbered from the file's start, or the RowError why not.

    most: bytes; a larger cell is RowError("too_large") and is not copied.
    """
    wanted, start = set(rows), 0
    found: dict[int, Fetched] = {}
    with opened(file) as table:
        for n, (count, _, unfolded) in enumerate(sizes(table, column)):
            here = {row - start for row in wanted if start <= row < start + count}
            if here:
                found |= {start + row: data for row, data in _group(table, n, column, here, unfolded, most)}
            start += count
    return [
        RowError("container", f"there is no row {row}") if (data := found.get(row)) is None else data
        for row in rows
    ]


def rows_of(file: RangeFile, columns: list[str], rows: Sequence[int]) -> pa.Table | None:
    """Some columns of some rows, in the order asked for; without those that the file lacks, None where it has none."""
    with opened(file) as table:
        there = [name for name in columns if name in table.schema_arrow.names]
        if not there:
            return None
        wanted, start = set(rows), 0
        pieces, at = [], []
        for n in range(table.num_row_groups):
            end = start + table.metadata.row_group(n).num_rows
            if here := sorted(row for row in wanted if start <= row < end):
                group = table.read_row_group(n, there, use_threads=False)
                pieces.append(group.take([row - start for row in here]))
                at += here
            start = end
        places = {row: number for number, row in enumerate(at)}
        return pa.concat_tables(pieces).take([places[row] for row in rows])


def _group(
    table: pq.ParquetFile, number: int, column: str, wanted: set[int], unfolded: int, most: int | None
) -> Iterator[tuple[int, Fetched]]:
    """(row, cell) of the wanted rows of a row group, numbered from its start."""
    count = table.metadata.row_group(number).num_rows
    if (
        most is not None
        and unfolded > most * (_MOST_UNFOLDED if count > 1 else 1)
        and unfolded > most * count
    ):
        message = f"the row group unfolds to {unfolded} bytes for {count} rows; the limit is {most} a row"
        yield from ((row, RowError("too_large", message)) for row in wanted)
        return
    at_once = max(1, min(_AT_ONCE, _UNFOLDED // max(1, unfolded)))
    at, last = 0, max(wanted)
    for batch in table.iter_batches(at_once, row_groups=[number], columns=[column], use_threads=False):
        for row in wanted.intersection(range(at, at + batch.num_rows)):
            yield row, cell(batch.column(0), row - at, most)
        at += batch.num_rows
        if at > last:
            return


def cell(column: pa.Array, row: int, most: int | None) -> Fetched:
    """The bytes of one cell of an array of bytes, or of structs with bytes and path."""
    path = None
    value: pa.Scalar = column[row]
    if pa.types.is_struct(column.type):
        if not value.is_valid:
            return RowError("empty", "the cell is null")
        names = column.type.names
        path = value["path"].as_py() if "path" in names else None
        value = value["bytes"]
    if not value.is_valid:
        return RowError(
            "empty", f"the cell holds no bytes, only the path {path}" if path else "the cell is null"
        )
    data = value.as_buffer()
    if most is not None and data.size > most:
        return RowError("too_large", f"{data.size} bytes; the limit is {most}")
    return bytes(data.to_pybytes())
