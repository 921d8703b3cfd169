"""JPEG: its segments read, cleaned and marked; its blocks are the work of `jpeg_coding`."""

from __future__ import annotations

import struct
from dataclasses import replace

from PIL import JpegImagePlugin

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
    Target,
    Written,
)
from cleanplate.pipeline.images.formats.jpeg_coding import blocks, rotate
from cleanplate.pipeline.images.formats.jpeg_coding.anew import write_jpeg
from cleanplate.pipeline.images.formats.jpeg_coding.parts import (
    SOF,
    Segment,
    is_app,
    joined,
    jpeg_ends,
    jpeg_segments,
    next_marker,
)
from cleanplate.pipeline.images.formats.pillow import rows_of
from cleanplate.pipeline.images.formats.policy import Policy
from cleanplate.pipeline.images.formats.xmp import PACKET, XMP, XMP_EXTENSION, marked, shows_preview

# Markers that make the pixels: frames, tables, scans, restart interval. Decoders skip what a DNL says.
_SHOWS = frozenset([*SOF, 0xC4, 0xCC, 0xDA, 0xDB, 0xDD])
_NEEDED_APPS = (b"JFIF\0", b"Exif\0", b"ICC_PROFILE\0", b"Adobe")
# Entropy-coded bits that no whole scan reads; a cut one would show them.
_FILLER = bytes((i * 151 + 43) % 251 for i in range(4096)) + b"\xff\xd9"
_MOST_SCANS = 200
"""Each scan of a progressive JPEG is a pass over the whole picture; encoders make about ten."""


def _header(data: bytes) -> Header:
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


def _decode(data: bytes) -> Rows:
    """Pillow gets the segments joined anew: what lies between them, which libjpeg skips, would stop it."""
    if data.count(b"\xff\xda") > _MOST_SCANS:
        raise ImageError("too_large", f"a JPEG of more than {_MOST_SCANS} scans")
    segments, _ = jpeg_segments(data)
    if blocks.is_arithmetic(data):
        segments, _ = jpeg_segments(blocks.to_huffman(data))  # Pillow's decoder knows no arithmetic coding
    needed = [s for s in segments if not is_app(s.marker) or s.payload.startswith(_NEEDED_APPS)]
    whole = joined(needed)
    found = rows_of(whole, JpegImagePlugin.JpegImageFile)
    if not jpeg_ends(data):
        # Nobody says whether the scan is whole. One that is does not read what follows it.
        longer = whole[:-2].rstrip(b"\xff") + _FILLER
        if (found.stored != rows_of(longer, JpegImagePlugin.JpegImageFile).stored).any():
            raise ImageError("truncated", "the JPEG ends inside its picture")
    return replace(found, orientation=_orientation(data), lossy=True)


def _exif(data: bytes) -> bytes | None:
    segments, _ = jpeg_segments(data)
    found = next((s.payload for s in segments if s.marker == 0xE1 and s.payload[:4] == b"Exif"), None)
    return exif.bare(found)


def _orientation(data: bytes) -> int:
    segments, _ = jpeg_segments(data)
    packet = next((s.payload for s in segments if s.marker == 0xE1 and s.payload.startswith(XMP)), None)
    return exif.found_orientation(_exif(data)) or exif.xmp_orientation(packet or b"")


def _clean(data: bytes, policy: Policy) -> Cleaned:
    segments, tail = jpeg_segments(data)
    out, dropped = [b"\xff\xd8"], []
    for segment in segments:
        if is_app(segment.marker):
            payload, lost = _app(segment.marker, segment.payload, policy)
            dropped += lost
            if payload is not None:
                out.append(struct.pack(">BBH", 0xFF, segment.marker, len(payload) + 2) + payload)
        elif segment.marker in _SHOWS or policy == "keep":
            out.append(segment.to_bytes())
        else:
            dropped.append(f"segment {segment.marker:#04x}")
    if len(data) > 4 + sum(len(s.to_bytes()) for s in segments) + len(tail):
        dropped.append("bytes between segments")
    if tail:
        dropped.append(TAIL)
    return b"".join([*out, b"\xff\xd9"]), dropped


def _app(marker: int, payload: bytes, policy: Policy) -> tuple[bytes | None, list[str]]:
    # One APPn or COM segment: what is left of it (None = nothing) and the names of what was dropped.
    if marker == 0xE0 and payload[:5] == b"JFIF\0" and len(payload) >= 14:
        return payload[:12] + b"\0\0", ["JFIF thumbnail"] if len(payload) > 14 else []
    if marker == 0xE0 and payload[:5] == b"JFXX\0":
        return None, ["JFXX thumbnail"]
    if marker == 0xE1 and payload[:4] == b"Exif":
        block, lost = exif.rebuild(payload[6:], policy=policy)
        return (b"Exif\0\0" + block if block else None), lost
    if marker == 0xEE and payload[:5] == b"Adobe":
        return payload[:12], ["bytes behind Adobe's colour transform"] if len(payload) > 12 else []
    if marker == 0xE2 and payload[:12] == b"ICC_PROFILE\0":
        return payload, []
    if payload == XMP + PACKET:
        return payload, []  # our own mark
    name = _app_name(marker, payload)
    preview = name in ("MPF", "FPXR", "XMP extension", "C2PA / JUMBF") or shows_preview(payload)
    return (payload, []) if policy == "keep" and not preview else (None, [name])


def _app_name(marker: int, payload: bytes) -> str:
    if marker == 0xFE:
        return "comment"
    for start, name in (
        (XMP, "XMP"),
        (XMP_EXTENSION, "XMP extension"),
        (b"MPF\0", "MPF"),
        (b"FPXR\0", "FPXR"),
    ):
        if payload.startswith(start):
            return name
    if payload.startswith(b"Photoshop 3.0\0"):
        return "IPTC / Photoshop"
    return "C2PA / JUMBF" if marker == 0xEB and payload[:2] == b"JP" else f"APP{marker - 0xE0}"


def _with_exif(data: bytes, block: bytes) -> bytes:
    segments, tail = jpeg_segments(data)
    kept = [s for s in segments if not (s.marker == 0xE1 and s.payload[:4] == b"Exif")]
    kept.insert(1 if kept and kept[0].marker == 0xE0 else 0, Segment(0xE1, b"Exif\0\0" + block))
    return joined(kept) + tail


def _mark(data: bytes) -> bytes | None:
    segments, tail = jpeg_segments(data)
    at = next((i for i, s in enumerate(segments) if s.marker == 0xE1 and s.payload.startswith(XMP)), None)
    packet = marked(segments[at].payload[len(XMP) :] if at is not None else None)
    if packet is None or len(XMP) + len(packet) > 65533:
        return None
    parts = [s.to_bytes() for s in segments]
    segment = struct.pack(">BBH", 0xFF, 0xE1, len(XMP) + len(packet) + 2) + XMP + packet
    if at is not None:
        parts[at] = segment
    else:
        # JFIF wants to be first and Exif next.
        first = 0
        while segments[first].marker == 0xE0 or (
            segments[first].marker == 0xE1 and segments[first].payload[:4] == b"Exif"
        ):
            first += 1
        parts.insert(first, segment)
    return b"\xff\xd8" + b"".join(parts) + b"\xff\xd9" + tail


def _write(edit: Edit) -> Written:
    result = blocks.splice(edit.source, edit.stored, edit.mask)
    data, _ = _clean(result.data, edit.policy)
    _, dropped = _clean(edit.source, edit.policy)
    return Written(
        data,
        dropped,
        result.note,
        near=result.near,
        anew=result.before is None,
        blocks_equal=lambda after: blocks.blocks_equal(result.before, after, result.touched),
    )


def _convert(new: New) -> bytes:
    return write_jpeg(new.stored, quality=new.quality, icc=new.icc, dpi=new.dpi, exif=new.exif)


FORMAT = Format(
    name="jpeg",
    suffixes=("jpg", "jpeg", "jpe", "jfif"),
    starts=lambda data: data.startswith(b"\xff\xd8\xff"),
    header=_header,
    decode=_decode,
    clean=_clean,
    write=_write,
    exif=_exif,
    orientation=_orientation,
    with_exif=_with_exif,
    mark=_mark,
    signs=True,
    turn=rotate.turn,
    same_data=blocks.same_scans,
    target=Target(_convert, longest=65_500, alpha=False, lossless=101),
)
