"""What a file declares of itself: format, size, number of frames; told from its bytes alone.

Nothing here decodes pixels, so it is safe on hostile input: the size that a header declares is known
before any decoder allocates for it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from cleanplate.pipeline.images.formats import isobmff
from cleanplate.pipeline.images.formats.base import (
    PNG_MAGIC,
    SOF,
    ImageError,
    gif_blocks,
    next_marker,
    sniff,
    u32le,
)


@dataclass(frozen=True)
class Header:
    """format: lower-case name; width, height: pixels as stored; frames: pictures in the file."""

    format: str
    width: int
    height: int
    frames: int


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


def _jpeg_header(data: bytes) -> Header:
    # Stops at the frame header: a cut scan is for the decoder to judge.
    at = 2
    while True:
        at = next_marker(data, at)
        marker = data[at]
        at += 1
        if marker in SOF:
            if marker not in (0xC0, 0xC1, 0xC2, 0xC9, 0xCA) or data[at + 2] != 8:
                raise ImageError("unsupported", "lossless, hierarchical and 12-bit JPEG are not handled")
            height, width = struct.unpack_from(">HH", data, at + 3)
            return Header("jpeg", width, height, 1)
        if marker in (0xD9, 0xDA):
            raise ImageError("corrupt", "the JPEG has no frame header")
        if marker != 0x01 and not 0xD0 <= marker <= 0xD8:
            at += struct.unpack_from(">H", data, at)[0]


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
        bits = u32le(data, 21)
        return Header("webp", 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF), 1)
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return Header("webp", width & 0x3FFF, height & 0x3FFF, 1)
    raise ImageError("corrupt", "the WebP starts with an unknown chunk")


def _bmp_header(data: bytes) -> Header:
    if u32le(data, 14) == 12:
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
