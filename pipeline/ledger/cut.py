"""Cutting a listing into units, and storing them as a generation of the plan (pipeline/ledger/plan.py tells
what that is).

Streamed into buckets by the first byte of the image id (of images in containers: of the piece of the container that
they lie in, so that a unit's rows can be fetched together), spilled to temporary files, so that the driver's memory
holds one bucket, not the source. Units are cut along the buckets in order.
"""

from __future__ import annotations

import hashlib
import io
import json
import mmap
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cleanplate.pipeline import schema
from cleanplate.pipeline.errors import RunStopped
from cleanplate.pipeline.ledger.plan import CONTAINERS, INDEX, Planned, Unit, index_key, read_index
from cleanplate.pipeline.recipe.recipe import Recipe
from cleanplate.pipeline.storage.address import order_of
from cleanplate.pipeline.storage.connect import Store
from cleanplate.pipeline.storage.containers import Listing

UNITS_PER_FILE = 64
_SPILL_ROWS = 128 * 1024


def cut(
    output: Store,
    generation: int,
    rows: Iterable[Planned],
    recipe: Recipe,
    digest: str,
    listing: Listing | None = None,
) -> list[Unit]:
    """Write generation `generation` of the plan from `rows` and return its units; when another driver wrote
    it first, return what that one wrote. No rows: nothing is written and the list is empty.

    listing: of the listing that the rows come from; the index then says which containers it holds whole.
    """
    units = _cut(output, generation, rows, recipe, digest)
    if not units:
        return []
    whole = json.dumps(listing.whole if listing else [])
    layout = INDEX.with_metadata({CONTAINERS: whole})
    index = pa.Table.from_pylist([unit.__dict__ for unit in units], schema=layout)
    if not output.put_new(index_key(generation), _parquet([index])):
        return read_index(output, generation)
    return units


def _cut(output: Store, generation: int, rows: Iterable[Planned], recipe: Recipe, digest: str) -> list[Unit]:
    with ExitStack() as open_files:
        buckets = _spill(rows, open_files)
        most = _rows_per_unit(recipe, buckets.rows)
        return _write_units(output, generation, buckets, most, recipe.units.bytes, digest)


_SPILLED = schema.PLANNED.append(pa.field("order", pa.string()))


class _Buckets:
    """256 spill files of planned rows, by the first byte of their order. They have no names, so that nothing of
    them is left whatever ends this process."""

    def __init__(self, open_files: ExitStack) -> None:
        self.open_files, self.rows = open_files, 0
        self.files: dict[str, IO[bytes]] = {}
        self.pending: list[list[Any]] = [[] for _ in _SPILLED]
        self.writers: dict[str, pa.ipc.RecordBatchStreamWriter] = {}

    def add(self, row: Planned) -> None:
        # Columns, not a dict for each row: ten million rows are two minutes less.
        ids, uris, versions, sizes, attempts, reviews, orders = self.pending
        name = row.image_id
        ids.append(name)
        uris.append(row.uri)
        versions.append(row.object.version)
        sizes.append(row.object.size)
        attempts.append(row.attempt)
        reviews.append(row.review)
        orders.append(order_of(row.uri, name))
        self.rows += 1
        if len(ids) >= _SPILL_ROWS:
            self._flush()

    def _flush(self) -> None:
        try:
            self._write()
        except OSError as error:
            raise _no_room(error) from error

    def _write(self) -> None:
        table = pa.table(self.pending, schema=_SPILLED).sort_by("order")
        self.pending = [[] for _ in _SPILLED]
        buckets = [order[:2] for order in table["order"].to_pylist()]
        starts = [n for n, bucket in enumerate(buckets) if n == 0 or bucket != buckets[n - 1]]
        for start, end in zip(starts, [*starts[1:], len(buckets)], strict=True):
            self._writer(buckets[start]).write_table(table.slice(start, end - start))

    def _writer(self, bucket: str) -> pa.ipc.RecordBatchStreamWriter:
        if bucket not in self.writers:
            file = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the others
            self.open_files.callback(_dropped, file)
            self.files[bucket] = file
            self.writers[bucket] = pa.ipc.new_stream(file, _SPILLED)
            self.open_files.callback(_dropped, self.writers[bucket])
        return self.writers[bucket]

    def __iter__(self) -> Iterator[pa.Table]:
        """The buckets in order, each sorted. A row listed twice (an object replaced while the pages
        were fetched) has two versions and so two ids; an equal id is the same row, kept once."""
        if self.pending[0]:
            self._flush()
        try:
            for bucket, writer in self.writers.items():
                writer.close()
                self.files[bucket].flush()
        except OSError as error:
            raise _no_room(error) from error
        for bucket in sorted(self.writers):
            with mmap.mmap(self.files[bucket].fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                whole = pa.ipc.open_stream(pa.py_buffer(mapped)).read_all()
                table = whole.sort_by("order").drop_columns("order").combine_chunks()
                del whole  # Its columns are views of the map, which cannot be closed below them.
            yield _unique(table)


def _dropped(file: IO[bytes] | pa.ipc.RecordBatchStreamWriter) -> None:
    """Close a temporary file whose content is not needed any more: what it cannot write on a full disk is no news."""
    with suppress(OSError):
        file.close()


def _no_room(error: OSError) -> RunStopped:
    return RunStopped(
        f"no room to sort the listing in {tempfile.gettempdir()} ({error.strerror or error}): "
        "set TMPDIR to a larger disk"
    )


def _unique(table: pa.Table) -> pa.Table:
    ids = table["image_id"]
    again = pc.equal(ids[1:], ids[:-1])
    return (
        table.filter(pa.chunked_array([[True], *pc.invert(again).chunks])) if pc.any(again).as_py() else table
    )


def _spill(rows: Iterable[Planned], open_files: ExitStack) -> _Buckets:
    buckets = _Buckets(open_files)
    for row in rows:
        buckets.add(row)
    return buckets


def _rows_per_unit(recipe: Recipe, total: int) -> int:
    # Small sources get small units, so that workers share them and a kill costs little: 16 units of what is less than
    # 128 images (six pictures keep six cores busy), 64 of what is more, until a unit holds 512.
    return recipe.units.rows or max(min(8, -(-total // 16)), min(512, -(-total // 64)), 1)


def _write_units(
    output: Store, generation: int, buckets: _Buckets, rows: int, size: int, digest: str
) -> list[Unit]:
    units: list[Unit] = []
    waiting: list[pa.Table] = []
    for table in _pieces(iter(buckets), rows, size):
        waiting.append(table)
        if len(waiting) == UNITS_PER_FILE:
            units += _write_file(output, generation, len(units), waiting, digest)
            waiting = []
    if waiting:
        units += _write_file(output, generation, len(units), waiting, digest)
    return units


def _pieces(tables: Iterator[pa.Table], rows: int, size: int) -> Iterator[pa.Table]:
    """Cut the sorted rows into runs of at most `rows` rows and `size` source bytes (one larger object stands
    alone)."""
    rest = schema.PLANNED.empty_table()
    for table in tables:
        rest = pa.concat_tables([rest, table])
        start, weight = 0, 0
        for at, source_bytes in enumerate(rest["source_bytes"].to_pylist()):
            if at > start and (at - start == rows or weight + source_bytes > size):
                yield rest.slice(start, at - start)
                start, weight = at, 0
            weight += source_bytes
        rest = rest.slice(start)
    if rest.num_rows:
        yield rest


def _write_file(
    output: Store, generation: int, first: int, tables: list[pa.Table], digest: str
) -> list[Unit]:
    names = [f"{generation:02d}-{first + n:08d}-{_unit_digest(t, digest)}" for n, t in enumerate(tables)]
    content = hashlib.sha256("".join(names).encode()).hexdigest()[:12]
    # Named by content: two drivers that plan at once write different files or the same one, never half of each.
    key = f"plan/{generation:04d}-{content}-{first // UNITS_PER_FILE:05d}.parquet"
    output.put(key, _parquet(tables))
    sizes = [(t.num_rows, sum(t["source_bytes"].to_pylist())) for t in tables]
    return [Unit(name, key, n, *sizes[n]) for n, name in enumerate(names)]


def _unit_digest(table: pa.Table, digest: str) -> str:
    """12 hex digits over the recipe and the rows' ids, attempts (an id covers uri and version) and reviews."""
    hasher = hashlib.sha256(digest.encode())
    columns = (table[name].to_pylist() for name in ("image_id", "attempt", "review"))
    for name, attempt, review in zip(*columns, strict=True):
        asked = f" {sorted(review.items())}" if review else ""
        hasher.update(f"{name} {attempt}{asked}\n".encode())
    return hasher.hexdigest()[:12]


def _parquet(row_groups: list[pa.Table]) -> bytes:
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, row_groups[0].schema, compression="zstd") as writer:
        for table in row_groups:
            writer.write_table(table, row_group_size=max(1, table.num_rows))
    return sink.getvalue()
