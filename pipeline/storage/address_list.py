"""Lists of addresses: one a line, or a column of a CSV, TSV or Parquet file whose other columns go along.

An address is http(s)://..., one of an object store, file://..., or a key below the list's own folder. Texts are read
whole (each worker keeps the last one); of Parquet only the row groups that are needed.
"""

from __future__ import annotations

import csv
import io
import itertools
import os
from collections.abc import Iterator, Sequence
from functools import lru_cache
from urllib.parse import quote_from_bytes

import numpy as np
import pyarrow as pa

from cleanplate.pipeline.errors import CleanplateError, ConfigError, RowError, StorageError, redacted
from cleanplate.pipeline.storage import parquet_file, web
from cleanplate.pipeline.storage.address import Inner
from cleanplate.pipeline.storage.connect import SCHEMES, place_of, read_uri
from cleanplate.pipeline.storage.range_file import RangeFile

_NAMES = ("url", "uri", "image_url", "url_image", "link", "address", "key", "path", "image")
_AT_ONCE = 64 * 1024


def entries(place: str, column: str | None) -> Iterator[tuple[Inner, bool]]:
    """Every entry of the list at this uri, and whether its address stood there before; one without an address has the
    url "". Raises ConfigError, StorageError.
    """
    schema = schema_of(place)
    name = address_column(schema, column, place)
    below, seen, row = place.rpartition("/")[0], _Seen(), 0
    for texts in _texts(place, name):
        urls = [_absolute(text, below) for text in texts]
        for url, again in zip(urls, seen.before(urls), strict=True):
            yield Inner("list", place, row=row, column=name, url=url), again and bool(url)
            row += 1


def fetch(inner: Inner, most: int | None, manners: web.Manners, version: str) -> bytes:
    """The picture at an entry's address. most: bytes. Raises RowError, StorageError."""
    most = most or 1 << 62
    if not inner.url:
        raise RowError("empty", "the entry has no address, or one with a password in it")
    if web.is_web(inner.url):
        return web.get(inner.url, most, manners, version)
    scheme = inner.url.partition("://")[0]
    if scheme not in SCHEMES:
        raise RowError("address", f"{inner.url[:200]}: cannot read {scheme}://")
    store, key = place_of(inner.url)
    if (size := store.stat(key).size) > most:
        raise RowError("too_large", f"{size} bytes; the limit is {most}")
    return read_uri(inner.url, version)


def version_of(inner: Inner, manners: web.Manners) -> tuple[int, str]:
    """(bytes, version) of what lies at an entry's address now; 0 and "" where that cannot be known."""
    if web.is_web(inner.url):
        return web.head(inner.url, manners)
    try:
        store, key = place_of(inner.url)
        found = store.stat(key)
    except CleanplateError:
        return 0, ""  # Its row will say so.
    return found.size, found.version


def address_column(schema: pa.Schema, asked: str | None, place: str) -> str:
    names: list[str] = schema.names
    usual = [name for wish in _NAMES for name in names if name.lower() == wish]
    found = [n for n in names if n == asked] if asked else usual or (names if len(names) == 1 else [])
    if not found or names.count(found[0]) > 1:
        raise ConfigError(
            f"{place}: no column {asked or 'url'!r} of addresses; there are {', '.join(names)[:200]}. "
            "--image-column names it"
        )
    return found[0]


def schema_of(place: str) -> pa.Schema:
    """Raises ConfigError, StorageError."""
    if not _is_table(place):
        return _text(place).schema
    store, key = place_of(place)
    try:
        with parquet_file.opened(RangeFile(store, key)) as table:
            return table.schema_arrow
    except RowError as error:
        raise ConfigError(f"{place}: {error}") from error


def rows_of(place: str, column: str, names: Sequence[str], rows: Sequence[int]) -> tuple[pa.Table, list[str]]:
    """Some columns of some rows, and the addresses that they have now; null and "" for a row that is not there any
    more. Raises RowError, ConfigError, StorageError."""
    there = [n for n in names if n in schema_of(place).names]
    found = _rows(place, list(dict.fromkeys([column, *there])), rows)
    below = place.rpartition("/")[0]
    return found.select(there), [
        _absolute(text, below) for text in found[column].cast(pa.string()).to_pylist()
    ]


def _rows(place: str, names: list[str], rows: Sequence[int]) -> pa.Table:
    store, key = place_of(place)
    if not _is_table(place):
        whole = _text(place)
        return whole.select(names).take([row if row < whole.num_rows else None for row in rows])
    with parquet_file.opened(RangeFile(store, key)) as table:
        count = table.metadata.num_rows
    found = parquet_file.rows_of(RangeFile(store, key), names, [row for row in rows if row < count])
    assert found is not None
    places = itertools.accumulate((row < count for row in rows), initial=0)
    return found.take(
        pa.array([n if row < count else None for n, row in zip(places, rows, strict=False)], pa.int64())
    )


def _is_table(place: str) -> bool:
    return place.lower().endswith(".parquet")


def _texts(place: str, name: str) -> Iterator[list[str | None]]:
    if not _is_table(place):
        yield _text(place)[name].to_pylist()
        return
    store, key = place_of(place)
    with parquet_file.opened(RangeFile(store, key)) as table:
        try:
            for batch in table.iter_batches(_AT_ONCE, columns=[name]):
                yield batch.column(0).cast(pa.string()).to_pylist()
        except (pa.ArrowException, OSError) as error:
            raise ConfigError(f"{place}: column {name!r} cannot be read as addresses: {error}") from error


def _text(place: str) -> pa.Table:
    store, key = place_of(place)
    return _parsed(place, store.stat(key).version)


@lru_cache(maxsize=1)
def _parsed(place: str, version: str) -> pa.Table:
    """A text as a table of strings. Raises ConfigError, StorageError."""
    store, key = place_of(place)
    try:
        text = store.get(key).decode("utf-8-sig")
    except StorageError as error:
        if error.kind != "other":
            raise
        raise ConfigError(f"{place} is no list of addresses ({error}): leave out --from-list") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{place}: the list is no text in UTF-8: {error}") from error
    delimiter = {"csv": ",", "tsv": "\t"}.get(place.lower().rpartition(".")[2])
    if delimiter is None:
        lines = [line.strip() for line in text.splitlines()]
        return pa.table({"url": pa.array([x for x in lines if x and not x.startswith("#")], pa.string())})
    try:
        records = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if row]
    except csv.Error as error:
        raise ConfigError(f"{place}: it cannot be read as a table: {error}") from error
    if not records:
        raise ConfigError(f"{place}: it is empty; its first line names its columns")
    head, *rows = records
    if wrong := next((n for n, row in enumerate(rows, 2) if len(row) != len(head)), None):
        raise ConfigError(
            f"{place}: record {wrong} has {len(rows[wrong - 2])} cells, its head has {len(head)}"
        )
    return pa.Table.from_arrays(
        [pa.array(c, pa.string()) for c in zip(*rows, strict=True)] or _none(head), names=head
    )


def _none(head: list[str]) -> list[pa.Array]:
    return [pa.array([], pa.string()) for _ in head]


def _absolute(text: str | None, below: str) -> str:
    """The address that a cell means; "" where it means none, or holds a password, which rows must not."""
    text = (text or "").strip()
    if "://" in text:
        return "" if "@" in text.partition("://")[2].partition("/")[0] and redacted(text) != text else text
    if not text:
        return ""
    local = below.startswith("file://")
    key = quote_from_bytes(os.fsencode(text), safe="/") if local else text
    return f"file://{key}" if local and key.startswith("/") else f"{below}/{key}"


class _Seen:
    """Which addresses were there before, 8 bytes each: sorted runs of hashes, merged as they grow."""

    def __init__(self) -> None:
        self.runs: list[np.ndarray] = []

    def before(self, texts: Sequence[str]) -> list[bool]:
        import hashlib

        digests = [hashlib.blake2b(t.encode("utf-8", "replace"), digest_size=8).digest() for t in texts]
        keys = np.frombuffer(b"".join(digests), np.uint64)
        fresh, first = np.unique(keys, return_index=True)
        again = np.ones(len(keys), bool)
        again[first] = False
        for run in self.runs:
            at = np.minimum(np.searchsorted(run, keys), len(run) - 1)
            again |= run[at] == keys
        run = fresh
        while self.runs and len(self.runs[-1]) <= 2 * len(run):
            run = np.union1d(self.runs.pop(), run)
        if len(run):
            self.runs.append(run)
        found: list[bool] = again.tolist()
        return found
