"""The address of an image inside a container: a row of a Parquet or Arrow file, a member of a tar.

    parquet+s3://bucket/data/0001.parquet#column=image&row=12
    arrow+file:///sets/data-00000.arrow#at=1320&column=image&row=3     row 3 of the batch whose message starts at 1320
    tar+s3://bucket/shard-0001.tar#at=1536&member=cat/001.jpg&size=20480
    tar+s3://bucket/shard-0001.tar#at=1536&end=23040&first=512&member=cat/001.jpg&size=20480    in a sample with others
    list+file:///sets/urls.csv#column=url&row=7&url=https%3A//example.org/a.jpg       row 7 of a list of addresses
    tar+s3://bucket/broken.tar#                                        what could not be listed, and why it fails

The scheme's prefix, not the "#", tells these from plain objects: an S3 key may hold any character. The address
alone is enough to fetch the image: no index, no recipe.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import parse_qsl, quote, unquote_to_bytes, urlencode

Kind = Literal["parquet", "arrow", "tar", "list"]
_PIECE_BYTES, _PIECE_ROWS = 1 << 28, 4096
KINDS: tuple[Kind, ...] = ("parquet", "arrow", "tar", "list")


@dataclass(frozen=True)
class Inner:
    """kind, and the container's own uri. at, size: bytes from its start; member, column: names; -1 and "" where
    the kind has none. row: from the file's start (parquet) or its batch's (arrow). first, end: the sample's window,
    of a picture with other members beside it; no part of its identity."""

    kind: Kind
    container: str
    row: int = -1
    column: str = ""
    at: int = -1
    size: int = -1
    member: str = ""
    first: int = -1
    end: int = -1
    url: str = ""
    """Of an entry of a list: where the picture lies. It alone is the picture's identity."""

    @property
    def uri(self) -> str:
        parts = {
            "at": self.at,
            "column": self.column,
            "end": self.end,
            "first": self.first,
            "member": self.member,
            "row": self.row,
            "size": self.size,
            "url": self.url,
        }
        given = {name: value for name, value in parts.items() if value not in (-1, "")}
        return f"{self.kind}+{self.container}#" + urlencode(
            given, safe="/", quote_via=quote, errors="surrogateescape"
        )

    @property
    def in_table(self) -> bool:
        """Is it a cell of a Parquet or Arrow file?"""
        return self.row >= 0 and self.kind in ("parquet", "arrow")

    @property
    def listed(self) -> bool:
        """False for the row that stands for (the rest of) a container that could not be listed."""
        return self.row >= 0 or self.at >= 0


def inner_of(uri: str) -> Inner | None:
    """The address behind a uri; None for the uri of a plain object."""
    kind = next((kind for kind in KINDS if uri.startswith(f"{kind}+")), None)
    if kind is None:
        return None
    container, _, fragment = uri.removeprefix(f"{kind}+").rpartition("#")
    parts = dict(parse_qsl(fragment, errors="surrogateescape"))
    numbers = {name: int(parts.get(name, -1)) for name in ("row", "at", "size", "first", "end")}
    names = {name: parts.get(name, "") for name in ("column", "member", "url")}
    return Inner(kind, container, **names, **numbers)  # type: ignore[arg-type]


def identity_of(uri: str) -> str:
    """The uri without what only helps to read: a picture is the same whatever stands beside it in its tar, whatever
    list names it, and whichever commit of a data set holds it unchanged."""
    if uri.startswith("list+"):
        url = inner.url if (inner := inner_of(uri)) else ""
        return unpinned(url) if url else uri
    uri = unpinned(uri)
    helps = next((helps for kind, helps in _HELPS.items() if uri.startswith(kind)), None)
    if helps is None:
        return uri
    container, _, fragment = uri.rpartition("#")
    return f"{container}#{helps.sub('', fragment)}"


def unpinned(uri: str) -> str:
    """The uri of something in a data set of the hub without its commit; any other as it is."""
    return _PINNED.sub(r"\1", uri, count=1)


_PINNED = re.compile(r"^((?:[a-z]+\+)?hf://datasets/[^/]+/[^/@]+)@[0-9a-f]{40}(?=/|#|$)")
_NAME = re.compile(r"(?:(?<=&)|^)member=[^&]*&")
_HELPS = {"tar+": re.compile(r"(?:(?<=&)|^)(?:end|first)=\d+&"), "parquet+": _NAME, "arrow+": _NAME}
"""A sample's window; the name of one of several pictures of a table's row."""


def order_of(uri: str, image_id: str) -> str:
    """What the plan sorts rows by, hex: the id, so that units mix the source; of a container, a hash for each
    piece of it and the place there, since a reader fetches whole row groups."""
    inner = inner_of(uri)
    if inner is None:
        return image_id
    at, row = max(inner.at, 0), max(inner.row, 0)
    piece = f"{inner.container}\n{at // _PIECE_BYTES}\n{row // _PIECE_ROWS}"
    column = hashlib.sha256(inner.column.encode()).hexdigest()[:8]
    return hashlib.sha256(piece.encode()).hexdigest() + f"{at:016x}{row:016x}{column}"


def key_of(uri: str, below: str) -> str:
    """The image's key below the source whose root has the uri `below`: "a/b.jpg", "train.parquet/000012",
    "shard.tar/cat/001.jpg". Bytes of local names that are no UTF-8 come as surrogate escapes."""
    inner = inner_of(uri)
    plain = unpinned(inner.container if inner else uri)
    key = plain.removeprefix(unpinned(below)).lstrip("/")
    if plain.startswith("file://"):
        key = os.fsdecode(unquote_to_bytes(key))
    if inner is None:
        return key
    if inner.url:
        if not inner.url.startswith(("http://", "https://")):
            return key_of(inner.url, below)
        return inner.url.partition("://")[2].partition("#")[0].partition("?")[0]
    part = inner.member or "".join(f"{n:06d}" if n < 10**6 else f"{n}" for n in (inner.row,) if n >= 0)
    if inner.kind == "arrow":  # A row number is its batch's.
        part = f"{inner.at}-{part}"
    return f"{key}/{part}"
