"""What a file is, told from its first bytes, and the parts that it is made of. Nothing here decodes pixels."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from cleanplate.pipeline.errors import RowError

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
    "format_limit",
    "out_of_memory",
)
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"


class ImageError(RowError):
    """An image that cannot be handled: data for its row, not a fault of the program.

    kind: one of `KINDS`. The message is short and never contains bytes of the file.
    """


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
    if data[:2] == b"BM" and len(data) >= 18 and u32le(data, 14) in (12, 16, 40, 52, 56, 64, 108, 124):
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

    Bytes between segments that are no marker are skipped, as libjpeg does. Without EOI the segments read until the
    end are returned (`jpeg_ends`). Raises ImageError('truncated' | 'corrupt').
    """
    segments, tail = _jpeg_parts(data)
    return segments, tail or b""


def jpeg_ends(data: bytes) -> bool:
    """Does the JPEG have its end marker? Raises ImageError as `jpeg_segments`."""
    return _jpeg_parts(data)[1] is not None


def next_marker(data: bytes, at: int) -> int:
    """Where the next JPEG marker's code lies, behind its FF; len(data) where there is none (libjpeg, next_marker)."""
    while True:
        at = data.find(b"\xff", at)
        if at < 0:
            return len(data)
        while at < len(data) and data[at] == 0xFF:  # any number of fill bytes
            at += 1
        if at == len(data) or data[at]:
            return at


def _jpeg_parts(data: bytes) -> tuple[list[Segment], bytes | None]:
    # Segments, and what follows EOI; None where there is no EOI.
    out: list[Segment] = []
    at = 2
    while True:
        at = next_marker(data, at)
        if at >= len(data):
            if any(segment.marker == 0xDA for segment in out):
                return out, None
            raise ImageError("truncated", "the JPEG ends before its scan")
        marker = data[at]
        at += 1
        if marker == 0xD9:
            return out, data[at:]
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:
            continue  # a stray parameterless marker carries nothing
        if at + 2 > len(data):
            raise ImageError("truncated", "a JPEG segment ends early")
        length = int.from_bytes(data[at : at + 2], "big")
        stop = at + length
        if length < 2:
            raise ImageError("corrupt", "a JPEG segment has an impossible length")
        if stop > len(data):
            raise ImageError("truncated", "a JPEG segment ends early")
        scan = b""
        payload = data[at + 2 : stop]
        if marker == 0xDA:
            found = _SCAN_END.search(data, stop)
            end = found.start() if found else len(data)
            scan = data[stop:end] if found else data[stop:end].rstrip(b"\xff")  # the half of a marker
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
    stop = 8 + u32le(data, 4)
    if stop > len(data):
        raise ImageError("truncated", "the WebP ends early")
    at = 12
    while at + 8 <= stop:
        length = u32le(data, at + 4)
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


def u32le(data: bytes, at: int) -> int:
    """The unsigned 32-bit little-endian number at `at`."""
    value: int = struct.unpack_from("<I", data, at)[0]
    return value
