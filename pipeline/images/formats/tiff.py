"""TIFF: take tags out of a file in place, and write a plain one.

TIFF 6.0. Pixel data is addressed by absolute offsets, so tags are removed without moving anything: their
values are overwritten with zeros and the directory is closed up.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np
import numpy.typing as npt

from cleanplate.pipeline.images.formats import exif
from cleanplate.pipeline.images.formats.base import ImageError
from cleanplate.pipeline.images.formats.exif import Entry
from cleanplate.pipeline.images.formats.xmp import PACKET, marked

_EXIF_IFD, _GPS_IFD, _SUB_IFDS, _ICC = 0x8769, 0x8825, 0x014A, 34675
_XMP = 700
_OFFSETS = {273: 279, 324: 325, 513: 514}
_C2PA = 0xCD41
_PREVIEWS = frozenset([_SUB_IFDS, 34377, 37724, 50341, _C2PA])
# What describes the pixels' layout and colour; needed to read them at all.
# fmt: off
_LAYOUT = frozenset((
    254, 255, 256, 257, 258, 259, 262, 263, 264, 265, 266, 273, 274, 277, 278, 279, 280, 281, 282, 283, 284,
    286, 287, 290, 291, 292, 293, 296, 301, 317, 318, 319, 320, 321, 322, 323, 324, 325, 332, 334, 336, 338,
    339, 340, 341, 347, *range(512, 522), 529, 530, 531, 532, _ICC,
))
# fmt: on


def clean_tiff(data: bytes, policy: str) -> tuple[bytes, list[str]]:
    """A one-page TIFF without the tags that the policy forbids; nothing is moved.

    Returns the file and the names of what was dropped. Raises ImageError('corrupt').
    """
    out = bytearray(data)
    try:
        order = exif.byte_order(data)
        (first,) = struct.unpack_from(order + "I", data, 4)
        dropped = _close_up(out, data, first, policy, _LAYOUT | exif.ALLOWED_0TH)
    except (exif.ExifError, struct.error) as error:
        raise ImageError("corrupt", "the TIFF directory cannot be read") from error
    return bytes(out), dropped


def _close_up(out: bytearray, data: bytes, at: int, policy: str, names: frozenset[int]) -> list[str]:
    # Removes forbidden entries of one directory from `out`; returns their names.
    order = exif.byte_order(data)
    entries, following = exif.read_ifd(data, at)
    allowed = _LAYOUT if policy == "strip" else names
    kept, dropped = [], []
    for i, entry in enumerate(entries):
        cell = bytes(data[at + 2 + 12 * i : at + 14 + 12 * i])
        if entry.tag == _EXIF_IFD and policy == "scrub":
            (below,) = struct.unpack(order + "I", entry.value)
            dropped += _close_up(out, data, below, policy, exif.ALLOWED_EXIF)
            kept.append(cell)
        elif (policy == "keep" and entry.tag not in _PREVIEWS) or entry.tag in allowed or _is_mark(entry):
            kept.append(cell)
        else:
            _wipe(out, data, entry, cell, 0)
            dropped.append(exif.name_of(entry.tag))
    table = struct.pack(order + "H", len(kept)) + b"".join(kept) + struct.pack(order + "I", following)
    space = 6 + 12 * len(entries)
    out[at : at + space] = table.ljust(space, b"\0")
    return dropped


def _wipe(out: bytearray, data: bytes, entry: Entry, cell: bytes, depth: int) -> None:
    # Zeros an entry's out-of-line value, and the directories and pictures that it points to.
    order = exif.byte_order(data)
    if len(entry.value) > 4:
        (start,) = struct.unpack_from(order + "I", cell, 8)
        out[start : start + len(entry.value)] = bytes(len(entry.value))
    if entry.tag not in (_EXIF_IFD, _GPS_IFD, _SUB_IFDS) or depth > 2:
        return
    for (place,) in struct.iter_unpack(order + "I", entry.value):
        entries, _ = exif.read_ifd(data, place)
        values = {e.tag: numbers(order, e) for e in entries}
        for offsets, sizes in _OFFSETS.items():
            for start, size in zip(values.get(offsets, []), values.get(sizes, []), strict=False):
                out[start : start + size] = bytes(len(out[start : start + size]))
        for i, kid in enumerate(entries):
            _wipe(out, data, kid, data[place + 2 + 12 * i : place + 14 + 12 * i], depth + 1)
        out[place : place + 6 + 12 * len(entries)] = bytes(len(out[place : place + 6 + 12 * len(entries)]))


def _is_mark(entry: Entry) -> bool:
    return entry.tag == _XMP and entry.value == PACKET


def numbers(order: str, entry: Entry) -> list[int]:
    """The values of a SHORT or LONG entry; an empty list for another type."""
    code = {3: "H", 4: "I"}.get(entry.kind) if entry.whole else None
    return list(struct.unpack(f"{order}{entry.count}{code}", entry.value)) if code else []


def write_tiff(
    stored: npt.NDArray[np.unsignedinteger],
    mode: str,
    *,
    source: bytes | None = None,
    policy: str = "scrub",
    icc: bytes | None = None,
    dpi: tuple[float, float] | None = None,
    mark: bool = False,
) -> tuple[bytes, list[str]]:
    """A one-page, deflated, chunky TIFF of an upright array, with what tags of `source` the policy allows.

    stored: HWC uint8 or uint16 in `mode` ('L', 'LA', 'RGB', 'RGBA', 'CMYK'). source: a TIFF file.
    mark: say that it was edited, in the source's XMP where that is kept and can be added to.
    Returns the file and the names of dropped tags. Raises ImageError('corrupt') for the source.
    """
    order = exif.byte_order(source) if source else "<"
    height, width, channels = stored.shape
    bits = 16 if stored.dtype == np.uint16 else 8
    pixels = stored.astype(f"{order}u{bits // 8}")
    rows = max(1, (1 << 20) // (width * channels * bits // 8))
    strips = [zlib.compress(pixels[y : y + rows].tobytes(), 6) for y in range(0, height, rows)]
    photometric = {"L": 1, "LA": 1, "RGB": 2, "RGBA": 2, "CMYK": 5}[mode]
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
    if mode in ("LA", "RGBA"):
        layout[338] = (3, [2])  # alpha is not multiplied in
    try:
        entries, children, dropped = _carried(source, policy) if source else ([], {}, [])
    except (exif.ExifError, struct.error) as error:
        raise ImageError("corrupt", "the TIFF directory cannot be read") from error
    present = {entry.tag for entry in entries}
    if icc and _ICC not in present:
        entries.append(Entry(_ICC, 7, len(icc), icc))
    if mark and (packet := marked(next((e.value for e in entries if e.tag == _XMP), None))):
        entries = [e for e in entries if e.tag != _XMP] + [Entry(_XMP, 1, len(packet), packet)]
    if dpi and 282 not in present:
        ratio = [struct.pack(order + "II", round(d * 1000), 1000) for d in dpi]
        entries += [Entry(282, 5, 1, ratio[0]), Entry(283, 5, 1, ratio[1])]
        layout[296] = (3, [2])
    offsets = [0] * len(strips)
    for _ in range(2):  # the first pass measures the directories, the second knows where the strips lie
        layout[273] = (4, offsets)
        made = [_entry(order, tag, kind, values) for tag, (kind, values) in layout.items()]
        head = exif.build(order, entries + made, children)
        ends = np.cumsum([len(head)] + [len(strip) for strip in strips])
        offsets = [int(end) for end in ends[:-1]]
    return head + b"".join(strips), dropped


def _carried(source: bytes, policy: str) -> tuple[list[Entry], dict[int, list[Entry]], list[str]]:
    # Tags of the source that say nothing about how its pixels are laid out, as far as the policy allows.
    order = exif.byte_order(source)
    (first,) = struct.unpack_from(order + "I", source, 4)
    entries, _ = exif.read_ifd(source, first)
    carried = frozenset([271, 272, 282, 283, 296, 306, 318, 319, _ICC])
    shows = frozenset([282, 283, 296, 318, 319, _ICC])
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
