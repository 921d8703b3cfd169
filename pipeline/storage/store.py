"""What a place of bytes is: the few verbs that local folders and object stores share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from cleanplate.pipeline.errors import StorageError


@dataclass(frozen=True)
class Object:
    """One listed object. version: ETag for object stores, "size-mtime_ns" for local files. modified: when it was
    written, seconds since 1970, by its store's clock."""

    key: str
    size: int
    version: str
    modified: float | None = field(default=None, compare=False)


class Store(Protocol):
    """version: as the listing gave it; an object that is another by now is StorageError("replaced"). "": any."""

    url: str

    def reach(self) -> None: ...
    def uri(self, key: str) -> str: ...
    def list(self, prefix: str = "") -> Iterator[Object]: ...
    def get(self, key: str, version: str = "") -> bytes: ...
    def get_range(self, key: str, start: int, length: int, version: str = "") -> bytes: ...
    def stat(self, key: str) -> Object: ...
    def put(self, key: str, data: bytes) -> None: ...
    def put_new(self, key: str, data: bytes) -> bool: ...
    def delete(self, key: str) -> None: ...


def replaced(what: str, planned: str, now: str) -> StorageError:
    """The error of an object that was written again after it was listed."""
    return StorageError(
        "replaced",
        f"{what} was overwritten after it was listed (version {planned}, now {now or 'another'}); "
        "run the same command again: it takes the new version",
    )
