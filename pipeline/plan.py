"""The plan: list the source once, cut it once into units, and store that as an artefact of the run.

Listing is streamed into buckets by the first byte of the image id (of images in containers: of the piece of the
container that they lie in, so that a unit's rows can be fetched together), spilled to a temporary folder, so that the
driver's memory holds one bucket, not the source. Units are cut along the buckets in order.

    plan/0000.index.parquet         one row per unit: name, file, row group, rows, bytes. Written last and only
                                    if absent: it *is* the plan, and a plan that exists is never cut again
    plan/0000-<digest>-00012.parquet  the units' rows, one row group a unit, so that a worker reads only its own

Later sources' new images get a further generation (0001, ...), as do rows that are tried again and rows that a
review asks for.
"""

from __future__ import annotations

import fnmatch
import hashlib
import io
import itertools
import json
import mmap
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import containers, schema
from pipeline.containers import Listing
from pipeline.errors import ConfigError, ContractError, RunStopped
from pipeline.ids import Ids
from pipeline.inner import order_of
from pipeline.ranges import RangeFile
from pipeline.recipe import Recipe
from pipeline.storage import Object, Store

UNITS_PER_FILE = 64
_SPILL_ROWS = 128 * 1024


@dataclass(frozen=True)
class Unit:
    """A fixed group of rows: the grain of work, of resume and of commit. `name` names its part."""

    name: str
    file: str
    row_group: int
    rows: int
    bytes: int


@dataclass(frozen=True)
class Planned:
    """One row to plan: what the listing said, and which attempt at it this is."""

    uri: str
    object: Object
    attempt: int = 1
    review: dict[str, Any] | None = None
    """schema.REVIEW, where a person asked for this attempt."""

    @property
    def image_id(self) -> str:
        return image_id(self.uri, self.object.version)


def image_id(uri: str, version: str) -> str:
    """The row's identity: sha256 over uri and version. Never a rank, a counter or a block."""
    return hashlib.sha256(f"{uri}\n{version}".encode()).hexdigest()


def listed(
    source: Store, recipe: Recipe, limit: int | None = None, told: Listing | None = None
) -> Iterator[Planned]:
    """Every image of the source's objects that the recipe's globs choose; the first `limit` of the listing.

    told: of sources of containers, what to pass over, and what was passed over (see `containers.Listing`).
    """
    items = (item for item in source.list() if chosen(item.key, recipe.include, recipe.exclude))
    found = containers.images_of(source, items, recipe.source, told or Listing())
    for uri, item in itertools.islice(found, limit):
        yield Planned(uri, item)


def chosen(key: str, include: tuple[str, ...], exclude: tuple[str, ...]) -> bool:
    """True when a glob of `include` and none of `exclude` matches the key. "*" crosses folders too."""
    return bool(_any_of(include).match(key)) and not _any_of(exclude).match(key)


@lru_cache(maxsize=16)
def _any_of(globs: tuple[str, ...]) -> re.Pattern[str]:
    """One pattern for all; "**/x" also means an x at the top. No glob: what matches nothing."""
    each = [g for glob in globs for g in (glob, glob.removeprefix("**/"))]
    return re.compile("|".join(fnmatch.translate(g) for g in each) or r"(?!)")


def cut(
    output: Store,
    generation: int,
    rows: Iterable[Planned],
    recipe: Recipe,
    digest: str,
    told: Listing | None = None,
) -> list[Unit]:
    """Write generation `generation` of the plan from `rows` and return its units; when another driver wrote
    it first, return what that one wrote. No rows: nothing is written and the list is empty.

    told: of the listing that the rows come from; the index then says which containers it holds whole.
    """
    try:
        units = _cut(output, generation, rows, recipe, digest)
    except OSError as error:
        raise RunStopped(
            f"no room to sort the listing in {tempfile.gettempdir()} ({error.strerror or error}): "
            "set TMPDIR to a larger disk"
        ) from error
    if not units:
        return []
    whole = json.dumps(told.whole if told else [])
    layout = _INDEX.with_metadata({_CONTAINERS: whole})
    index = pa.Table.from_pylist([unit.__dict__ for unit in units], schema=layout)
    if not output.put_new(_index_key(generation), _parquet([index])):
        return read_index(output, generation)
    return units


def _cut(output: Store, generation: int, rows: Iterable[Planned], recipe: Recipe, digest: str) -> list[Unit]:
    with ExitStack() as open_files:
        buckets = _spill(rows, open_files)
        most = _rows_per_unit(recipe, buckets.rows)
        return _write_units(output, generation, buckets, most, recipe.units.bytes, digest)


_CONTAINERS = b"cleanplate.containers"
_INDEX = pa.schema(
    [
        ("name", pa.string()),
        ("file", pa.string()),
        ("row_group", pa.int32()),
        ("rows", pa.int32()),
        ("bytes", pa.int64()),
    ]
)


def generations(output: Store) -> list[int]:
    """The generations of the plan that exist, oldest first."""
    suffix = ".index.parquet"
    keys = (item.key.rpartition("/")[2] for item in output.list("plan"))
    return sorted(int(key.removesuffix(suffix)) for key in keys if key.endswith(suffix))


def read_index(output: Store, generation: int) -> list[Unit]:
    table = pq.read_table(pa.BufferReader(output.get(_index_key(generation))))
    return [Unit(**row) for row in table.to_pylist()]


def whole_containers(output: Store) -> frozenset[str]:
    """The containers all of whose images the plan holds, as `containers.Listing` knows them."""
    found: set[str] = set()
    for generation in generations(output):
        index = pq.read_schema(pa.BufferReader(output.get(_index_key(generation))))
        found |= set(json.loads((index.metadata or {}).get(_CONTAINERS, b"[]")))
    return frozenset(found)


def read_unit(output: Store, unit: Unit) -> pa.Table:
    """The unit's rows, as schema.START: what the first stage sees. Reads its row group only."""
    file = pq.ParquetFile(RangeFile(output, unit.file))
    table = file.read_row_group(unit.row_group)
    if table.num_rows != unit.rows:
        raise ContractError(
            f"{unit.file} row group {unit.row_group}: {table.num_rows} rows, planned {unit.rows}"
        )
    absent = schema.columns(*(n for n in schema.START.names if n not in table.schema.names))
    empty = {name: [None] * table.num_rows for name in absent.names}  # Old plans have no `review`.
    return schema.with_columns(table, absent, empty).select(schema.START.names).cast(schema.START)


def known(output: Store) -> Ids:
    """The image ids that the plan holds, all generations."""
    indexes = [read_index(output, generation) for generation in generations(output)]
    files = [file for units in indexes for file in dict.fromkeys(unit.file for unit in units)]
    columns = (pq.read_table(RangeFile(output, file), columns=["image_id"])["image_id"] for file in files)
    return Ids(columns, sum(unit.rows for units in indexes for unit in units))


def read_rows(output: Store, generation: int) -> Iterator[pa.Table]:
    """Every planned row of a generation, a plan file at a time."""
    for file in sorted({unit.file for unit in read_index(output, generation)}):
        yield pq.read_table(pa.BufferReader(output.get(file)))


def reviews(output: Store) -> dict[str, dict[str, Any]]:
    """image_id -> the newest review that was planned (schema.REVIEW), of the few rows that have one."""
    found: dict[str, tuple[int, dict[str, Any]]] = {}
    for generation in generations(output):
        for table in read_rows(output, generation) if generation else ():
            if "review" not in table.schema.names:
                continue
            for row in table.filter(pc.is_valid(table["review"])).to_pylist():
                if row["attempt"] > found.get(row["image_id"], (0, {}))[0]:
                    found[row["image_id"]] = row["attempt"], row["review"]
    return {image: review for image, (_, review) in found.items()}


def check_apart(source: Store, output: Store) -> None:
    """Refuse an output inside the source (or the other way round): a run would list what it writes."""
    a, b = source.url.rstrip("/") + "/", output.url.rstrip("/") + "/"
    if a.startswith(b) or b.startswith(a):
        raise ConfigError(
            f"the output {output.url} and the source {source.url} lie inside one another; choose two places"
        )


# --- spilling and cutting ---


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
        table = pa.table(self.pending, schema=_SPILLED).sort_by("order")
        self.pending = [[] for _ in _SPILLED]
        buckets = [order[:2] for order in table["order"].to_pylist()]
        starts = [n for n, bucket in enumerate(buckets) if n == 0 or bucket != buckets[n - 1]]
        for start, end in zip(starts, [*starts[1:], len(buckets)], strict=True):
            self._writer(buckets[start]).write_table(table.slice(start, end - start))

    def _writer(self, bucket: str) -> pa.ipc.RecordBatchStreamWriter:
        if bucket not in self.writers:
            file = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the others
            self.open_files.enter_context(file)
            self.files[bucket] = file
            self.writers[bucket] = self.open_files.enter_context(pa.ipc.new_stream(file, _SPILLED))
        return self.writers[bucket]

    def __iter__(self) -> Iterator[pa.Table]:
        """The buckets in order, each sorted. A row listed twice (an object replaced while the pages
        were fetched) has two versions and so two ids; an equal id is the same row, kept once."""
        if self.pending[0]:
            self._flush()
        for bucket, writer in self.writers.items():
            writer.close()
            self.files[bucket].flush()
        for bucket in sorted(self.writers):
            with mmap.mmap(self.files[bucket].fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                whole = pa.ipc.open_stream(pa.py_buffer(mapped)).read_all()
                table = whole.sort_by("order").drop_columns("order").combine_chunks()
                del whole  # Its columns are views of the map, which cannot be closed below them.
            yield _unique(table)


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
    # Small sources get small units, so that workers share them and a kill costs little.
    return recipe.units.rows or max(8, min(512, -(-total // 64)))


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


def _index_key(generation: int) -> str:
    return f"plan/{generation:04d}.index.parquet"
