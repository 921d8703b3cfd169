"""TIFF: take tags out of a file in place, and write a plain one.

TIFF 6.0. Pixel data is addressed by absolute offsets, so nothing is moved: the directory is closed up, and what no kept
tag or strip covers becomes zeros.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np

from cleanplate.pipeline.images.formats import exif
from cleanplate.pipeline.images.formats.base import (
    TAIL,
    Cleaned,
    Dpi,
    Edit,
    Format,
    Header,
    ImageError,
    Rows,
    Stored,
    Written,
)
from cleanplate.pipeline.images.formats.exif import Entry
from cleanplate.pipeline.images.formats.policy import Policy
from cleanplate.pipeline.images.formats.tiff_form import (
    ASSOCIATED,
    ICC,
    SUB_IFDS,
    UNASSOCIATED,
    XMP,
    form,
    numbers,
)
from cleanplate.pipeline.images.formats.tiff_read import decode_tiff, dpi_of, icc_of, used_bytes
from cleanplate.pipeline.images.formats.xmp import PACKET, marked

_EXIF_IFD, _GPS_IFD, _INTEROP_IFD, _C2PA = 0x8769, 0x8825, 0xA005, 0xCD41
_OFFSETS = {273: 279, 324: 325, 513: 514}
_PREVIEWS = frozenset([SUB_IFDS, 34377, 37724, 50341, _C2PA])
# What describes the pixels' layout and colour; needed to read them at all.
# fmt: off
_LAYOUT = frozenset((
    254, 255, 256, 257, 258, 259, 262, 263, 264, 265, 266, 273, 274, 277, 278, 279, 280, 281, 282, 283, 284,
    286, 287, 290, 291, 292, 293, 296, 301, 317, 318, 319, 320, 321, 322, 323, 324, 325, 332, 334, 336, 338,
    339, 340, 341, 347, *range(512, 522), 529, 530, 531, 532, ICC,
))
# fmt: on


def clean_tiff(data: bytes, policy: Policy) -> Cleaned:
    """A one-page TIFF without the tags that the policy forbids, and without every byte that no kept tag, strip or tile
    takes. Pixel data stays where it lies, as it is.

    Returns the file and the names of what was dropped. Raises ImageError. With 'keep' the file is nobody's: an edited
    one is written anew (`write_tiff`).
    """
    found = form(data)
    try:
        kept = _Kept(data, found.order)
        kept.take(0, 8)
        dropped = _close_up(kept, found.at, policy, _LAYOUT | exif.ALLOWED_0TH)
    except (exif.ExifError, struct.error) as error:
        raise ImageError("corrupt", "the TIFF directory cannot be read") from error
    for i, (start, size) in enumerate(found.blocks):
        kept.take(start, used_bytes(data[start : start + size], found, i))
        kept.end = max(kept.end, start + size)  # the directory says that it is that long
    out = bytes(kept.out[: kept.end])
    # What no name of a dropped tag accounts for: old values that an editor left behind, a tail.
    rest = bytearray(data)
    for start, size in kept.named:
        rest[start : start + size] = bytes(len(rest[start : start + size]))
    if rest.count(0, 0, kept.end) < kept.end:
        dropped.append("bytes that no tag covers")
    if rest.count(0, kept.end) < len(rest) - kept.end:
        dropped.append(TAIL)
    return out, dropped


class _Kept:
    """The file to be, zeros but for what was taken over.

    end: behind the last byte that was. named: (start, size) of what was taken over or has a dropped tag's name.
    """

    def __init__(self, data: bytes, order: str) -> None:
        self.data, self.order, self.out, self.end = data, order, bytearray(len(data)), 0
        self.named: list[tuple[int, int]] = []

    def take(self, start: int, size: int) -> None:
        self.put(start, self.data[start : start + size])

    def put(self, start: int, content: bytes) -> None:
        self.out[start : start + len(content)] = content
        self.end = max(self.end, start + len(content))
        self.named.append((start, len(content)))

    def drop(self, entry: Entry, cell: bytes, depth: int = 0) -> None:
        """Names an entry's value, and the directories and pictures that it points to."""
        if len(entry.value) > 4:
            self.named.append((struct.unpack_from(self.order + "I", cell, 8)[0], len(entry.value)))
        if entry.tag not in (_EXIF_IFD, _GPS_IFD, _INTEROP_IFD, SUB_IFDS) or depth > 2:
            return
        for place in numbers(self.order, entry):
            entries, _ = exif.read_ifd(self.data, place)
            self.named.append((place, 6 + 12 * len(entries)))
            values = {e.tag: numbers(self.order, e) for e in entries}
            for offsets, sizes in _OFFSETS.items():
                self.named += zip(values.get(offsets, []), values.get(sizes, []), strict=False)
            for i, below in enumerate(entries):
                self.drop(below, self.data[place + 2 + 12 * i : place + 14 + 12 * i], depth + 1)


def _close_up(kept: _Kept, at: int, policy: str, names: frozenset[int]) -> list[str]:
    # Takes over a directory's allowed entries and their values, each once; returns the names of the others.
    entries, _ = exif.read_ifd(kept.data, at)
    allowed = _LAYOUT if policy == "strip" else names
    cells: dict[int, bytes] = {}
    dropped = []
    for i, entry in enumerate(entries):
        cell = kept.data[at + 2 + 12 * i : at + 14 + 12 * i]
        if entry.tag in cells:
            continue  # a second entry of one tag is read by nobody
        if entry.tag == _EXIF_IFD and policy == "scrub":
            (below,) = struct.unpack(kept.order + "I", entry.value)
            dropped += _close_up(kept, below, policy, exif.ALLOWED_EXIF)
            cells[entry.tag] = cell
        elif entry.whole and ((entry.tag in allowed and _is_plain(entry)) or _is_mark(entry)):
            if len(entry.value) > 4:
                kept.take(struct.unpack_from(kept.order + "I", cell, 8)[0], len(entry.value))
                cells[entry.tag] = cell
            else:
                cells[entry.tag] = cell[:8] + entry.value.ljust(4, b"\0")
        else:
            dropped.append(exif.name_of(entry.tag))
            kept.drop(entry, cell)
    kept.named.append((at, 6 + 12 * len(entries)))
    kept.put(at, struct.pack(kept.order + "H", len(cells)) + b"".join(cells.values()) + bytes(4))
    return dropped


def _is_plain(entry: Entry) -> bool:
    # Tags of the pixels' layout hold numbers; a text in one of them is somebody's note.
    return entry.tag not in _LAYOUT or entry.tag in (ICC, 347) or entry.kind not in (2, 7)


def _is_mark(entry: Entry) -> bool:
    return entry.tag == XMP and entry.value == PACKET


def write_tiff(
    stored: Stored,
    mode: str,
    *,
    source: bytes | None = None,
    policy: str = "scrub",
    icc: bytes | None = None,
    dpi: Dpi | None = None,
    mark: bool = False,
) -> tuple[bytes, list[str]]:
    """A one-page, deflated, chunky TIFF of an upright array, with what tags of `source` the policy allows.

    stored: HWC uint8 or uint16 in `mode` ('L', 'LA', 'La', 'RGB', 'RGBA', 'RGBa', 'CMYK'). source: a TIFF file.
    mark: say that it was edited, in the source's XMP where that is kept and can be added to.
    Returns the file and the names of dropped tags. Raises ImageError('corrupt') for the source.
    """
    order = exif.byte_order(source) if source else "<"
    height, width, channels = stored.shape
    bits = 16 if stored.dtype == np.uint16 else 8
    pixels = stored.astype(f"{order}u{bits // 8}")
    rows = max(1, (1 << 20) // (width * channels * bits // 8))
    strips = [zlib.compress(pixels[y : y + rows].tobytes(), 6) for y in range(0, height, rows)]
    photometric = 5 if mode == "CMYK" else 2 if mode.startswith("RGB") else 1
    layout = {
        256: (4, [width]),
        257: (4, [height]),
        258: (3, [bits] * channels),
        259: (3, [8]),
        262: (3, [photometric]),
        277: (3, [channels]),
        278: (4, [rows]),
        279: (4, [len(strip) for strip in strips]),
        284: (3, [1]),
        339: (3, [1] * channels),
    }
    if mode[-1] in "aA":
        layout[338] = (3, [ASSOCIATED if mode[-1] == "a" else UNASSOCIATED])
    try:
        entries, children, dropped = _carried(source, policy) if source else ([], {}, [])
    except (exif.ExifError, struct.error) as error:
        raise ImageError("corrupt", "the TIFF directory cannot be read") from error
    present = {entry.tag for entry in entries}
    if icc and ICC not in present:
        entries.append(Entry(ICC, 7, len(icc), icc))
    if mark and (packet := marked(next((e.value for e in entries if e.tag == XMP), None))):
        entries = [e for e in entries if e.tag != XMP] + [Entry(XMP, 1, len(packet), packet)]
    if any(e.tag == XMP and exif.xmp_orientation(e.value) != 1 for e in entries):
        layout[exif.ORIENTATION] = (3, [1])  # the pixels are upright by now, whatever the XMP says
    if dpi and 282 not in present:
        ratio = [struct.pack(order + "II", round(d * 1000), 1000) for d in dpi]
        entries += [Entry(282, 5, 1, ratio[0]), Entry(283, 5, 1, ratio[1])]
        layout[296] = (3, [2])
    offsets = [0] * len(strips)
    for _ in range(2):  # the first pass measures the directories, the second knows where the strips lie
        layout[273] = (4, offsets)
        laid_out = [_entry(order, tag, kind, values) for tag, (kind, values) in layout.items()]
        head = exif.build(order, entries + laid_out, children)
        ends = np.cumsum([len(head)] + [len(strip) for strip in strips])
        offsets = [int(end) for end in ends[:-1]]
    return head + b"".join(strips), dropped


def _carried(source: bytes, policy: str) -> tuple[list[Entry], dict[int, list[Entry]], list[str]]:
    # Tags of the source that say nothing about how its pixels are laid out, as far as the policy allows.
    order = exif.byte_order(source)
    (first,) = struct.unpack_from(order + "I", source, 4)
    entries, _ = exif.read_ifd(source, first)
    carried = frozenset([271, 272, 282, 283, 296, 306, 318, 319, ICC])
    shows = frozenset([282, 283, 296, 318, 319, ICC])
    kept: list[Entry] = []
    children: dict[int, list[Entry]] = {}
    dropped: list[str] = []
    for entry in entries:
        if entry.tag in (_EXIF_IFD, _GPS_IFD):
            kids, lost = exif.child(source, order, entry, policy)
            children.update(kids)
            dropped += lost
        elif entry.whole and entry.tag in (shows if policy == "strip" else carried):
            kept.append(entry)
        elif entry.tag not in _LAYOUT:
            if (policy == "keep" and entry.whole and entry.tag not in _PREVIEWS) or _is_mark(entry):
                kept.append(entry)
            else:
                dropped.append(exif.name_of(entry.tag))
    return kept, children, dropped


def _entry(order: str, tag: int, kind: int, values: list[int]) -> Entry:
    code = {3: "H", 4: "I"}[kind]
    return Entry(tag, kind, len(values), struct.pack(f"{order}{len(values)}{code}", *values))


def _header(data: bytes) -> Header:
    if data[2:4] in (b"+\0", b"\0+"):
        raise ImageError("unsupported", "BigTIFF is not handled")
    order = "<" if data[:2] == b"II" else ">"
    at = struct.unpack_from(order + "I", data, 4)[0]
    size: dict[int, int] = {}
    seen: set[int] = set()
    while at and at not in seen:
        seen.add(at)
        count = struct.unpack_from(order + "H", data, at)[0]
        for i in range(count if len(seen) == 1 else 0):
            tag, kind = struct.unpack_from(order + "HH", data, at + 2 + 12 * i)
            if tag in (256, 257, 322, 323):
                code = {1: "B", 3: "H", 4: "I"}.get(kind, "I")
                size[tag] = struct.unpack_from(order + code, data, at + 10 + 12 * i)[0]
        at = struct.unpack_from(order + "I", data, at + 2 + 12 * count)[0]
    width, height = size.get(256, 0), size.get(257, 0)
    # A decoder holds one whole tile: a thumbnail of one gigantic tile would take gigabytes.
    if size.get(322, 0) * size.get(323, 0) > 16 * width * height + 2**20:
        raise ImageError("too_large", f"tiles of {size[322]} x {size[323]} for {width} x {height} pixels")
    return Header("tiff", width, height, len(seen), pages=True)


def _decode(data: bytes) -> Rows:
    found = form(data)
    stored, mode, held = decode_tiff(data, found)
    icc, dpi = icc_of(found), dpi_of(found)
    return Rows(stored, mode, held, icc, dpi, found.orientation, turned=True)


def _write(edit: Edit) -> Written:
    data, dropped = write_tiff(
        edit.stored, edit.mode, source=edit.source, policy=edit.policy, icc=edit.icc, mark=edit.mark
    )
    return Written(data, dropped, edit.rewritten)


FORMAT = Format(
    name="tiff",
    suffixes=("tif", "tiff"),
    starts=lambda data: data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    header=_header,
    decode=_decode,
    clean=clean_tiff,
    write=_write,
    orientation=lambda data: form(data).orientation,
    mark=lambda data: data,  # `write_tiff` has done it
    signs=True,
)
