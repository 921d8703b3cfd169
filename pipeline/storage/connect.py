"""The one door to where bytes live: local folders and object stores.

`open_store(url)` gives a `Store`; both kinds have the same few verbs. Keys are relative to the root that the
url names. Foreign errors leave here as `StorageError` with no credential in the message.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

from cleanplate.pipeline.errors import ConfigError, redacted
from cleanplate.pipeline.storage import cloud, hub
from cleanplate.pipeline.storage.cloud import CloudStore
from cleanplate.pipeline.storage.local import LocalStore
from cleanplate.pipeline.storage.s3 import S3Store
from cleanplate.pipeline.storage.store import Object, Store

__all__ = ["CloudStore", "LocalStore", "Object", "S3Store", "Store", "open_store", "place_of", "read_uri"]


SCHEMES = ("s3", "gs", "az", "abfs", "abfss", "hf", "file")
_WRITE = "s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX or a local folder"


def open_store(url: str) -> Store:
    """`s3://bucket/prefix` (gs, az, abfs alike), a local path or `file://` url -> a store rooted there.

    Raises ConfigError for another scheme. Touches nothing: a missing bucket shows at the first use.
    """
    scheme = urlsplit(url).scheme if "://" in url else ""
    if found := cloud.parsed(url) or hub.parsed(url):
        return found
    if scheme and redacted(url) != url:
        raise ConfigError(
            f"{redacted(url)!r}: a location must not hold credentials: it is written to logs and rows. "
            "Use the environment, a profile or a role"
        )
    if scheme == "s3":
        parts = urlsplit(url, allow_fragments=False)
        if not parts.netloc:
            raise ConfigError(f"{url!r} names no bucket; write s3://BUCKET/PREFIX")
        prefix = url.removeprefix("s3://").removeprefix(parts.netloc).strip("/")
        return S3Store(parts.netloc, prefix)
    if scheme == "file":
        return LocalStore(Path(os.fsdecode(unquote_to_bytes(url.removeprefix("file://")))))
    if scheme:
        raise ConfigError(f"{url!r}: cannot open {scheme}://; use {_WRITE}")
    if not url:
        raise ConfigError(f"an empty location; use {_WRITE}")
    return LocalStore(Path(url))


def read_uri(uri: str, version: str = "") -> bytes:
    """The bytes behind an absolute uri as `Store.uri` writes it, of this version (see Store). Raises StorageError."""
    store, key = place_of(uri)
    return store.get(key, version)


def place_of(uri: str) -> tuple[Store, str]:
    """The store and the key behind an absolute uri as `Store.uri` writes it."""
    if uri.startswith("s3://"):
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        return _s3(bucket), key
    if uri.startswith(("gs://", "az://", "abfs://", "abfss://")):
        scheme, _, rest = uri.partition("://")
        bucket, _, key = rest.partition("/")
        return _cloud(f"{scheme}://{bucket}"), key
    if uri.startswith("hf://"):
        at = "/".join(uri.split("/", 5)[:5])
        return _hub(at), uri[len(at) + 1 :]
    path = os.fsdecode(unquote_to_bytes(uri.removeprefix("file://")))
    return LocalStore(Path(os.sep)), path.lstrip(os.sep)


@lru_cache(maxsize=64)
def _hub(root: str) -> hub.HubStore:
    store = hub.parsed(root)
    assert store is not None
    return store


@lru_cache(maxsize=64)
def _cloud(root: str) -> CloudStore:
    store = cloud.parsed(root)
    assert store is not None
    return store


@lru_cache(maxsize=64)
def _s3(bucket: str) -> S3Store:
    return S3Store(bucket, "")
