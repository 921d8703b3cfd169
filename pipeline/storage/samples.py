"""Samples of a WebDataset tar: neighbouring members whose names are the same up to the first dot of the last part.

    cat/0001.jpg  cat/0001.txt  cat/0001.seg.json      key cat/0001; beside its picture stand `txt` and `seg.json`

What stands beside a picture goes into its row under that name. A name that texts usually have makes a text; every
other member is bytes. A window (first to end, bytes of the tar) is enough to read a sample: no index, no listing.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Collection, Iterable, Iterator

from cleanplate.pipeline.errors import RowError
from cleanplate.pipeline.storage.range_file import RangeFile
from cleanplate.pipeline.storage.tar_file import Member

MOST = 256
"""More neighbours of one key are no sample: frames of a film, say. Nothing is carried from beside them."""
_BLOCK, _AHEAD = 512, 64 * 1024
_NAME = re.compile(r"((?:.*/|)[^.]+)\.([^/]+)", re.DOTALL)
_WORDS = "txt text transcript caption captions prompt tags json jsonl ndjson cls cls2 class label labels index inx id"
_MORE = "count lang url license xml csv tsv yaml yml md html srt vtt"
_TEXTS = frozenset([*_WORDS.split(), *_MORE.split()])


def split(name: str) -> tuple[str, str] | None:
    """(key, name within the sample) of a member; None for one that is of no sample."""
    found = _NAME.fullmatch(name)
    return (found[1], found[2]) if found else None


def is_text(name: str) -> bool:
    """Is a member called so (`txt`, `seg.json`) a text?"""
    return name.rpartition(".")[2].lower() in _TEXTS


def of(members: Iterable[Member]) -> Iterator[list[Member]]:
    """The members of a tar by samples, in order; what is of no sample stands alone. Raises what `members` raises,
    after the samples before it."""
    held: list[Member] = []
    key = many = None
    broken: RowError | None = None
    try:
        for member in members:
            now = (split(member.name) or (None,))[0]
            if held and (now is None or now != key):
                yield held
                held = []
            key = now
            held.append(member)
            if key is not None and key == many:
                yield held
                held = []
            elif len(held) > MOST:
                yield from ([one] for one in held)
                held, many = [], key
    except RowError as error:
        broken = error
    if held:
        yield held
    if broken is not None:
        raise broken


def window(members: Iterable[Member]) -> tuple[int, int]:
    """From where to where (bytes of the tar) a sample's headers and files lie."""
    every = list(members)
    return min(m.header for m in every), max(m.at + -(-m.size // _BLOCK) * _BLOCK for m in every)


def beside(file: RangeFile, first: int, picture: int, wanted: Collection[str], most: int) -> dict[str, bytes]:
    """The wanted members of a sample, by their names in it.

    file: the tar, of which `end` is the window's end. first: the window's start. picture: where the row's own picture
    lies, which is left out. most: bytes of a member. Raises RowError("columns"), StorageError.
    """
    found: dict[str, bytes] = {}
    try:
        with io.BufferedReader(file, _AHEAD) as buffered:
            buffered.seek(first)
            with tarfile.open(fileobj=buffered, mode="r:", errorlevel=2) as tar:
                for info in tar:
                    name = (split(info.name) or (None, ""))[1]
                    if name not in wanted or info.offset_data == picture or not info.isreg():
                        continue
                    if name in found:
                        raise RowError("columns", f"the sample has two members {name!r}")
                    if info.size > most:
                        raise RowError(
                            "columns", f"member {name!r} has {info.size} bytes; the limit is {most}"
                        )
                    content = tar.extractfile(info)
                    found[name] = content.read() if content else b""
    except (tarfile.TarError, ValueError, OverflowError) as error:
        raise RowError("columns", f"the tar cannot be read beside the picture: {error}") from error
    return found
