"""HEIC and AVIF containers taken apart: boxes (ISO/IEC 14496-12) and image items (ISO/IEC 23008-12)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from cleanplate.pipeline.errors import CleanplateError

CODED = frozenset(
    [b"hvc1", b"hev1", b"lhv1", b"av01", b"grid", b"iovl", b"iden", b"tmap", b"avc1", b"jpeg", b"j2k1"]
)
"""Kinds of items that are pictures."""


TOP = frozenset([b"ftyp", b"meta", b"mdat", b"moov", b"free", b"skip", b"uuid", b"idat", b"moof", b"mfra"])
"""Kinds of boxes at the top of a file."""


class BoxError(CleanplateError, ValueError):
    """The boxes cannot be read. cut: because the file ends early."""

    def __init__(self, message: str, cut: bool = False) -> None:
        super().__init__(message)
        self.cut = cut


@dataclass(frozen=True)
class Box:
    """kind: four letters. start..end: of the whole box; body: where its content starts."""

    kind: bytes
    start: int
    body: int
    end: int


@dataclass
class Item:
    """kind: four letters; at: of that kind in the file; content: MIME type. extents: (start, size) in the file."""

    kind: bytes
    at: int
    hidden: bool
    content: bytes = b""
    extents: list[tuple[int, int]] = field(default_factory=list)


@dataclass
class Pictures:
    """primary: number of the item to show. refs: (kind, at, from, to). properties: of an item, as boxes."""

    primary: int
    items: dict[int, Item]
    refs: list[tuple[bytes, int, int, list[int]]]
    properties: dict[int, list[Box]]
    sequence: bool


def boxes(data: bytes, start: int, end: int) -> Iterator[Box]:
    """The boxes side by side in a range. Raises BoxError."""
    while start < end:
        if start + 8 > end:
            raise BoxError("a box ends early", True)
        size, body = struct.unpack_from(">I", data, start)[0], start + 8
        if size == 1:
            size, body = struct.unpack_from(">Q", data, body)[0], start + 16
        size = size or end - start
        if size < body - start or start + size > end:
            raise BoxError("a box of impossible size", size > end - start)
        yield Box(data[start + 4 : start + 8], start, body, start + size)
        start += size


def ending(data: bytes) -> int:
    """Where the file's boxes end and a tail begins that is none; len(data) where there is no tail.

    A box of a known kind that reaches over the end is a cut file, not a tail.
    """
    start = 0
    seen: set[bytes] = set()
    while start + 8 <= len(data):
        kind = data[start + 4 : start + 8]
        try:
            box = next(boxes(data, start, len(data)))
        except (BoxError, struct.error):
            return len(data) if kind in TOP or not {b"ftyp", b"meta"} <= seen else start
        if not all(32 <= letter < 127 for letter in kind) and {b"ftyp", b"meta"} <= seen:
            return start
        seen.add(kind)
        start = box.end
    return start if {b"ftyp", b"meta"} <= seen else len(data)


def pictures(data: bytes) -> Pictures:
    """What the file's meta box says. Raises BoxError."""
    try:
        return _pictures(data)
    except BoxError:
        raise
    except (struct.error, IndexError, KeyError, ValueError) as error:
        raise BoxError("the meta box cannot be read") from error


def _pictures(data: bytes) -> Pictures:
    top = list(boxes(data, 0, ending(data)))
    meta = next((box for box in top if box.kind == b"meta"), None)
    if meta is None:
        raise BoxError("no meta box", True)
    inner = {box.kind: box for box in boxes(data, meta.body + 4, meta.end)}
    items = _items(data, inner[b"iinf"])
    idat = inner[b"idat"].body if b"idat" in inner else 0
    for number, extents in _locations(data, inner[b"iloc"], idat):
        if number in items:
            items[number].extents = extents
    pitm = inner[b"pitm"]
    primary = struct.unpack_from(">I" if data[pitm.body] else ">H", data, pitm.body + 4)[0]
    refs = list(_references(data, inner[b"iref"])) if b"iref" in inner else []
    sequence = any(box.kind == b"moov" for box in top)
    return Pictures(primary, items, refs, _properties(data, inner[b"iprp"]), sequence)


def _items(data: bytes, box: Box) -> dict[int, Item]:
    found = {}
    for entry in boxes(data, box.body + (6 if data[box.body] == 0 else 8), box.end):
        version, flags = data[entry.body], data[entry.body + 3]
        if entry.kind != b"infe" or version < 2:
            raise BoxError("an item of an unknown form")
        number, at = (
            struct.unpack_from(">H" if version == 2 else ">I", data, entry.body + 4)[0],
            entry.body + 8,
        )
        at += 2 if version == 3 else 0
        content = data[data.index(b"\0", at + 4) + 1 : entry.end].partition(b"\0")[0]
        found[number] = Item(data[at : at + 4], at, bool(flags & 1), content)
    return found


def _locations(data: bytes, box: Box, idat: int) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    version, at = data[box.body], box.body + 6
    sizes = struct.unpack_from(">H", data, box.body + 4)[0]
    offset_size, length_size, base_size, index_size = (sizes >> shift & 15 for shift in (12, 8, 4, 0))

    def number(size: int) -> int:
        nonlocal at
        at += size
        if at > box.end:
            raise BoxError("the locations of the items end early")
        return int.from_bytes(data[at - size : at], "big")

    wide = 4 if version == 2 else 2
    for _ in range(number(wide)):
        item = number(wide)
        method = number(2) & 15 if version else 0
        number(2)
        base, extents, count = number(base_size), [], number(2)
        if count > 1 and not offset_size + length_size:
            raise BoxError("items of many pieces that are all the same")
        for _ in range(count):
            number(index_size if version else 0)
            start, length = base + number(offset_size), number(length_size)
            start += idat if method == 1 else 0
            if method > 1 or start + length > len(data):
                raise BoxError("an item lies outside the file")
            extents.append((start, length or len(data) - start))
        yield item, extents


def _references(data: bytes, box: Box) -> Iterator[tuple[bytes, int, int, list[int]]]:
    code, wide = (">H", 2) if data[box.body] == 0 else (">I", 4)
    for ref in boxes(data, box.body + 4, box.end):
        source, count = (
            struct.unpack_from(code, data, ref.body)[0],
            struct.unpack_from(">H", data, ref.body + wide)[0],
        )
        targets = [struct.unpack_from(code, data, ref.body + wide + 2 + wide * n)[0] for n in range(count)]
        yield ref.kind, ref.start + 4, source, targets


def _properties(data: bytes, box: Box) -> dict[int, list[Box]]:
    known: list[Box] = []
    found: dict[int, list[Box]] = {}
    for inner in boxes(data, box.body, box.end):
        if inner.kind == b"ipco":
            known = list(boxes(data, inner.body, inner.end))
        if inner.kind != b"ipma":
            continue
        version, flags, at = data[inner.body], data[inner.body + 3], inner.body + 8
        for _ in range(struct.unpack_from(">I", data, inner.body + 4)[0]):
            item = struct.unpack_from(">I" if version else ">H", data, at)[0]
            at += 4 if version else 2
            count, at = data[at], at + 1
            for _ in range(count):
                index = struct.unpack_from(">H", data, at)[0] & 0x7FFF if flags & 1 else data[at] & 0x7F
                at += 2 if flags & 1 else 1
                if index:
                    found.setdefault(item, []).append(known[index - 1])
    return found


def size(data: bytes, cropped: bool) -> tuple[int, int]:
    """Declared width and height as the picture stands upright. cropped: by its clean aperture, which decoders of
    HEIC obey and those of AVIF leave to the viewer. Raises BoxError."""
    found = pictures(data)
    mine = {box.kind: box for box in found.properties.get(found.primary, [])}
    if b"ispe" not in mine:
        raise BoxError("the picture declares no size")
    width, height = struct.unpack_from(">II", data, mine[b"ispe"].body + 4)
    if cropped and b"clap" in mine:
        clap = struct.unpack_from(">4I", data, mine[b"clap"].body)
        if clap[1] and clap[3]:
            width, height = min(width, clap[0] // clap[1]), min(height, clap[2] // clap[3])
    turned = b"irot" in mine and data[mine[b"irot"].body] & 1
    return (height, width) if turned else (width, height)


def frames(data: bytes) -> int:
    """Pictures that a viewer shows one beside or after the other: 2 for any sequence."""
    found = pictures(data)
    below = {t for kind, _, _, targets in found.refs if kind == b"dimg" for t in targets}
    below |= {source for kind, _, source, _ in found.refs if kind in (b"thmb", b"auxl")}
    shown = [n for n, i in found.items.items() if i.kind in CODED and not i.hidden and n not in below]
    return 2 if found.sequence else max(1, len(shown))


def bits(data: bytes) -> int:
    """Bits per channel of the picture, 8 where nothing tells."""
    found = pictures(data)
    mine = {box.kind: box for box in found.properties.get(found.primary, [])}
    tiles = [
        t for kind, _, source, to in found.refs if kind == b"dimg" and source == found.primary for t in to
    ]
    if b"pixi" not in mine and tiles:
        mine |= {box.kind: box for box in found.properties.get(tiles[0], [])}
    if b"pixi" in mine:
        return max(data[mine[b"pixi"].body + 5 : mine[b"pixi"].end], default=8)
    if b"av1C" in mine:
        flags = data[mine[b"av1C"].body + 2]
        return 12 if flags & 0x20 else 10 if flags & 0x40 else 8
    if b"hvcC" in mine:
        return 8 + (data[mine[b"hvcC"].body + 17] & 7)
    return 8


def exif_item(data: bytes) -> bytes | None:
    """The EXIF block, from its byte order mark on; None where there is none."""
    item = next((i for i in pictures(data).items.values() if i.kind == b"Exif"), None)
    if item is None:
        return None
    body = content(data, item)
    return body[4 + int.from_bytes(body[:4], "big") :] or None


def content(data: bytes, item: Item) -> bytes:
    return b"".join(data[start : start + size] for start, size in item.extents)
