"""Tar files: list the members of one that lies in a store, and make one in memory.

POSIX ustar with pax and GNU long names, which is what WebDataset tools write. Listing reads headers only: it
jumps over members that are larger than a block.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO

from cleanplate.pipeline.errors import RowError

_BLOCK, _RECORD = 512, 20 * 512  # an end mark is padded to a record
READ_AHEAD = 4 << 20
"""Bytes fetched at a time while listing: many small members in one request, large ones jumped over."""


@dataclass(frozen=True)
class Member:
    """name as stored; at, size: its bytes, from the file's start. what: "link" or "device" where it is no file.
    header: where its first header begins."""

    name: str
    at: int
    size: int
    what: str = ""
    header: int = 0


def is_tar(head: bytes) -> bool:
    """Do the first 512 bytes of a file look like a tar's? (An empty tar is zeros.)"""
    return head[257:262] == b"ustar" or (len(head) == _BLOCK and not any(head))


def members(file: io.RawIOBase) -> Iterator[Member]:
    """Every member of a tar but its folders, in order; links, devices and sparse files, whose bytes do not lie there,
    with size 0.

    file: seekable. Raises RowError("container") at the first place that cannot be read: what came before is good.
    """
    with io.BufferedReader(file, READ_AHEAD) as buffered:
        end = buffered.seek(0, io.SEEK_END)
        buffered.seek(0)
        try:
            with tarfile.open(fileobj=buffered, mode="r:", errorlevel=2) as tar:
                for info in tar:
                    tar.members.clear()  # type: ignore[attr-defined]  # Flat in memory, however many there are.
                    if info.islnk() or info.issym() or info.isdev():
                        yield Member(
                            info.name, info.offset_data, 0, "device" if info.isdev() else "link", info.offset
                        )
                    elif info.issparse():
                        yield Member(info.name, info.offset_data, 0, header=info.offset)
                    elif info.isreg():
                        if info.offset_data + info.size > end:
                            raise RowError("container", f"the tar ends inside its member {info.name!r:.80}")
                        yield Member(info.name, info.offset_data, info.size, header=info.offset)
                _ended(buffered, tar.offset, end)
        except (tarfile.TarError, ValueError, OverflowError) as error:
            raise RowError("container", f"the tar cannot be read on: {error}") from error


def _ended(file: IO[bytes], at: int, end: int) -> None:
    """Raise unless the tar ends here: `tarfile` takes a header that it cannot read for the end, in silence."""
    if at >= end:
        raise RowError("container", "the tar has no end mark: members may be missing")
    file.seek(at)
    if any(file.read(_RECORD)):
        raise RowError("container", f"the tar cannot be read on from byte {at}")


def make(files: Iterable[tuple[str, bytes]]) -> tuple[bytes, list[Member]]:
    """A tar of (name, bytes), the same for the same files, and where each lies. A name that ustar cannot hold gets a
    pax header."""
    out, archive = io.BytesIO(), []
    for name, data in files:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        header = out.tell()
        out.write(info.tobuf(tarfile.PAX_FORMAT, errors="surrogateescape"))
        archive.append(Member(name, out.tell(), len(data), header=header))
        out.write(data + bytes(-len(data) % _BLOCK))
    out.write(bytes(2 * _BLOCK))
    return out.getvalue(), archive
