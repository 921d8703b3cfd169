"""Images inside Parquet files, Arrow files and tars: list them for the plan, fetch them for the read stage.

Listing reads footers and headers, never pictures (a tar of small members is read through, for want of an index).
Fetching reads the row groups, record batches and member ranges that a unit's rows lie in, each once.

A container that cannot be opened, or whose images cannot be told from its columns, is one row that fails and says
why; a tar that breaks off is its good members and one such row for the rest. Nothing is dropped in silence.
"""

from __future__ import annotations

import hashlib
import itertools
import struct
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cleanplate.models.devices import progressed
from cleanplate.pipeline.errors import CleanplateError, RowError, StorageError
from cleanplate.pipeline.storage import arrow_file, tar_file
from cleanplate.pipeline.storage.address import Inner, Kind, inner_of
from cleanplate.pipeline.storage.connect import Object, Store, place_of, read_uri
from cleanplate.pipeline.storage.range_file import RangeFile

_SUFFIX_KINDS: dict[str, Kind] = {".parquet": "parquet", ".arrow": "arrow", ".tar": "tar", ".tgz": "tar"}
_SUFFIX_KINDS |= {".tar.gz": "tar", ".tar.zst": "tar"}  # Listed, so that they fail with a reason.
_FORMATS: dict[str, Kind] = {"parquet": "parquet", "arrow": "arrow", "webdataset": "tar"}
_COMMON = "jpg jpeg jpe jfif png gif webp bmp dib tif tiff avif heic heif jp2 jxl ppm pgm pnm"
IMAGE_SUFFIXES = frozenset(_COMMON.split())
"""Members of tars and objects beside containers with such names are rows; so are some that are not handled, to fail
with a cause."""
_COLUMNS = ("image", "img", "jpg", "jpeg", "png", "webp", "image_bytes", "bytes", "content")
_SAMPLE = 1000
_THREADS = 16
_AT_ONCE = 32  # rows of a row group in memory at a time


@dataclass
class Listing:
    """What a listing tells besides the images. left_out: suffix -> objects and members beside them.

    known: containers whose images the plan holds already: not opened. whole: those listed to their end now.
    Both by `_mark`.
    """

    left_out: Counter[str] = field(default_factory=Counter)
    known: frozenset[str] = frozenset()
    whole: list[str] = field(default_factory=list)


def images_of(
    store: Store, items: Iterator[Object], form: str, column: str | None, told: Listing
) -> Iterator[tuple[str, Object]]:
    """(uri, what the plan must know of it) of every image that the listing leads to.

    A source is taken for one of containers when the recipe says so or, with format auto, when one of its first
    1,000 objects is named and begins like one; then what is neither container nor image (README.md, state.json, a
    sample's caption) is left out and counted by its suffix. In any other source every object is a row.
    """
    if form == "objects":
        yield from ((store.uri(item.key), item) for item in items)
        return
    kinds: tuple[Kind, ...] = ("parquet", "arrow", "tar")
    plain = True  # pictures beside the containers are rows too
    if form != "auto":
        kinds, plain = (_FORMATS[form],), False
    else:
        first = list(itertools.islice(items, _SAMPLE))
        items = itertools.chain(first, items)
        if not any(_begins_like_one(store, item) for item in first):
            kinds = ()
    for item in items:
        if (kind := _kind(item.key)) and kind in kinds:
            yield from _inside(store, item, kind, column, told)
        elif not kinds or (plain and _is_image(item.key)):
            yield store.uri(item.key), item
        else:
            told.left_out[_suffix(item.key)] += 1


def _kind(key: str) -> Kind | None:
    return next((kind for suffix, kind in _SUFFIX_KINDS.items() if key.lower().endswith(suffix)), None)


def _begins_like_one(store: Store, item: Object) -> bool:
    kind = _kind(item.key)
    if kind is None or item.size < 8:
        return False
    try:
        head = store.get_range(item.key, 0, min(512, item.size))
    except StorageError as error:
        if error.kind == "unreachable":
            raise
        return False  # Its row will say so.
    return {"parquet": head[:4] == b"PAR1", "arrow": arrow_file.begins(head), "tar": tar_file.is_tar(head)}[
        kind
    ]


def _is_image(name: str) -> bool:
    return _suffix(name).lstrip(".") in IMAGE_SUFFIXES


def _suffix(name: str) -> str:
    path = PurePosixPath(name)
    return path.suffix.lower() or path.name


def _inside(
    store: Store, item: Object, kind: Kind, column: str | None, told: Listing
) -> Iterator[tuple[str, Object]]:
    whole = Inner(kind, store.uri(item.key), column=column or "")
    mark = _mark(whole.uri, item.version)
    if mark in told.known:
        return
    try:
        for inner in _LISTERS[kind](
            whole, RangeFile(store, item.key, item.size, item.version), column, told.left_out
        ):
            # Sizes of rows are averages of their row group: a footer knows no more.
            yield replace(inner, size=inner.size if kind == "tar" else -1).uri, replace(item, size=inner.size)
    except (RowError, StorageError) as error:
        if isinstance(error, StorageError) and error.kind == "unreachable":
            raise
        yield whole.uri, item
    told.whole.append(mark)


def _mark(uri: str, version: str) -> str:
    return hashlib.sha256(f"{uri}\n{version}".encode()).hexdigest()[:32]


def _parquet(whole: Inner, file: RangeFile, column: str | None, left_out: Counter[str]) -> Iterator[Inner]:
    with _opened(file) as table:
        name, row = image_column(table.schema_arrow, column), 0
        for n in range(table.num_row_groups):
            group = table.metadata.row_group(n)
            chunks = [group.column(c) for c in range(group.num_columns)]
            size = sum(c.total_compressed_size for c in chunks if c.path_in_schema.partition(".")[0] == name)
            for at in range(row, row + group.num_rows):
                yield replace(whole, row=at, column=name, size=size // max(1, group.num_rows))
            row += group.num_rows


def _arrow(whole: Inner, file: RangeFile, column: str | None, left_out: Counter[str]) -> Iterator[Inner]:
    name = image_column(arrow_file.schema(file), column)
    for batch in arrow_file.batches(file):
        for row in range(batch.rows):
            size = batch.size // max(1, batch.rows)
            yield replace(whole, at=batch.at, row=row, column=name, size=size)


def _tar(whole: Inner, file: RangeFile, column: str | None, left_out: Counter[str]) -> Iterator[Inner]:
    for member in tar_file.members(file):
        if _is_image(member.name):
            yield replace(whole, at=member.at, size=member.size, member=member.name)
        else:
            left_out[_suffix(member.name)] += 1


_LISTERS: dict[Kind, Callable[..., Iterator[Inner]]] = {"parquet": _parquet, "arrow": _arrow, "tar": _tar}


def _opened(file: RangeFile) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file)
    except (pa.ArrowException, OSError) as error:
        raise RowError("container", f"the Parquet file cannot be opened: {error}") from error


def image_column(schema: pa.Schema, asked: str | None) -> str:
    """The column that holds encoded images: the one asked for, else the first that `datasets` calls an Image, else
    the first struct with bytes, else a binary column with a usual name, else the only binary column.

    Raises RowError("container") that names the columns there are.
    """
    names: list[str] = schema.names
    fits = [name for name in names if _holds_bytes(schema.field(name).type)]
    told = f"there are {', '.join(names)[:200]}"
    if asked is not None:
        if asked not in fits:
            raise RowError("container", f"no column {asked!r} of bytes; {told}")
        return asked
    features = (schema.metadata or {}).get(b"huggingface", b"")
    structs = [name for name in fits if pa.types.is_struct(schema.field(name).type)]
    called = [name for name in structs if f'"{name}": {{"_type": "Image"'.encode() in features]
    binary = [name for name in fits if name not in structs]
    usual = [name for name in _COLUMNS if name in binary]
    found = [*called, *structs, *usual, *(binary if len(binary) == 1 else [])]
    if not found:
        raise RowError("container", f"no column looks like images; {told}")
    return found[0]


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(f.name == "bytes" and _holds_bytes(f.type) for f in kind)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


# --- fetching ---

Fetched = bytes | CleanplateError


def read_image(uri: str) -> bytes:
    """The bytes of one image, wherever it lies. Raises StorageError, RowError."""
    (found,) = read_images([uri])
    if isinstance(found, CleanplateError):
        raise found
    return found


def read_images(
    uris: Sequence[str], *, versions: Sequence[str] | None = None, give_up: bool = False
) -> list[Fetched]:
    """The bytes behind each uri, or the StorageError or RowError that reading it gave. What lies in one row group
    or record batch is fetched together.

    versions: of each uri's object or container, as listed: one that is another by now is StorageError("replaced").
    give_up: raise the first StorageError "unreachable"; else a store that is away is asked for each uri, minutes
    each.
    """
    groups: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    inners = [inner_of(uri) for uri in uris]
    told = versions or [""] * len(uris)
    for n, inner in enumerate(inners):
        together = inner is not None and inner.row >= 0
        key = (inner.kind, inner.container, inner.column, inner.at, told[n]) if inner and together else (n,)
        groups[key].append(n)
    found: list[Fetched] = [b""] * len(uris)

    def fetch(numbers: list[int]) -> None:
        inner, version = inners[numbers[0]], told[numbers[0]]
        try:
            if inner is None:
                found[numbers[0]] = read_uri(uris[numbers[0]], version)
            elif inner.row >= 0:
                rows = [i.row for n in numbers if (i := inners[n])]
                for n, value in zip(numbers, _rows(inner, rows, version), strict=True):
                    found[n] = value
            else:
                found[numbers[0]] = _member(inner, version)
            progressed()
        except CleanplateError as error:
            if give_up and isinstance(error, StorageError) and error.kind == "unreachable":
                raise
            for n in numbers:
                found[n] = error

    threads = ThreadPoolExecutor(_THREADS)
    try:
        list(threads.map(fetch, groups.values()))
    finally:
        threads.shutdown(cancel_futures=True)
    return found


def _member(inner: Inner, version: str) -> bytes:
    store, key = place_of(inner.container)
    if not inner.listed:  # The row of what could not be listed: list again, to say why.
        for _ in _LISTERS[inner.kind](
            inner, RangeFile(store, key, None, version), inner.column or None, Counter()
        ):
            pass
        raise RowError("container", "it could not be listed when the run was planned")
    data = store.get_range(key, inner.at, inner.size, version)
    if len(data) != inner.size:
        raise RowError("container", f"{inner.member}: the tar ends inside it")
    return data


def _rows(inner: Inner, rows: list[int], version: str) -> list[Fetched]:
    """The cells of some rows of one Parquet file, or of one batch of an Arrow file, in the order asked for."""
    store, key = place_of(inner.container)
    file = RangeFile(store, key, None, version)
    try:
        if inner.kind == "arrow":
            batch = arrow_file.read_batch(file, inner.at, inner.column)
            return [_cell(batch.column(0), row) for row in rows]
        return _parquet_rows(file, inner.column, rows)
    except (pa.ArrowException, OSError, KeyError, ValueError, IndexError, struct.error) as error:
        raise RowError("container", f"{type(error).__name__}: {error}") from error


def _parquet_rows(file: RangeFile, column: str, rows: list[int]) -> list[Fetched]:
    wanted, start = set(rows), 0
    found: dict[int, Fetched] = {}
    with _opened(file) as table:
        for n in range(table.num_row_groups):
            end = start + table.metadata.row_group(n).num_rows
            if any(start <= row < end for row in wanted):
                at = start
                for batch in table.iter_batches(
                    _AT_ONCE, row_groups=[n], columns=[column], use_threads=False
                ):
                    inside = wanted.intersection(range(at, at + batch.num_rows))
                    found |= {row: _cell(batch.column(0), row - at) for row in inside}
                    at += batch.num_rows
                    if not any(at <= row < end for row in wanted):
                        break
            start = end
    return [found.get(row) or RowError("container", f"there is no row {row}") for row in rows]


def _cell(column: pa.Array, row: int) -> Fetched:
    value = column[row].as_py()
    path = None
    if isinstance(value, dict):
        value, path = value["bytes"], value.get("path")
    if value is None:
        return RowError(
            "empty", f"the cell holds no bytes, only the path {path}" if path else "the cell is null"
        )
    return bytes(value)
