"""What a file tells of people besides its pixels: where it was taken, with which device, and whose it is.

Read from EXIF, XMP and IPTC. Only that something is there is reported, never what it says.
"""

from __future__ import annotations

import re
import struct

from cleanplate.pipeline.images.formats import exif
from cleanplate.pipeline.images.formats.base import ImageError
from cleanplate.pipeline.images.formats.table import exif_block
from cleanplate.pipeline.images.formats.xmp import shows_preview

WORDS = ("gps", "serial", "owner", "thumbnail")
"""gps: a latitude or longitude. serial: of a camera body or lens. owner: artist, author, owner or copyright. thumbnail:
a small picture in the metadata, which may show what was removed."""
_EXIF_IFD, _GPS_IFD = 0x8769, 0x8825
_TAGS = {
    **dict.fromkeys((0xA431, 0xA435, 0xC62F), "serial"),
    **dict.fromkeys((0x013B, 0x8298, 0x9C9D, 0xA430), "owner"),
}
_PLACES = frozenset(
    (2, 4)
)  # GPSLatitude, GPSLongitude: some cameras write a GPS directory with a version alone.
_PACKET = re.compile(rb"<x:xmpmeta\b.*?</x:xmpmeta>", re.DOTALL)
_IN_XMP = {
    "gps": re.compile(rb"exif:GPSL(?:atitude|ongitude)\b"),
    "serial": re.compile(rb":(?:Body|Lens|Camera)?SerialNumber\b"),
    "owner": re.compile(
        rb":(?:OwnerName|CameraOwnerName|creator|Creator\w*|rights|Authors?|AuthorsPosition)\b"
    ),
}
_IPTC = b"8BIM\x04\x04"
_BY_LINES = (b"\x1c\x02\x50", b"\x1c\x02\x74")  # 2:80 By-line, 2:116 Copyright Notice


def exposed(data: bytes, name: str) -> frozenset[str]:
    """Those of WORDS that hold for a file of format `name`. A block that cannot be read tells nothing."""
    found = set(_in_exif(_block(data, name), thumbnails=name != "tiff"))
    for packet in _PACKET.findall(data):
        found |= {word for word, pattern in _IN_XMP.items() if pattern.search(packet)}
    at = data.find(_IPTC)
    if at >= 0 and any(line in data[at : at + 65536] for line in _BY_LINES):
        found.add("owner")
    if shows_preview(data):
        found.add("thumbnail")
    return frozenset(found)


def blocks(data: bytes, name: str) -> frozenset[str]:
    """Which blocks of metadata a file has: exif, xmp, iptc."""
    block = _block(data, name)
    has_exif = bool(block) and (
        name != "tiff" or any(e.tag in (_EXIF_IFD, _GPS_IFD) for e in _first(block)[0])
    )
    there = {"exif": has_exif, "xmp": b"<x:xmpmeta" in data, "iptc": _IPTC in data}
    return frozenset(word for word, is_there in there.items() if is_there)


def _block(data: bytes, name: str) -> bytes | None:
    """The EXIF block; a TIFF is one itself."""
    if name == "tiff":
        return data
    try:
        return exif_block(data, name)
    except ImageError:
        return None


def _first(block: bytes | None) -> tuple[list[exif.Entry], int]:
    """The first directory of a block, and where the next one is; nothing where it cannot be read."""
    try:
        if not block:
            return [], 0
        (first,) = struct.unpack_from(exif.byte_order(block) + "I", block, 4)
        return exif.read_ifd(block, first)
    except (exif.ExifError, struct.error):
        return [], 0


def _in_exif(block: bytes | None, thumbnails: bool) -> set[str]:
    entries, following = _first(block)
    found = {"thumbnail"} if following and thumbnails else set()
    for entry in entries:
        if entry.tag in _TAGS and entry.value.strip(b"\0 "):
            found.add(_TAGS[entry.tag])
        if entry.tag in (_EXIF_IFD, _GPS_IFD) and block:
            found |= _below(block, entry)
    return found


def _below(block: bytes, pointer: exif.Entry) -> set[str]:
    """What the Exif or the GPS directory tells."""
    try:
        (at,) = struct.unpack(exif.byte_order(block) + "I", pointer.value)
        entries, _ = exif.read_ifd(block, at)
    except (exif.ExifError, struct.error):
        return set()
    if pointer.tag == _GPS_IFD:
        return {"gps"} if any(entry.tag in _PLACES for entry in entries) else set()
    return {_TAGS[entry.tag] for entry in entries if entry.tag in _TAGS and entry.value.strip(b"\0 ")}
