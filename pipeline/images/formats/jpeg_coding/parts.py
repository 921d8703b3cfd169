"""A JPEG taken apart into its segments (ITU-T T.81, annex B)."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

from cleanplate.pipeline.images.formats.base import ImageError


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


def joined(segments: list[Segment]) -> bytes:
    """The file of these segments."""
    return b"\xff\xd8" + b"".join(segment.to_bytes() for segment in segments) + b"\xff\xd9"


def is_app(marker: int) -> bool:
    """Is it an APPn or a comment, which a decoder may skip?"""
    return 0xE0 <= marker <= 0xEF or marker == 0xFE
