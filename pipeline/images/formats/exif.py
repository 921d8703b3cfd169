"""EXIF blocks: read the orientation, and rebuild a block from an allow-list of tags.

An EXIF block is a small TIFF file: a byte order, then chains of directories of 12-byte entries
(CIPA DC-008 Exif 2.32, section 4). It is rebuilt from what is allowed rather than cut down, so bytes that
no directory points to (old thumbnails, maker notes that moved) cannot survive.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

from PIL import ExifTags

from cleanplate.pipeline.errors import CleanplateError

ORIENTATION = 0x0112
_EXIF_IFD, _GPS_IFD, _INTEROP_IFD, _SUB_IFDS = 0x8769, 0x8825, 0xA005, 0x014A
_INTEGERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i"}
_XMP_TURN = re.compile(rb'(tiff:Orientation(?:="|>))([0-9])')
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}

# Allowed: orientation, resolution, colour, camera and lens model, dates, and how the picture was taken.
# Not allowed, among others: Artist, Copyright, ImageDescription, UserComment, HostComputer, Software,
# CameraOwnerName, BodySerialNumber, LensSerialNumber, ImageUniqueID, MakerNote, GPS, XP*.
# fmt: off
ALLOWED_0TH = frozenset((
    0x010F, 0x0110, ORIENTATION, 0x011A, 0x011B, 0x0128, 0x012D, 0x0132, 0x013E, 0x013F, 0x0211, 0x0213, 0x0214,
))
ALLOWED_EXIF = frozenset((
    0x829A, 0x829D, 0x8822, 0x8827, *range(0x8830, 0x8836),  # exposure time, f-number, program, sensitivity
    0x9000, 0x9003, 0x9004, 0x9010, 0x9011, 0x9012, 0x9290, 0x9291, 0x9292,  # version, dates and zones
    0x9101, 0x9102, *range(0x9201, 0x920B), 0x9214,  # components, shutter .. focal length, subject area
    0xA000, 0xA001, 0xA002, 0xA003, 0xA500,  # Flashpix version, colour space, size, gamma
    0xA20E, 0xA20F, 0xA210, 0xA214, 0xA215, 0xA217, 0xA300, 0xA301, 0xA302,  # focal plane, source
    *range(0xA401, 0xA40B), 0xA40C, 0xA432, 0xA433, 0xA434,  # rendering .. sharpness, lens
))
# fmt: on
_ALLOWED_INTEROP = frozenset([0x0001, 0x0002])


@dataclass(frozen=True)
class Entry:
    """One directory entry: tag number, field type, count, and its value in the block's byte order.

    value is empty where the entry points outside the block.
    """

    tag: int
    kind: int
    count: int
    value: bytes

    @property
    def whole(self) -> bool:
        """Does the value lie inside the block?"""
        return len(self.value) == _SIZES.get(self.kind, 1) * self.count


class ExifError(CleanplateError, ValueError):
    """The block cannot be read as EXIF."""


def read_ifd(block: bytes, at: int) -> tuple[list[Entry], int]:
    """Entries of the directory at byte `at`, and the offset of the next one (0 = none). Raises ExifError."""
    order = byte_order(block)
    try:
        (count,) = struct.unpack_from(order + "H", block, at)
        entries = []
        for i in range(count):
            place = at + 2 + 12 * i
            tag, kind, number = struct.unpack_from(order + "HHI", block, place)
            size = _SIZES.get(kind, 1) * number
            start = place + 8 if size <= 4 else struct.unpack_from(order + "I", block, place + 8)[0]
            value = block[start : start + size] if start + size <= len(block) else b""
            entries.append(Entry(tag, kind, number, value))
        after = at + 2 + 12 * count
        # Some writers end the block before the last link.
        following = struct.unpack_from(order + "I", block, after)[0] if after + 4 <= len(block) else 0
    except struct.error as error:
        raise ExifError("a directory ends early") from error
    return entries, following


def byte_order(block: bytes) -> str:
    """'<' or '>'. Raises ExifError."""
    if block[:4] == b"II*\0":
        return "<"
    if block[:4] == b"MM\0*":
        return ">"
    raise ExifError("no byte order mark")


def orientation(block: bytes | None) -> int:
    """EXIF orientation 1..8; 1 where the block is absent, unreadable or says something else."""
    return found_orientation(block) or 1


def bare(block: bytes | None) -> bytes | None:
    """The block from its byte order mark on, without the name that some formats put before it."""
    return block[6:] if block is not None and block[:6] in (b"Exif\0\0", b"Exif\0\xff") else block


def found_orientation(block: bytes | None) -> int | None:
    """EXIF orientation 1..8 of a tag of any integer type, the first of several values, 1 for a value beyond 8; None
    where the block has no such tag or cannot be read."""
    if not block:
        return None
    try:
        order = byte_order(block)
        (first,) = struct.unpack_from(order + "I", block, 4)
        entries, _ = read_ifd(block, first)
    except (ExifError, struct.error):
        return None
    return next((_turn(order, entry) for entry in entries if entry.tag == ORIENTATION), None)


def _turn(order: str, entry: Entry) -> int:
    code = _INTEGERS.get(entry.kind)
    if code is None or entry.count < 1 or not entry.whole:
        return 1
    value: int = struct.unpack_from(order + code, entry.value)[0]
    return value if 1 <= value <= 8 else 1


def xmp_orientation(packet: bytes) -> int:
    """What an XMP packet says in tiff:Orientation, 1..8; 1 where it says nothing."""
    found = _XMP_TURN.search(packet)
    value = int(found[2]) if found else 1
    return value if 1 <= value <= 8 else 1


def reset_xmp_orientation(packet: bytes) -> bytes:
    """The packet, as long as before, with an orientation of 1 where it says one."""
    return _XMP_TURN.sub(rb"\g<1>1", packet)


def reset_orientation(block: bytes) -> bytes:
    """The same block, byte for byte, but for an orientation of 1. Raises ExifError."""
    order = byte_order(block)
    (first,) = struct.unpack_from(order + "I", block, 4)
    entries, _ = read_ifd(block, first)
    for i, entry in enumerate(entries):
        if entry.tag == ORIENTATION:  # the whole entry: its type may be another than SHORT
            at = first + 2 + 12 * i
            block = block[:at] + struct.pack(order + "HHIHH", ORIENTATION, 3, 1, 1, 0) + block[at + 12 :]
    return block


def with_orientation(block: bytes | None, value: int) -> bytes:
    """The block (None for none) with this orientation, and with everything else that can be read of it."""
    kept = rebuild(block, policy="keep", upright=True)[0] if block else None
    if kept is None:
        return only_orientation(value)
    order = byte_order(kept)
    entries, _ = read_ifd(kept, 8)
    children: dict[int, list[Entry]] = {}
    for entry in entries:
        if entry.tag in (_EXIF_IFD, _GPS_IFD):
            children.update(child(kept, order, entry, "keep")[0])
    plain = [e for e in entries if e.tag not in (_EXIF_IFD, _GPS_IFD)]
    return build(order, [*plain, Entry(ORIENTATION, 3, 1, struct.pack(order + "H", value))], children)


def only_orientation(value: int) -> bytes:
    """A block that says the orientation and nothing else."""
    return build(">", [Entry(ORIENTATION, 3, 1, struct.pack(">H", value))], {})


def rebuild(block: bytes, *, policy: str, upright: bool = False) -> tuple[bytes | None, list[str]]:
    """The block without what the policy forbids, and the names of what was dropped.

    policy: 'scrub' keeps the allow-lists above; 'strip' keeps the orientation; 'keep' keeps every tag of
    the first directory and of the Exif and GPS directories but not the thumbnail directory (a MakerNote
    keeps its bytes but may lose offsets that point outside itself).
    upright: the pixels have been turned, so the orientation tag goes. None = nothing is left.
    Of an unreadable block only the orientation is left, if that can be read.
    """
    try:
        order = byte_order(block)
        (first,) = struct.unpack_from(order + "I", block, 4)
        entries, following = read_ifd(block, first)
        dropped = ["Thumbnail"] if following else []
        kept: list[Entry] = []
        children: dict[int, list[Entry]] = {}
        for entry in entries:
            name = name_of(entry.tag)
            if entry.tag in (_EXIF_IFD, _GPS_IFD):
                kids, lost = child(block, order, entry, policy)
                dropped += lost
                children.update(kids)
            elif entry.tag == ORIENTATION:
                # Written as the standard wants it, so that every viewer turns the picture as this package does.
                if not upright and not any(e.tag == ORIENTATION for e in kept):
                    kept.append(Entry(ORIENTATION, 3, 1, struct.pack(order + "H", _turn(order, entry))))
            elif entry.tag != _SUB_IFDS and entry.whole and _allowed(entry.tag, ALLOWED_0TH, policy):
                kept.append(entry)
            else:
                dropped.append(name)
    except (ExifError, struct.error):
        turn = 1 if upright else orientation(block)
        return (only_orientation(turn) if turn != 1 else None), ["Exif (unreadable)"]
    if policy == "strip" and orientation(build(order, kept, {})) == 1:
        kept = []
    if not kept and not any(children.values()):
        return None, dropped
    return build(order, kept, children), dropped


def child(block: bytes, order: str, entry: Entry, policy: str) -> tuple[dict[int, list[Entry]], list[str]]:
    """The Exif or GPS directory that `entry` points to, reduced by policy, and the names dropped.

    Interop hangs below Exif. Keys of the answer are pointer tags, as `build` wants them. Raises ExifError.
    """
    if entry.tag == _GPS_IFD and policy != "keep":
        return {}, ["GPSInfo"]
    (at,) = struct.unpack(order + "I", entry.value)
    entries, _ = read_ifd(block, at)
    out: dict[int, list[Entry]] = {entry.tag: []}
    dropped = []
    for kid in entries:
        if entry.tag == _EXIF_IFD and kid.tag == _INTEROP_IFD:
            (below,) = struct.unpack(order + "I", kid.value)
            interop, _ = read_ifd(block, below)
            out[_INTEROP_IFD] = [e for e in interop if e.whole and _allowed(e.tag, _ALLOWED_INTEROP, policy)]
        elif kid.whole and _allowed(kid.tag, ALLOWED_EXIF, policy):
            out[entry.tag].append(kid)
        else:
            dropped.append(name_of(kid.tag))
    return {tag: found for tag, found in out.items() if found}, dropped


def _allowed(tag: int, names: frozenset[int], policy: str) -> bool:
    return policy == "keep" or (tag in names if policy == "scrub" else tag == ORIENTATION)


def name_of(tag: int) -> str:
    """What a tag is called in `metadata_dropped`."""
    return ExifTags.TAGS.get(tag, f"Exif {tag:#06x}")


def build(order: str, entries: list[Entry], children: dict[int, list[Entry]]) -> bytes:
    """A TIFF-shaped block: the first directory, then the Exif, Interop and GPS directories it points to.

    order: '<' or '>'. children: pointer tag -> entries. The same input always gives the same bytes.
    """
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    exif = list(children.get(_EXIF_IFD, []))
    interop = children.get(_INTEROP_IFD, [])
    gps = children.get(_GPS_IFD, [])
    if interop:
        exif.append(Entry(_INTEROP_IFD, 4, 1, b"\0\0\0\0"))
    first = list(entries)
    first += [Entry(tag, 4, 1, b"\0\0\0\0") for tag, kids in ((_EXIF_IFD, exif), (_GPS_IFD, gps)) if kids]
    at_exif = 8 + ifd_size(first)
    at_interop = at_exif + (ifd_size(exif) if exif else 0)
    at_gps = at_interop + (ifd_size(interop) if interop else 0)
    places = {_EXIF_IFD: at_exif, _INTEROP_IFD: at_interop, _GPS_IFD: at_gps}
    body = write_ifd(order, first, 8, places)
    for kids, at in ((exif, at_exif), (interop, at_interop), (gps, at_gps)):
        if kids:
            body += write_ifd(order, kids, at, places)
    return head + body


def ifd_size(entries: list[Entry]) -> int:
    """Bytes that `write_ifd` takes."""
    return 6 + 12 * len(entries) + sum(len(e.value) + (len(e.value) & 1) for e in entries if len(e.value) > 4)


def write_ifd(order: str, entries: list[Entry], at: int, places: dict[int, int]) -> bytes:
    """One directory with its out-of-line values behind it, to be put at byte `at`; no next directory.

    places: pointer tag -> offset to write in place of the entry's value.
    """
    table = struct.pack(order + "H", len(entries))
    values = b""
    base = at + 6 + 12 * len(entries)
    for entry in sorted(entries, key=lambda e: e.tag):
        value = struct.pack(order + "I", places[entry.tag]) if entry.tag in places else entry.value
        if len(value) > 4:
            cell = struct.pack(order + "I", base + len(values))
            values += value + b"\0" * (len(value) & 1)
        else:
            cell = value.ljust(4, b"\0")
        table += struct.pack(order + "HHI", entry.tag, entry.kind, entry.count) + cell
    return table + struct.pack(order + "I", 0) + values
