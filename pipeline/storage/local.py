"""Local folders as a `Store`. Plain files: obstore refuses names that are not UTF-8, and stops at the first one."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO
from urllib.parse import quote_from_bytes

from cleanplate.pipeline.errors import ConfigError, StorageError
from cleanplate.pipeline.storage.store import Object, replaced


class LocalStore:
    """A folder. Keys are relative paths with "/"; bytes that are no UTF-8 travel as surrogate escapes and
    are percent-quoted in uris."""

    def __init__(self, root: Path) -> None:
        try:
            self.root = Path(os.path.abspath(root.expanduser()))
        except RuntimeError as error:
            home = root.parts[0]
            raise ConfigError(
                f"no home folder for {home} (of {root}): write the path out, or set HOME"
            ) from error
        self.url = str(self.root)

    def reach(self) -> None:
        """Nothing to ask: a folder that is not there shows at its first use, at once."""

    def uri(self, key: str) -> str:
        return "file://" + quote_from_bytes(os.fsencode(self.root / key), safe="/")

    def list(self, prefix: str = "") -> Iterator[Object]:
        """Every regular file below the root, links followed, each folder once (a loop of links ends).

        A file or folder that may not be read is listed or raised, never passed over: an unreadable *folder*
        raises StorageError, because what is in it cannot be counted.
        """
        start = self.root / prefix if prefix else self.root
        if not start.is_dir():
            if prefix:
                return
            if start.is_file():
                raise StorageError(
                    "missing",
                    f"{self.root} is a file: give its folder, and include: [{start.name}]; a list of addresses goes "
                    "with --from-list",
                )
            raise StorageError("missing", f"no such folder: {self.root}")
        yield from self._walk(start, {_identity(start)})

    def _walk(self, folder: Path, seen: set[tuple[int, int]]) -> Iterator[Object]:
        try:
            entries = sorted(os.scandir(folder), key=lambda e: e.name)
        except OSError as error:
            raise _local_error(error, folder) from error
        for entry in entries:
            if entry.is_dir():
                path = Path(entry.path)
                if (identity := _identity(path)) not in seen:
                    seen.add(identity)
                    yield from self._walk(path, seen)
            else:
                yield self._object(Path(entry.path))

    def _object(self, path: Path) -> Object:
        key = path.relative_to(self.root).as_posix()
        try:
            stat = path.stat()
        except OSError:
            # A link to nowhere: listed all the same, so that its row can say what is wrong with it.
            return Object(key, 0, _UNREADABLE)
        return Object(key, stat.st_size, _version(stat), stat.st_mtime)

    def get(self, key: str, version: str = "") -> bytes:
        try:
            path = self._inside(key)
            if not path.is_file() and path.exists():
                raise StorageError("other", f"not a regular file: {path}")
            with path.open("rb") as file:
                return self._unchanged(file, key, version, lambda: file.read())
        except OSError as error:
            raise _local_error(error, self.root / key) from error

    def get_range(self, key: str, start: int, length: int, version: str = "") -> bytes:
        def read() -> bytes:
            file.seek(start)
            return file.read(length)

        try:
            with self._inside(key).open("rb") as file:
                return self._unchanged(file, key, version, read)
        except OSError as error:
            raise _local_error(error, self.root / key) from error

    def _unchanged(self, file: IO[bytes], key: str, version: str, read: Callable[[], bytes]) -> bytes:
        """What `read` gives, where the file has this version before it and after it: a writer may come between."""
        if version in ("", _UNREADABLE):
            return read()
        self._check(file, key, version)
        data = read()
        self._check(file, key, version)
        return data

    def _check(self, file: IO[bytes], key: str, version: str) -> None:
        if (now := _version(os.fstat(file.fileno()))) != version:
            raise replaced(str(self.root / key), version, now)

    def stat(self, key: str) -> Object:
        try:
            stat = self._inside(key).stat()
            return Object(key, stat.st_size, _version(stat), stat.st_mtime)
        except OSError as error:
            raise _local_error(error, self.root / key) from error

    def put(self, key: str, data: bytes) -> None:
        """Replace whole: a reader sees the old bytes or the new ones, never half."""
        with self._written(key, data) as (temporary, path):
            try:
                os.replace(temporary, path)
            except OSError as error:
                raise _local_error(error, path) from error

    def put_new(self, key: str, data: bytes) -> bool:
        """Write `key` if it is absent; False when it exists (nothing is changed then). Atomic: a link()."""
        if self._inside(key).exists():
            return False
        with self._written(key, data) as (temporary, path):
            try:
                os.link(temporary, path)
            except FileExistsError:
                return False
            except OSError as error:
                raise _local_error(error, path) from error
        return True

    def delete(self, key: str) -> None:
        try:
            self._inside(key).unlink(missing_ok=True)
        except OSError as error:
            raise _local_error(error, self.root / key) from error

    def _written(self, key: str, data: bytes) -> _Temporary:
        return _Temporary(self._inside(key), data)

    def _inside(self, key: str) -> Path:
        """The path of a key, refused when it would leave the root: keys can come from a hostile source."""
        if "\0" in key or key.startswith("/") or ".." in key.split("/"):
            raise StorageError("forbidden", f"key leaves the output folder: {key!r}")
        try:
            os.fsencode(key)
        except UnicodeEncodeError as error:
            raise StorageError("forbidden", f"no file can be called {key!r}") from error
        return self.root / key


class _Temporary:
    """Bytes flushed to a file beside their destination; gone afterwards unless it was renamed."""

    def __init__(self, path: Path, data: bytes) -> None:
        self.path, self.data = path, data
        self.temporary = path.with_name(f".{path.name[:40]}.{secrets.token_hex(6)}.tmp")

    def __enter__(self) -> tuple[Path, Path]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.temporary.open("xb") as file:
                file.write(self.data)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            self.__exit__()
            raise _local_error(error, self.path) from error
        return self.temporary, self.path

    def __exit__(self, *_: object) -> None:
        # What cannot be removed (no folder, a full disk) is a dot-file that no listing of parts believes.
        with suppress(OSError):
            self.temporary.unlink(missing_ok=True)


_UNREADABLE = "unreadable"


def _version(stat: os.stat_result) -> str:
    return f"{stat.st_size}-{stat.st_mtime_ns}"


def _identity(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_dev, stat.st_ino


def _local_error(error: OSError, path: Path) -> StorageError:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return StorageError("missing", f"no such file: {path}")
    if isinstance(error, PermissionError):
        return StorageError("forbidden", f"no permission: {path}")
    if isinstance(error, FileExistsError):
        return StorageError("other", f"a file is where a folder must be: {path}")
    if error.errno in (errno.ENAMETOOLONG, errno.EINVAL, errno.ELOOP, errno.EISDIR):
        return StorageError("other", f"{error.strerror}: {str(path)[:200]}")
    # A full disk or a stale mount may pass: a later attempt, perhaps on another node, takes the unit again.
    return StorageError("unreachable", f"{error.strerror or error}: {path}")
