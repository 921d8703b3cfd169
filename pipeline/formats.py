"""What a file is, told from its bytes alone: format, declared size, number of frames, and its parts.

Nothing here decodes pixels, so it is safe on hostile input: the size that a header declares is known
before any decoder allocates for it.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline import isobmff

KINDS = (
    "empty",
    "not_an_image",
    "truncated",
    "too_large",
    "animated",
    "multipage",
    "unsupported",
    "corrupt",
    "edit_lost",
    "out_of_memory",
)
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
SUFFIXES = {
    "jpeg": ("jpg", "jpeg", "jpe", "jfif"),
    "png": ("png",),
    "gif": ("gif",),
    "webp": ("webp",),
    "bmp": ("bmp", "dib"),
    "tiff": ("tif", "tiff"),
    "avif": ("avif",),
    "heif": ("heic", "heif"),
}
"""Format -> the name suffixes that fit it, the one for new names first."""


class ImageError(Exception):
    """An image that cannot be handled: data for its row, not a fault of the program.

    kind: one of `KINDS`. The message is short and never contains bytes of the file.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind

    def __reduce__(self) -> tuple[type[ImageError], tuple[str, str]]:
        return ImageError, (self.kind, str(self))


@dataclass(frozen=True)
class Header:
    """format: lower-case name; width, height: pixels as stored; frames: pictures in the file."""

    format: str
    width: int
    height: int
    frames: int


def sniff(data: bytes) -> str | None:
    """The format by magic bytes: 'jpeg','png','gif','webp','tiff','bmp','avif','heif','jp2', or None."""
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if data.startswith(PNG_MAGIC):
        return "png"
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return "gif"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "tiff"
    # Two letters are weak evidence, so the size of a known BMP header must follow.
    if data[:2] == b"BM" and len(data) >= 18 and _u32le(data, 14) in (12, 16, 40, 52, 56, 64, 108, 124):
        return "bmp"
    if data[4:8] == b"ftyp":
        stop = min(int.from_bytes(data[:4], "big"), 256)
        brands = [data[8:12]] + [data[at : at + 4] for at in range(16, stop, 4)]
        if b"avif" in brands or b"avis" in brands:
            return "avif"
        return "heif" if brands[0][:2] in (b"he", b"mi", b"ms") else None
    if data.startswith((b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")):
        return "jp2"
    return None


def header(data: bytes) -> Header:
    """Format, declared size and frame count without decoding.

    Raises ImageError: 'empty', 'not_an_image', 'unsupported', 'truncated', 'corrupt', 'too_large'.
    TIFF gives the first page's size and the length of its page chain.
    """
    if not data:
        raise ImageError("empty", "zero bytes")
    name = sniff(data)
    if name is None:
        raise ImageError("not_an_image", "no known image format starts like this")
    reader = _READERS.get(name)
    if reader is None:
        raise ImageError("unsupported", f"{name} is recognised, but not handled")
    try:
        found = reader(data)
    except (struct.error, IndexError) as error:
        raise ImageError("truncated", f"the {name} header ends early") from error
    if found.width < 1 or found.height < 1:
        raise ImageError("corrupt", f"the {name} header declares {found.width} x {found.height} pixels")
    return found


@dataclass(frozen=True)
class Segment:
    """One JPEG marker segment.

    marker: 0xC0..0xFE. payload: what follows the length field. scan: for SOS the entropy-coded data.
    """

    marker: int
    payload: bytes
    scan: bytes = b""

    def to_bytes(self) -> bytes:
        return struct.pack(">BBH", 0xFF, self.marker, len(self.payload) + 2) + self.payload + self.scan


# In entropy-coded data FF00 is a stuffed byte, FFD0..FFD7 a restart, FFFF fill: ITU-T T.81 B.1.1.2.
_SCAN_END = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def jpeg_segments(data: bytes) -> tuple[list[Segment], bytes]:
    """Segments between SOI and EOI, and the bytes after EOI (previews, motion video).

    Without EOI the segments read until the end are returned. Raises ImageError('truncated' | 'corrupt').
    """
    out: list[Segment] = []
    at = 2
    while True:
        while at < len(data) and data[at] == 0xFF and data[at + 1 : at + 2] == b"\xff":
            at += 1
        if at + 2 > len(data):
            if out and out[-1].marker == 0xDA:
                return out, b""
            raise ImageError("truncated", "the JPEG ends before its scan")
        if data[at] != 0xFF:
            raise ImageError("corrupt", "a JPEG segment does not start with a marker")
        marker = data[at + 1]
        if marker == 0xD9:
            return out, data[at + 2 :]
        if marker in (0x01, 0x00) or 0xD0 <= marker <= 0xD8:
            at += 2  # a stray parameterless marker carries nothing
            continue
        if at + 4 > len(data):
            raise ImageError("truncated", "a JPEG segment ends early")
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        stop = at + 2 + length
        if length < 2:
            raise ImageError("corrupt", "a JPEG segment has an impossible length")
        if stop > len(data):
            raise ImageError("truncated", "a JPEG segment ends early")
        scan = b""
        payload = data[at + 4 : stop]
        if marker == 0xDA:
            found = _SCAN_END.search(data, stop)
            end = found.start() if found else len(data)
            scan = data[stop:end]
            stop = end
        out.append(Segment(marker, payload, scan))
        at = stop


def png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(type, body) of each PNG chunk up to and with IEND. Raises ImageError('truncated')."""
    at = len(PNG_MAGIC)
    while True:
        if at + 8 > len(data):
            raise ImageError("truncated", "the PNG ends before its last chunk")
        length = int.from_bytes(data[at : at + 4], "big")
        kind = data[at + 4 : at + 8]
        if at + 12 + length > len(data):
            raise ImageError("truncated", "a PNG chunk ends early")
        yield kind, data[at + 8 : at + 8 + length]
        at += 12 + length
        if kind == b"IEND":
            return


def png_chunk(kind: bytes, body: bytes) -> bytes:
    """One PNG chunk with its length and checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def webp_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(fourcc, body) of each chunk inside the RIFF container. Raises ImageError('truncated')."""
    stop = 8 + _u32le(data, 4)
    if stop > len(data):
        raise ImageError("truncated", "the WebP ends early")
    at = 12
    while at + 8 <= stop:
        length = _u32le(data, at + 4)
        if at + 8 + length > stop:
            raise ImageError("truncated", "a WebP chunk ends early")
        yield data[at : at + 4], data[at + 8 : at + 8 + length]
        at += 8 + length + (length & 1)


def gif_blocks(data: bytes) -> tuple[int, list[tuple[str, int, int]]]:
    """Where the blocks of a GIF start, and (kind, start, end) of each.

    kind: 'image', 'control' (0xF9), 'comment' (0xFE), 'text' (0x01), 'application' (0xFF), 'other', 'end'.
    """

    def skip(at: int) -> int:
        while data[at]:
            at += data[at] + 1
        return at + 1

    names = {0xF9: "control", 0xFE: "comment", 0x01: "text", 0xFF: "application"}
    at = 13 + (3 << ((data[10] & 7) + 1) if data[10] & 0x80 else 0)
    first, blocks = at, []
    try:
        while True:
            start = at
            if data[at] == 0x3B:
                blocks.append(("end", at, at + 1))
                return first, blocks
            if data[at] == 0x2C:
                flags = data[at + 9]
                at = skip(at + 11 + (3 << ((flags & 7) + 1) if flags & 0x80 else 0))
                blocks.append(("image", start, at))
            elif data[at] == 0x21:
                kind = names.get(data[at + 1], "other")
                at = skip(at + 2)
                blocks.append((kind, start, at))
            else:
                raise ImageError("corrupt", "a GIF block of unknown kind")
    except IndexError:
        return first, blocks


def _jpeg_header(data: bytes) -> Header:
    # Stops at the frame header: a cut scan is for the decoder to judge.
    at = 2
    while True:
        if data[at] != 0xFF:
            raise ImageError("corrupt", "a JPEG segment does not start with a marker")
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
        elif marker in SOF:
            if marker not in (0xC0, 0xC1, 0xC2, 0xC9, 0xCA) or data[at + 4] != 8:
                raise ImageError("unsupported", "lossless, hierarchical and 12-bit JPEG are not handled")
            height, width = struct.unpack_from(">HH", data, at + 5)
            return Header("jpeg", width, height, 1)
        elif marker in (0xD9, 0xDA):
            raise ImageError("corrupt", "the JPEG has no frame header")
        elif marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8:
            at += 2
        else:
            at += 2 + struct.unpack_from(">H", data, at + 2)[0]


def _png_header(data: bytes) -> Header:
    if len(data) < 33:
        raise ImageError("truncated", "the PNG ends inside its header")
    if data[12:16] != b"IHDR":
        raise ImageError("corrupt", "the PNG does not start with IHDR")
    width, height = struct.unpack_from(">II", data, 16)
    frames = 1
    at = len(PNG_MAGIC)
    while at + 12 <= len(data) and data[at + 4 : at + 8] not in (b"IDAT", b"IEND"):
        if data[at + 4 : at + 8] == b"acTL":
            frames = struct.unpack_from(">I", data, at + 8)[0]
        at += 12 + struct.unpack_from(">I", data, at)[0]
    return Header("png", width, height, max(1, frames))


def _gif_header(data: bytes) -> Header:
    width, height = struct.unpack_from("<HH", data, 6)
    _, blocks = gif_blocks(data)
    # A frame may be larger than the screen that the header declares.
    for kind, start, _end in blocks:
        if kind == "image":
            left, top, wide, high = struct.unpack_from("<HHHH", data, start + 1)
            width, height = max(width, left + wide), max(height, top + high)
    frames = sum(kind == "image" for kind, _, _ in blocks)
    if not frames:
        raise ImageError("truncated", "the GIF ends before its first picture")
    return Header("gif", width, height, frames)


def _webp_header(data: bytes) -> Header:
    if len(data) < 30:
        raise ImageError("truncated", "the WebP ends inside its header")
    kind = data[12:16]
    if kind == b"VP8X":
        width = 1 + int.from_bytes(data[24:27], "little")
        height = 1 + int.from_bytes(data[27:30], "little")
        return Header("webp", width, height, 2 if data[20] & 0x02 else 1)
    if kind == b"VP8L":
        bits = _u32le(data, 21)
        return Header("webp", 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF), 1)
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return Header("webp", width & 0x3FFF, height & 0x3FFF, 1)
    raise ImageError("corrupt", "the WebP starts with an unknown chunk")


def _bmp_header(data: bytes) -> Header:
    if _u32le(data, 14) == 12:
        width, height = struct.unpack_from("<HH", data, 18)
        return Header("bmp", width, height, 1)
    width, height = struct.unpack_from("<ii", data, 18)
    return Header("bmp", width, abs(height), 1)


def _tiff_header(data: bytes) -> Header:
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
    return Header("tiff", width, height, len(seen))


def _iso_header(data: bytes) -> Header:
    name = sniff(data) or ""
    try:
        width, height = isobmff.size(data, cropped=name == "heif")
        return Header(name, width, height, isobmff.frames(data))
    except isobmff.BoxError as error:
        raise ImageError("truncated" if error.cut else "corrupt", f"the {name} header: {error}") from error


def _u32le(data: bytes, at: int) -> int:
    value: int = struct.unpack_from("<I", data, at)[0]
    return value


_READERS = {
    "jpeg": _jpeg_header,
    "png": _png_header,
    "gif": _gif_header,
    "webp": _webp_header,
    "bmp": _bmp_header,
    "tiff": _tiff_header,
    "avif": _iso_header,
    "heif": _iso_header,
}
