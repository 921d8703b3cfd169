"""GIF: read and cleaned. Its palette cannot hold new colours, so an edited one becomes PNG."""

from __future__ import annotations

import struct

from PIL import GifImagePlugin

from cleanplate.pipeline.images.formats.base import TAIL, Cleaned, Format, Header, ImageError
from cleanplate.pipeline.images.formats.pillow import rows_of
from cleanplate.pipeline.images.formats.policy import Policy
from cleanplate.pipeline.images.formats.xmp import shows_preview


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


def _header(data: bytes) -> Header:
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


def _clean(data: bytes, policy: Policy) -> Cleaned:
    first, blocks = gif_blocks(data)
    out, dropped = [data[:first]], []
    for kind, start, end in blocks:
        body = data[start:end]
        profile = kind == "application" and body[3:14] == b"ICCRGBG1012"
        if kind == "control":
            out.append(body[:7] + b"\0")  # its one sub-block of four bytes; who adds more says something else
            if len(body) > 8:
                dropped.append("GIF control, more than four bytes")
        elif kind in ("image", "end") or profile or (policy == "keep" and not shows_preview(body)):
            out.append(body)
        else:
            dropped.append(f"GIF {kind}")
    if blocks and blocks[-1][0] == "end" and blocks[-1][2] < len(data):
        dropped.append(TAIL)
    return b"".join(out), dropped


FORMAT = Format(
    name="gif",
    suffixes=("gif",),
    starts=lambda data: data[:6] in (b"GIF87a", b"GIF89a"),
    header=_header,
    decode=lambda data: rows_of(data, GifImagePlugin.GifImageFile),
    clean=_clean,
    as_png="GIF cannot hold the new colours: written as PNG {mode}",
)
