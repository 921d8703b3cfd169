"""WebP: its chunks read, cleaned and marked; written losslessly, or with loss where that is asked for."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from PIL import Image as PillowImage
from PIL import WebPImagePlugin

from cleanplate.pipeline.images.formats import exif
from cleanplate.pipeline.images.formats.base import (
    TAIL,
    Cleaned,
    Edit,
    Format,
    Header,
    ImageError,
    New,
    Rows,
    Stored,
    Target,
    Written,
    u32le,
)
from cleanplate.pipeline.images.formats.pillow import rows_of
from cleanplate.pipeline.images.formats.policy import Policy
from cleanplate.pipeline.images.formats.xmp import PACKET, marked, shows_preview

_SHOWS = frozenset([b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ICCP", b"ANIM", b"ANMF"])
_LONGEST = 16_383
"""Pixels a side: what 14 bits hold."""


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


def riff(chunks: list[tuple[bytes, bytes]]) -> bytes:
    """A WebP of these chunks."""
    body = b"WEBP"
    for kind, part in chunks:
        body += kind + struct.pack("<I", len(part)) + part + b"\0" * (len(part) & 1)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _header(data: bytes) -> Header:
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


def _decode(data: bytes) -> Rows:
    found = rows_of(data, WebPImagePlugin.WebPImageFile)
    lossy = any(kind == b"VP8 " for kind, _ in webp_chunks(data))
    return replace(found, orientation=_orientation(data), lossy=lossy)


def _exif(data: bytes) -> bytes | None:
    return exif.bare(next((body for kind, body in webp_chunks(data) if kind == b"EXIF"), None))


def _orientation(data: bytes) -> int:
    packet = next((body for kind, body in webp_chunks(data) if kind == b"XMP "), b"")
    return exif.found_orientation(_exif(data)) or exif.xmp_orientation(packet)


def _clean(data: bytes, policy: Policy) -> Cleaned:
    kept: list[tuple[bytes, bytes]] = []
    dropped: list[str] = []
    for kind, body in webp_chunks(data):
        if kind == b"EXIF":
            block, lost = exif.rebuild(body[6:] if body[:4] == b"Exif" else body, policy=policy)
            dropped += lost
            if block:
                kept.append((kind, block))
        elif (
            kind in _SHOWS
            or body == PACKET
            or (policy == "keep" and kind != b"C2PA" and not shows_preview(body))
        ):
            kept.append((kind, body))
        else:
            dropped.append(kind.decode("latin-1").strip())
    if len(data) > 8 + int.from_bytes(data[4:8], "little"):
        dropped.append(TAIL)
    present = {kind for kind, _ in kept}
    out = []
    for kind, body in kept:
        if kind == b"VP8X":
            # Extended header: bit 3 says EXIF, bit 2 XMP (WebP container specification).
            flags = (
                body[0] & ~0x0C | (0x08 if b"EXIF" in present else 0) | (0x04 if b"XMP " in present else 0)
            )
            body = bytes([flags, 0, 0, 0]) + body[4:10]
        out.append((kind, body))
    return riff(out), dropped


def _extended(chunks: list[tuple[bytes, bytes]], data: bytes) -> list[tuple[bytes, bytes]]:
    # The chunks of a file with the header that says what stands beside the picture.
    if chunks[0][0] == b"VP8X":
        return chunks
    head = _header(data)
    # In VP8L the bit behind the two 14-bit sizes says that alpha is used.
    alpha = chunks[0][0] == b"VP8L" and chunks[0][1][4] & 0x10
    size = (head.width - 1).to_bytes(3, "little") + (head.height - 1).to_bytes(3, "little")
    return [(b"VP8X", bytes([0x10 if alpha else 0, 0, 0, 0]) + size), *chunks]


def _with_exif(data: bytes, block: bytes) -> bytes:
    chunks = _extended([(kind, body) for kind, body in webp_chunks(data) if kind != b"EXIF"], data)
    chunks = [(k, bytes([b[0] | 0x08]) + b[1:] if k == b"VP8X" else b) for k, b in chunks]
    return riff([*chunks, (b"EXIF", block)])


def _mark(data: bytes) -> bytes | None:
    chunks = list(webp_chunks(data))
    packet = marked(next((body for kind, body in chunks if kind == b"XMP "), None))
    if packet is None:
        return None
    chunks = [chunk for chunk in chunks if chunk[0] != b"XMP "]
    chunks = _extended(chunks, data)
    first = chunks[0][1]
    chunks[0] = (b"VP8X", bytes([first[0] | 0x04]) + first[1:])
    chunks.append((b"XMP ", packet))
    return riff(chunks)


def _write(edit: Edit) -> Written:
    # A lossy file would change everywhere if it were written with loss again.
    note = (
        "lossy WebP written as lossless WebP, so that nothing outside the edit changes"
        if edit.lossy
        else None
    )
    block = _exif(edit.source)
    kept = exif.rebuild(block, policy=edit.policy)[0] if block else None
    cleaned, dropped = _clean(edit.source, edit.policy)
    xmp = dict(webp_chunks(cleaned)).get(b"XMP ")
    data = write_webp(edit.stored, edit.mode, icc=edit.icc, exif=kept, xmp=xmp)
    return Written(data, dropped, edit.rewritten or note)


def _convert(new: New) -> bytes:
    return write_webp(new.stored, new.mode, icc=new.icc, exif=new.exif, quality=new.quality)


def write_webp(
    stored: Stored,
    mode: str,
    *,
    icc: bytes | None,
    exif: bytes | None,
    xmp: bytes | None = None,
    quality: int = 100,
) -> bytes:
    """A WebP of an HWC uint8 array, lossless at quality 100; grey as RGB, colour under alpha 0 kept."""
    wide = np.repeat(stored[..., :1], 3, axis=2) if mode in ("L", "LA") else stored
    if mode == "LA":
        wide = np.concatenate([wide, stored[..., 1:]], axis=2)
    picture = PillowImage.fromarray(np.ascontiguousarray(wide, dtype=np.uint8))
    out = io.BytesIO()
    effort = 80 if quality == 100 else quality  # for lossless this is how hard to try, not how good
    picture.save(
        out,
        "WEBP",
        lossless=quality == 100,
        quality=effort,
        exact=True,
        icc_profile=icc or b"",
        exif=exif or b"",
        xmp=xmp or b"",
    )
    return out.getvalue()


FORMAT = Format(
    name="webp",
    suffixes=("webp",),
    starts=lambda data: data[:4] == b"RIFF" and data[8:12] == b"WEBP",
    header=_header,
    decode=_decode,
    clean=_clean,
    write=_write,
    exif=_exif,
    orientation=_orientation,
    with_exif=_with_exif,
    mark=_mark,
    signs=True,
    target=Target(_convert, longest=_LONGEST, lossless=100),
)
