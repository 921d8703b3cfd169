"""Images inside Parquet files, Arrow files and tars: list them for the plan, fetch them for the read stage.

Listing reads footers and headers, never pictures (a tar of small members is read through, for want of an index).
Fetching reads the row groups, record batches and member ranges that a unit's rows lie in, each once.

A container that cannot be opened, or whose images cannot be found in its columns, is one row that fails and says
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
from functools import partial
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa

from cleanplate.models.devices import progressed
from cleanplate.pipeline.errors import CleanplateError, RowError, StorageError
from cleanplate.pipeline.storage import address_list, arrow_file, parquet_file, samples, tar_file, web
from cleanplate.pipeline.storage.address import Inner, Kind, inner_of
from cleanplate.pipeline.storage.connect import Object, Store, place_of, read_uri
from cleanplate.pipeline.storage.image_columns import Asked, NoImageColumn, image_columns, packed, unpacked
from cleanplate.pipeline.storage.other_files import is_other
from cleanplate.pipeline.storage.parquet_file import Fetched
from cleanplate.pipeline.storage.range_file import RangeFile

_SUFFIX_KINDS: dict[str, Kind] = {".parquet": "parquet", ".arrow": "arrow", ".tar": "tar", ".tgz": "tar"}
_SUFFIX_KINDS |= {".tar.gz": "tar", ".tar.zst": "tar"}  # Listed, so that they fail with a reason.
_FORMATS: dict[str, Kind] = {"parquet": "parquet", "arrow": "arrow", "webdataset": "tar"}
_COMMON = "jpg jpeg jpe jfif png gif webp bmp dib tif tiff avif heic heif jp2 jxl ppm pgm pnm"
IMAGE_SUFFIXES = frozenset(_COMMON.split())
"""Members of tars and objects beside containers with such names are rows; so are some that are not handled, to fail
with a cause."""
_SAMPLE = 1000
_THREADS = 16
_HOSTS = 3
_POLITE = web.Manners()


@dataclass
class Listing:
    """What a listing tells besides the images. left_out: suffix (of a tar's member that is no file, "link" or "device")
    -> objects and members beside them.

    known: containers whose images the plan holds already: not opened. whole: those listed to their end now.
    Both by `_mark`.
    """

    left_out: Counter[str] = field(default_factory=Counter)
    known: frozenset[str] = frozenset()
    whole: list[str] = field(default_factory=list)
    tables: bool = False
    """Are Parquet and Arrow files without a column of images left out?"""
    carried: frozenset[str] = frozenset()
    """Members beside the pictures of tars that go into the rows: they are not left out."""
    ask: web.Manners | None = None
    """How the places of a list are asked for size and version; None: not before they are read."""
    beside: Counter[str] = field(default_factory=Counter)
    """What stands beside the pictures of tars: name in the sample -> samples."""


def images_of(
    store: Store, items: Iterator[Object], form: str, column: Asked, listing: Listing
) -> Iterator[tuple[str, Object]]:
    """(uri, what the plan must know of it) of every image that the listing leads to.

    A source is taken for one of containers when the recipe says so or, with format auto, when one of its first
    1,000 objects is named and begins like one; then what is neither container nor image (README.md, state.json, a
    sample's caption) is left out and counted by its suffix. In any other source every object is a row, but for those
    that `other_files` knows to be no pictures; with format objects these too.
    """
    if form == "list":
        yield from _entries(store, column, listing)
        return
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
        # A table without pictures is an error where it is all there is, and a companion beside other kinds.
        listing.tables = (
            len({_kind(i.key) or _is_image(i.key) for i in first} - {False}) > 1 and column is None
        )
    for item in items:
        if (kind := _kind(item.key)) and kind in kinds:
            yield from _inside(store, item, kind, column, listing)
        elif not is_other(item.key) and (not kinds or (plain and _is_image(item.key))):
            yield store.uri(item.key), item
        else:
            listing.left_out[_suffix(item.key)] += 1


def _entries(store: Store, column: Asked, listing: Listing) -> Iterator[tuple[str, Object]]:
    """The entries of a list, each address once."""
    found = address_list.entries(store.uri("").rstrip("/"), column if isinstance(column, str) else None)
    threads = ThreadPoolExecutor(_THREADS) if listing.ask else None
    while some := list(itertools.islice(found, _SAMPLE)):
        listing.left_out["listed twice"] += sum(again for _, again in some)
        inners = [inner for inner, again in some if not again]
        known: list[tuple[int, str]] = [(0, "")] * len(inners)
        if threads and (manners := listing.ask):
            known = list(threads.map(partial(address_list.version_of, manners=manners), inners))
        for inner, (size, version) in zip(inners, known, strict=True):
            yield inner.uri, Object(inner.url or f"{inner.row}", size, version)
    listing.left_out = +listing.left_out
    if threads:
        threads.shutdown()


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


def is_picture(name: str) -> bool:
    """Is a member called so in its sample (`jpg`, `seg.png`) a picture, by its name?"""
    return _is_image(f"x.{name}")


def _suffix(name: str) -> str:
    path = PurePosixPath(name)
    return path.suffix.lower() or path.name


def _inside(
    store: Store, item: Object, kind: Kind, column: Asked, listing: Listing
) -> Iterator[tuple[str, Object]]:
    whole = Inner(kind, store.uri(item.key), column=packed(column))
    mark = _mark(whole.uri, item.version)
    if mark in listing.known:
        return
    try:
        for inner in _LISTERS[kind](
            whole, RangeFile(store, item.key, item.size, item.version), column, listing
        ):
            # Sizes of rows are averages of their row group: a footer knows no more.
            yield replace(inner, size=inner.size if kind == "tar" else -1).uri, replace(item, size=inner.size)
    except (RowError, StorageError) as error:
        if isinstance(error, StorageError) and error.kind == "unreachable":
            raise
        if isinstance(error, NoImageColumn) and listing.tables:
            listing.left_out[_suffix(item.key)] += 1
        else:
            yield whole.uri, item
    listing.whole.append(mark)


def _mark(uri: str, version: str) -> str:
    return hashlib.sha256(f"{uri}\n{version}".encode()).hexdigest()[:32]


def _parquet(whole: Inner, file: RangeFile, column: Asked, listing: Listing) -> Iterator[Inner]:
    with parquet_file.opened(file) as table:
        names, wrong = image_columns(table.schema_arrow, column)
        row, many = 0, len(names) > 1
        for groups in zip(*(parquet_file.sizes(table, name) for name in names), strict=True):
            count = groups[0][0]
            for at in range(row, row + count):
                for name, (_, size, _) in zip(names, groups, strict=True):
                    yield _cell(replace(whole, row=at, column=name, size=size // max(1, count)), many)
            row += count
    if wrong is not None:
        raise wrong


def _arrow(whole: Inner, file: RangeFile, column: Asked, listing: Listing) -> Iterator[Inner]:
    names, wrong = image_columns(arrow_file.schema(file), column)
    for batch in arrow_file.batches(file):
        size = batch.size // max(1, batch.rows * len(names))
        for row in range(batch.rows):
            for name in names:
                found = replace(whole, at=batch.at, row=row, column=name, size=size)
                yield _cell(found, len(names) > 1)
    if wrong is not None:
        raise wrong


def _cell(inner: Inner, many: bool) -> Inner:
    """A picture of a table: where a row has several, its column is in its name."""
    return replace(inner, member=f"{inner.row:06d}-{inner.column}") if many else inner


def _tar(whole: Inner, file: RangeFile, column: Asked, listing: Listing) -> Iterator[Inner]:
    for sample in samples.of(tar_file.members(file)):
        files = [member for member in sample if not member.what]
        pictures = [member for member in files if _is_image(member.name)]
        names = {m.at: (samples.split(m.name) or ("", ""))[1] for m in files}
        for member in sample:
            taken = pictures and names.get(member.at) in listing.carried
            if member not in pictures and not taken:
                listing.left_out[member.what or _suffix(member.name)] += 1
        if pictures and len(files) > 1:
            alone = pictures if len(pictures) == 1 else []
            listing.beside.update({names[member.at] for member in files if member not in alone})
        first, end = samples.window(files) if len(files) > 1 else (-1, -1)
        for member in pictures:
            yield replace(whole, at=member.at, size=member.size, member=member.name, first=first, end=end)


_LISTERS: dict[Kind, Callable[..., Iterator[Inner]]] = {"parquet": _parquet, "arrow": _arrow, "tar": _tar}


# --- fetching ---


def read_image(uri: str) -> bytes:
    """The bytes of one image, wherever it lies. Raises StorageError, RowError."""
    (found,) = read_images([uri])
    if isinstance(found, CleanplateError):
        raise found
    return found


def read_images(
    uris: Sequence[str],
    *,
    versions: Sequence[str] | None = None,
    most: int | None = None,
    give_up: bool = False,
    manners: web.Manners = _POLITE,
) -> list[Fetched]:
    """The bytes behind each uri, or the StorageError or RowError that reading it gave. What lies in one row group
    or record batch is fetched together.

    versions: of each uri's object or container, as listed: one that is another by now is StorageError("replaced").
    most: bytes of a picture; larger cells of tables are RowError("too_large"), before they are copied.
    give_up: raise the first StorageError "unreachable"; else a store that is away is asked for each uri, minutes
    each. manners: how hosts of the web are asked.
    """
    groups: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    inners = [inner_of(uri) for uri in uris]
    expected = versions or [""] * len(uris)
    for n, inner in enumerate(inners):
        together = inner is not None and inner.in_table
        key = (
            (inner.kind, inner.container, inner.column, inner.at, expected[n]) if inner and together else (n,)
        )
        groups[key].append(n)
    found: list[Fetched] = [b""] * len(uris)

    def fetch(numbers: list[int]) -> None:
        inner, version = inners[numbers[0]], expected[numbers[0]]
        try:
            if inner is None:
                found[numbers[0]] = read_uri(uris[numbers[0]], version)
            elif inner.kind == "list":
                found[numbers[0]] = address_list.fetch(inner, most, manners, version)
            elif inner.in_table:
                rows = [i.row for n in numbers if (i := inners[n])]
                for n, value in zip(numbers, _rows(inner, rows, version, most), strict=True):
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
    if give_up:
        _check_away(
            [(inner.url, got) for inner, got in zip(inners, found, strict=True) if inner and inner.url]
        )
    return found


def _check_away(found: list[tuple[str, Fetched]]) -> None:
    """Raise StorageError("unreachable") where no host at all answers: then it is our network, and not theirs."""
    asked = [(web.host_of(url), got) for url, got in found if web.is_web(url)]
    away = all(isinstance(got, RowError) and got.kind in web.AWAY for _, got in asked)
    if away and (count := len({host for host, _ in asked})) >= _HOSTS:
        raise StorageError("unreachable", f"none of {count} hosts can be reached: {asked[0][1]!s}")


def _member(inner: Inner, version: str) -> bytes:
    store, key = place_of(inner.container)
    if not inner.listed:  # The row of what could not be listed: list again, to say why.
        for _ in _LISTERS[inner.kind](
            inner, RangeFile(store, key, None, version), unpacked(inner.column), Listing()
        ):
            pass
        raise RowError("container", "it could not be listed when the run was planned")
    data = store.get_range(key, inner.at, inner.size, version)
    if len(data) != inner.size:
        raise RowError("container", f"{inner.member}: the tar ends inside it")
    return data


def _rows(inner: Inner, rows: list[int], version: str, most: int | None) -> list[Fetched]:
    """The cells of some rows of one Parquet file, or of one batch of an Arrow file, in the order asked for."""
    store, key = place_of(inner.container)
    file = RangeFile(store, key, None, version)
    try:
        if inner.kind == "arrow":
            batch = arrow_file.read_batch(file, inner.at, [inner.column])
            return [parquet_file.cell(batch.column(0), row, most) for row in rows]
        return parquet_file.cells(file, inner.column, rows, most)
    except (pa.ArrowException, OSError, KeyError, ValueError, IndexError, struct.error) as error:
        raise RowError("container", f"{type(error).__name__}: {error}") from error
