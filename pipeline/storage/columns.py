"""Columns of a source that go through a run unchanged: captions, labels, what else stands beside pictures in a table
or in the samples of a tar.

A run carries the columns of the first table that its listing meets, with their types. A later table that lacks one
gives nulls; one whose values do not fit the type without loss fails the row. Columns that may hold pictures are carried
only when they are named: nobody looks at what is in them. Of tars a run carries what stands beside the first
pictures that are listed: texts as they are, to the last byte, other members only when they are named.
"""

from __future__ import annotations

import base64
import struct
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from cleanplate.pipeline.errors import CleanplateError, ConfigError, RowError, StorageError
from cleanplate.pipeline.storage import address_list, arrow_file, parquet_file, samples
from cleanplate.pipeline.storage.address import Inner, inner_of
from cleanplate.pipeline.storage.connect import place_of
from cleanplate.pipeline.storage.image_columns import Asked, image_columns
from cleanplate.pipeline.storage.range_file import RangeFile

OUR_MEMBER = "cleanplate.json"
"""A row beside its picture in a tar of ours, where the source's samples have a `json` of their own."""
_MEMBER = b"cleanplate.member"
_MOST_NAMES = 64
_THREADS = 16


@dataclass(frozen=True)
class Carried:
    """schema: of the columns that are carried. held_back: those that are not, because they may hold pictures. cleaned:
    columns of pictures, where the source is of tables."""

    schema: pa.Schema
    held_back: tuple[str, ...] = ()
    cleaned: tuple[str, ...] = ()


def of_table(
    uri: str,
    asked: Sequence[str] | None,
    taken: Collection[str],
    own: Collection[str] | None,
    pictures: Asked = None,
) -> Carried:
    """What a run over the table of the row with this uri carries.

    asked: names; None for all. taken: names that rows have already. own: where the table is an output of ours, what it
    carried itself. pictures: columns that the run was asked to clean. Raises ConfigError for a name that is not
    there, is there twice, or is taken.
    """
    inner = inner_of(uri)
    assert inner is not None
    whole = schema_of(inner)
    cleaned = () if inner.kind == "list" else tuple(image_columns(whole, pictures)[0])
    there = [name for name in whole.names if name not in cleaned]
    if own is not None:
        there = [name for name in there if name in own]
    counts = Counter(whole.names)
    if wrong := [name for name in asked or () if name not in there]:
        raise ConfigError(
            f"columns: no column {', '.join(wrong)} in {inner.container}; there are {', '.join(there)}"
        )
    held_back = (
        ()
        if asked is not None
        else tuple(n for n in there if counts[n] == 1 and _binary(whole.field(n).type))
    )
    names = [n for n in (there if asked is None else asked) if n not in held_back]
    if twice := [name for name in names if counts[name] > 1]:
        raise ConfigError(
            f"columns: {twice[0]} is there {counts[twice[0]]} times; choose others with --columns"
        )
    _check_apart(names, taken)
    fields = [pa.field(n, _plain(whole.field(n).type), metadata=whole.field(n).metadata) for n in names]
    return Carried(pa.schema(fields), held_back, cleaned)


def _check_apart(names: list[str], taken: Collection[str]) -> None:
    if clash := [name for name in names if name in taken]:
        rest = ",".join(n for n in names if n not in taken) or "none"
        raise ConfigError(
            f"columns: {', '.join(clash)} would stand beside columns of the same name in every row; "
            f"rename them, or leave them out: --columns {rest}"
        )


def of_samples(
    beside: Mapping[str, int], asked: Sequence[str] | None, taken: Collection[str], pictures: Collection[str]
) -> Carried:
    """What a run over tars carries. beside: name in the sample -> samples that have it. asked, taken: see `of_table`.
    pictures: names that are pictures: rows of their own. Raises ConfigError."""
    there = [name for name in sorted(beside) if name != OUR_MEMBER]
    if wrong := [name for name in asked or () if name not in there]:
        raise ConfigError(
            f"columns: no member {', '.join(wrong)} beside the first pictures of the tars; there are "
            f"{', '.join(there)[:400] or 'none'}"
        )
    others = [name for name in there if name not in pictures]
    names = list(asked) if asked is not None else [name for name in others if samples.is_text(name)]
    if len(names) > _MOST_NAMES:
        raise ConfigError(
            f"columns: the samples have {len(names)} kinds of members ({', '.join(names[:4])}, ...); name those that "
            "go into the rows with --columns, or none"
        )
    _check_apart(names, taken)
    kinds = {name: pa.string() if samples.is_text(name) else pa.binary() for name in names}
    fields = [pa.field(name, kind, metadata={_MEMBER: b"1"}) for name, kind in kinds.items()]
    return Carried(pa.schema(fields), () if asked is not None else tuple(n for n in others if n not in kinds))


def members_of(carried: pa.Schema) -> list[str]:
    """Those of the carried columns that are members of a tar's samples."""
    return [field.name for field in carried if _MEMBER in (field.metadata or {})]


def schema_of(inner: Inner) -> pa.Schema:
    """The whole schema of a table. Raises RowError, StorageError."""
    if inner.kind == "list":
        return address_list.schema_of(inner.container)
    store, key = place_of(inner.container)
    file = RangeFile(store, key)
    if inner.kind == "arrow":
        return arrow_file.schema(file)
    with parquet_file.opened(file) as table:
        return table.schema_arrow


def _binary(kind: pa.DataType) -> bool:
    """Does a type hold bytes, at any depth? Then it may hold pictures."""
    if pa.types.is_dictionary(kind):
        return _binary(kind.value_type)
    if kind.num_fields:
        return any(_binary(kind.field(n).type) for n in range(kind.num_fields))
    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
        or pa.types.is_binary_view(kind)
    )


def _plain(kind: pa.DataType) -> pa.DataType:
    """A dictionary's values stand for themselves: their coding is the file's."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def packed(schema: pa.Schema) -> str:
    """A schema as text, for a run's record."""
    return base64.b64encode(schema.serialize().to_pybytes()).decode()


def unpacked(text: str | None) -> pa.Schema:
    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text))) if text else pa.schema([])


def read(
    uris: Sequence[str], versions: Sequence[str], wanted: pa.Schema, *, most: int, give_up: bool
) -> tuple[pa.Table, dict[int, CleanplateError]]:
    """The wanted columns of some rows, null where a row is of no table or sample; and number of a row -> why it has
    none.

    most: bytes of a tar's member. give_up: raise a StorageError "unreachable" instead.
    """
    groups: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    inners = [inner_of(uri) for uri in uris]
    for n, inner in enumerate(inners):
        if inner is not None and inner.kind == "list":
            groups[inner.container, inner.column].append(n)
        elif inner is not None and inner.in_table:
            groups[inner.container, inner.at, versions[n]].append(n)
        elif inner is not None and inner.first >= 0:
            groups[n,] = [n]
    failed: dict[int, CleanplateError] = {}

    def taken(numbers: list[int]) -> pa.Table | None:
        some = [inner for n in numbers if (inner := inners[n])]
        version = versions[numbers[0]]
        try:
            if some[0].kind == "list":
                whole, changed = _entries(some, wanted)
                failed.update({numbers[n]: RowError("columns", _CHANGED) for n in changed})
            elif some[0].in_table:
                whole = _taken(some[0], version, [inner.row for inner in some], wanted)
            else:
                whole = _beside(some[0], version, wanted, most)
        except CleanplateError as error:
            if give_up and isinstance(error, StorageError) and error.kind == "unreachable":
                raise
            failed.update(dict.fromkeys(numbers, error))
            return None
        return whole

    with ThreadPoolExecutor(_THREADS) as threads:
        found = list(zip(groups.values(), threads.map(taken, groups.values()), strict=True))
    pieces = [piece for _, piece in found if piece is not None]
    order = [n for numbers, piece in found if piece is not None for n in numbers]
    rest = sorted(set(range(len(uris))) - set(order))
    pieces.append(pa.table([pa.nulls(len(rest), field.type) for field in wanted], schema=wanted))
    places = {n: at for at, n in enumerate([*order, *rest])}
    return pa.concat_tables(pieces).take([places[n] for n in range(len(uris))]), failed


def _taken(inner: Inner, version: str, rows: list[int], wanted: pa.Schema) -> pa.Table:
    """Some rows of one Parquet file, or of one batch of an Arrow file, as `wanted`. Raises RowError, StorageError."""
    store, key = place_of(inner.container)
    file = RangeFile(store, key, None, version)
    try:
        if inner.kind == "arrow":
            names = [name for name in wanted.names if name in arrow_file.schema(file).names]
            whole = pa.Table.from_batches([arrow_file.read_batch(file, inner.at, names)]) if names else None
            found = None if whole is None else whole.take(rows)
        else:
            found = parquet_file.rows_of(file, [*wanted.names], rows)
    except (pa.ArrowException, OSError, KeyError, ValueError, IndexError, struct.error) as error:
        raise RowError("columns", f"{type(error).__name__}: {error}") from error
    return pa.table([_fitting(found, field, len(rows)) for field in wanted], schema=wanted)


_CHANGED = "the list was changed: this row of it has another address now"


def _entries(inners: list[Inner], wanted: pa.Schema) -> tuple[pa.Table, list[int]]:
    """Some rows of one list, as `wanted`, and the numbers of those that have another address now: null, all of them."""
    whole = inners[0]
    names, rows = ([*wanted.names], [inner.row for inner in inners])
    try:
        found, now = address_list.rows_of(whole.container, whole.column, names, rows)
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise RowError("columns", f"{type(error).__name__}: {error}") from error
    changed = [n for n, inner in enumerate(inners) if now[n] != inner.url]
    table = pa.table([_fitting(found, field, len(rows)) for field in wanted], schema=wanted)
    return table.take(
        pa.array([None if n in set(changed) else n for n in range(len(rows))], pa.int64())
    ), changed


def _beside(inner: Inner, version: str, wanted: pa.Schema, most: int) -> pa.Table:
    """What stands beside a picture in its sample, as `wanted`: one row. Raises RowError, StorageError."""
    store, key = place_of(inner.container)
    names = members_of(wanted)
    file = RangeFile(store, key, inner.end, version)
    found: dict[str, Any] = dict(samples.beside(file, inner.first, inner.at, names, most)) if names else {}
    for name in names:
        if name in found and pa.types.is_string(wanted.field(name).type):
            try:
                found[name] = found[name].decode()
            except UnicodeDecodeError as error:
                raise RowError("columns", f"member {name!r} is no text in UTF-8: {error}") from error
    return pa.table([pa.array([found.get(field.name)], field.type) for field in wanted], schema=wanted)


def _fitting(found: pa.Table | None, field: pa.Field, rows: int) -> pa.ChunkedArray:
    if found is None or field.name not in found.schema.names:
        return pa.chunked_array([pa.nulls(rows, field.type)])
    column = found[field.name]
    if column.type == field.type:
        return column
    try:
        return column.cast(field.type)
    except pa.ArrowException as error:
        raise RowError(
            "columns", f"column {field.name!r} is {column.type} here, {field.type} in the run"
        ) from error
