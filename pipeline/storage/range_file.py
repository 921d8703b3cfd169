"""A stored object as a file of which only the ranges that are asked for are fetched."""

from __future__ import annotations

import io
from typing import Any

from cleanplate.pipeline.storage.connect import Store

_TAIL = 64 * 1024
"""A Parquet reader begins with the end, three times: one request for all."""


class RangeFile(io.RawIOBase):
    """Read-only, for a Parquet reader that wants the footer and a few columns or one row group.

    size: bytes of the object, where a listing gave them; else it is asked. version: see Store.
    """

    def __init__(self, store: Store, key: str, size: int | None = None, version: str = "") -> None:
        super().__init__()
        self.store, self.key, self.at, self.version = store, key, 0, version
        self.end = store.stat(key).size if size is None else size
        self._tail: bytes | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.at, io.SEEK_END: self.end}[whence]
        return self.at

    def read(self, size: int = -1) -> bytes:
        length = self.end - self.at if size < 0 else min(size, self.end - self.at)
        if length <= 0:
            return b""
        tail = max(0, self.end - _TAIL)
        if self.at >= tail:
            if self._tail is None:
                self._tail = self.store.get_range(self.key, tail, self.end - tail, self.version)
            data = self._tail[self.at - tail : self.at - tail + length]
        else:
            data = self.store.get_range(self.key, self.at, length, self.version)
        self.at += len(data)
        return data

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)
