"""What killed writers and compactions leave behind, and its removal. Never a part or a plan that counts, or the run's
record.

a local folder   ".NAME.<hex>.tmp": bytes on their way to a name that they never got
anywhere         plan files that no index names: a driver died, or lost the race, between files and index
parts            those of units that lie in a large part now: `cleanplate compact` replaced them
compacted        large parts that no index names: of a compaction that was killed, or came second
images, shards   pictures of attempts that never became a part (layouts files and webdataset)
S3               multipart uploads that nobody completed: invisible in listings, and paid for
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from cleanplate.pipeline.errors import StorageError
from cleanplate.pipeline.ledger import compactions, ledger, plan
from cleanplate.pipeline.ledger.layouts import IMAGES, SHARDS, shard_key
from cleanplate.pipeline.storage.address import inner_of
from cleanplate.pipeline.storage.connect import LocalStore, Object, S3Store, Store

MIN_AGE_S = 600.0
"""A put takes seconds. What is younger may be a living writer's."""

_TEMPORARY = re.compile(r"(^|/)\.[^/]*\.[0-9a-f]{12}\.tmp$")
_PLAN_FILE = re.compile(r"^plan/\d{4}-[0-9a-f]{12}-\d{5}\.parquet$")


@dataclass(frozen=True)
class Orphan:
    """what: "temporary", "plan", "replaced", "compaction", "picture" or "upload". age: seconds since it was last
    written. remove: does it."""

    what: str
    key: str
    age: float
    remove: Callable[[], None]


def orphans(output: Store) -> Iterator[Orphan]:
    """Everything below the output that no run needs, of any age."""
    files = [item for item in output.list("plan") if _PLAN_FILE.match(item.key)]
    # After the listing: an index that was written in between names its files.
    named = {unit.file for g in plan.generations(output) for unit in plan.read_index(output, g)}
    for item in files:
        if item.key not in named:
            yield Orphan("plan", item.key, _age(output, item.key), _deleter(output, item.key))
    yield from _compactions(output)
    yield from _pictures(output)
    if isinstance(output, LocalStore):
        for item in output.list():
            if _TEMPORARY.search(item.key):
                yield Orphan("temporary", item.key, _age(output, item.key), _deleter(output, item.key))
    if isinstance(output, S3Store):
        yield from _uploads(output)


def sweep(
    output: Store, min_age: float = MIN_AGE_S, keep: frozenset[str] = frozenset()
) -> Iterator[tuple[Orphan, bool]]:
    """Remove what is older than min_age seconds and not of a sort in `keep`. Yields each orphan, and whether it was
    removed."""
    for orphan in orphans(output):
        old = orphan.age >= min_age and orphan.what not in keep
        if old:
            orphan.remove()
        yield orphan, old


def _compactions(output: Store) -> Iterator[Orphan]:
    """Parts that a compaction replaced, as old as its index: who began to read before it may still need them. And
    large parts of none, as old as the youngest beside them: a compaction of many parts takes its time."""
    large = {item.key: item for item in output.list(compactions.FOLDER)}
    small = list(output.list(ledger.PARTS))
    # After the listings: an index that was written in between names its parts.
    held = compactions.held(output)
    named = {place.part for place in held.values()}
    for item in small:
        place = held.get(item.key.removeprefix(f"{ledger.PARTS}/").removesuffix(".parquet"))
        if place and place.part in large and large[place.part].size == place.size:
            index = large.get(compactions.index_key(compactions.generation_of(place.part)))
            yield Orphan("replaced", item.key, min(_since(item), _since(index)), _deleter(output, item.key))
    dead = [k for k in large if k not in named and k.count("/") > 1 and not _TEMPORARY.search(k)]
    for key in dead:
        beside = [_since(item) for other, item in large.items() if _folder(other) == _folder(key)]
        yield Orphan("compaction", key, min(beside), _deleter(output, key))


def _folder(key: str) -> str:
    return key.rpartition("/")[0]


def _since(item: Object | None) -> float:
    """Seconds since a listed object was written; 0 where its store does not tell: never old enough."""
    return time.time() - item.modified if item is not None and item.modified is not None else 0.0


def _pictures(output: Store) -> Iterator[Orphan]:
    """Files and shards that no part names, of any attempt. Names are held as 16 bytes each."""
    unnamed = {_short(key) for key in _picture_keys(output)}
    if not unnamed:
        return
    # After the listing: a part that was put in between names its pictures.
    places = ledger.located(output)
    for unit in places:
        unnamed.discard(_short(shard_key(unit)))  # also one without a single picture
    for name in sorted(set(places.values())):
        for image in ledger.read_part(output, name, ["image"])["image"].to_pylist():
            if image is not None:
                inner = inner_of(image["path"])
                unnamed.discard(_short(inner.container if inner else image["path"]))
    for key in _picture_keys(output):
        if _short(key) in unnamed:
            yield Orphan("picture", key, _age(output, key), _deleter(output, key))


def _picture_keys(output: Store) -> Iterator[str]:
    """Below images/ and shards/, but for what is on its way there."""
    keys = (item.key for place in (IMAGES, SHARDS) for item in output.list(place))
    return (key for key in keys if not _TEMPORARY.search(key))


def _short(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()[:16]


def _deleter(output: Store, key: str) -> Callable[[], None]:
    return lambda: output.delete(key)


def _age(output: Store, key: str) -> float:
    try:
        return _since(output.stat(key))
    except StorageError as error:
        if error.kind == "missing":
            return 0.0
        raise


def _uploads(output: S3Store) -> Iterator[Orphan]:
    pages = output._boto.get_paginator("list_multipart_uploads").paginate(
        Bucket=output.bucket, Prefix=f"{output.prefix}/" if output.prefix else ""
    )
    for page in pages:
        for upload in page.get("Uploads", ()):
            yield Orphan(
                "upload",
                upload["Key"],
                time.time() - upload["Initiated"].timestamp(),
                _aborter(output, upload["Key"], upload["UploadId"]),
            )


def _aborter(output: S3Store, key: str, upload: str) -> Callable[[], None]:
    return lambda: output._boto.abort_multipart_upload(Bucket=output.bucket, Key=key, UploadId=upload)
