"""What a file says besides its pixels: drop it by policy, by taking the file apart, never by re-encoding.

Policies:
- scrub: drops GPS, serial numbers, owner, artist, copyright, descriptions, MakerNote, thumbnails, previews,
  XMP and IPTC (whole: their personal fields cannot be told from the rest by a list), comments, C2PA
  manifests, unknown blocks, and bytes behind the end of the image. Keeps ICC, resolution, orientation,
  colour, dates, and how the picture was taken (`exif` has the list).
- strip: drops everything but what is needed to show the pixels as they showed: ICC, JFIF resolution, colour
  and gamma, the orientation.
- keep: drops nothing. When the picture was edited, thumbnails, previews, C2PA manifests (which hold thumbnails
  and would call the edit a forgery) and trailing bytes still go, because they show what was removed.
Every policy lets the mark of an edit pass (`marking`).
"""

from __future__ import annotations

import struct
import zlib
from typing import Literal

from cleanplate.pipeline.images.formats import bmp, exif, heif, isobmff
from cleanplate.pipeline.images.formats.base import (
    PNG_MAGIC,
    SOF,
    ImageError,
    gif_blocks,
    jpeg_segments,
    png_chunk,
    webp_chunks,
)
from cleanplate.pipeline.images.formats.orientation import exif_block, orientation_of
from cleanplate.pipeline.images.formats.png_read import checked_chunks, raw_size, trimmed
from cleanplate.pipeline.images.formats.tiff import clean_tiff
from cleanplate.pipeline.images.formats.xmp import PACKET, PNG_XMP, XMP, with_exif

Policy = Literal["scrub", "keep", "strip"]
POLICIES: tuple[Policy, ...] = ("scrub", "keep", "strip")
XMP_EXTENSION = b"http://ns.adobe.com/xmp/extension/\0"

_PNG_TEXT = frozenset([b"tEXt", b"zTXt", b"iTXt"])
# What a PNG needs to show as it showed: colour, gamma, transparency, resolution.
_PNG_SHOWS = frozenset(
    b"IHDR PLTE tRNS IDAT IEND cHRM gAMA iCCP sRGB sBIT cICP mDCV cLLI bKGD pHYs acTL".split(),
)
_WEBP_SHOWS = frozenset([b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ICCP", b"ANIM", b"ANMF"])
# JPEG markers that make the pixels: frames, tables, scans, restart interval. Decoders skip what a DNL says.
_JPEG_SHOWS = frozenset([*SOF, 0xC4, 0xCC, 0xDA, 0xDB, 0xDD])
_TAIL = "bytes after the end of the image"


def policy_of(name: str) -> Policy:
    """The policy of that name. Raises ValueError that lists the names."""
    for known in POLICIES:
        if name == known:
            return known
    raise ValueError(f"metadata is one of {', '.join(POLICIES)}, not {name!r}")


def clean(data: bytes, name: str, *, policy: Policy, edited: bool) -> tuple[bytes, list[str]]:
    """The file without what the policy forbids, and the names of what was dropped, in file order.

    name: format of `data`, one of 'jpeg', 'png', 'webp', 'gif', 'tiff', 'bmp', 'avif', 'heif'. edited: its pixels
    differ from its source's. Compressed pixel data passes byte for byte. An orientation that stands in what is
    dropped (XMP, a raw profile) moves to EXIF, so that viewers show what they showed. Raises ImageError where the
    file cannot be taken apart, ValueError for an unknown format.
    """
    if policy == "keep" and not edited:
        return data, []
    try:
        out, dropped = _clean(data, name, policy)
    except (struct.error, IndexError, zlib.error) as error:
        raise ImageError("corrupt", f"the parts of the {name} contradict each other") from error
    turned = orientation_of(data, name)
    if name in ("jpeg", "png", "webp") and orientation_of(out, name) != turned:
        out = with_exif(out, name, exif.with_orientation(exif_block(out, name), turned))
    return out, dropped


def _clean(data: bytes, name: str, policy: Policy) -> tuple[bytes, list[str]]:
    if name == "jpeg":
        return _jpeg(data, policy)
    if name == "png":
        return _png(data, policy)
    if name == "webp":
        return _webp(data, policy)
    if name == "gif":
        return _gif(data, policy)
    if name == "tiff":
        # An edited one is written anew; of its source only the names of what goes are asked.
        return clean_tiff(data, policy)
    if name == "bmp":
        return bmp.clean(data)
    if name in ("avif", "heif"):
        return _iso(data, policy)
    raise ValueError(f"no metadata rules for {name!r}")


def _jpeg(data: bytes, policy: Policy) -> tuple[bytes, list[str]]:
    segments, tail = jpeg_segments(data)
    out, dropped = [b"\xff\xd8"], []
    for segment in segments:
        if 0xE0 <= segment.marker <= 0xEF or segment.marker == 0xFE:
            payload, lost = _app(segment.marker, segment.payload, policy)
            dropped += lost
            if payload is not None:
                out.append(struct.pack(">BBH", 0xFF, segment.marker, len(payload) + 2) + payload)
        elif segment.marker in _JPEG_SHOWS or policy == "keep":
            out.append(segment.to_bytes())
        else:
            dropped.append(f"segment {segment.marker:#04x}")
    if len(data) > 4 + sum(len(s.to_bytes()) for s in segments) + len(tail):
        dropped.append("bytes between segments")
    if tail:
        dropped.append(_TAIL)
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
    preview = name in ("MPF", "FPXR", "XMP extension", "C2PA / JUMBF") or _shows_preview(payload)
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


def _shows_preview(payload: bytes) -> bool:
    # XMP thumbnails, images that phones put into XMP, Photoshop's thumbnail resources 0x0409 and 0x040C.
    return any(
        mark in payload for mark in (b"xmpGImg", b":Thumbnails", b"GImage", b"8BIM\x04\x0c", b"8BIM\x04\x09")
    )


def _png(data: bytes, policy: Policy) -> tuple[bytes, list[str]]:
    chunks: list[tuple[bytes, bytes]] = []
    dropped, size = [], len(PNG_MAGIC)
    for kind, body, right in checked_chunks(data):
        size += 12 + len(body)
        if not right:
            # A reader skips it. Written again, it would get a right checksum and be read.
            dropped.append(f"{kind.decode('latin-1')} with a wrong checksum")
        elif kind == b"eXIf":
            block, lost = exif.rebuild(body, policy=policy)
            dropped += lost
            if block:
                chunks.append((kind, block))
        elif (
            kind in _PNG_SHOWS
            or body == PNG_XMP + PACKET
            or (policy == "keep" and not _png_preview(kind, body))
        ):
            chunks.append((kind, body))
        else:
            key = body.split(b"\0", 1)[0][:79].decode("latin-1") if kind in _PNG_TEXT else ""
            dropped.append(f"{kind.decode('latin-1')} {key}".strip())
    if size < len(data):
        dropped.append(_TAIL)
    packed = trimmed(b"".join(body for kind, body in chunks if kind == b"IDAT"), raw_size(data))
    if packed is not None:
        dropped.append("bytes behind the pixel data")
        at = next(i for i, (kind, _) in enumerate(chunks) if kind == b"IDAT")
        others = [(kind, body) for kind, body in chunks if kind != b"IDAT"]
        chunks = [*others[:at], (b"IDAT", packed), *others[at:]]
    return PNG_MAGIC + b"".join(png_chunk(kind, body) for kind, body in chunks), dropped


def _png_preview(kind: bytes, body: bytes) -> bool:
    # A packed text cannot be looked into cheaply: one that is XMP or a raw profile counts as a preview.
    if kind not in _PNG_TEXT:
        return kind == b"caBX"  # a C2PA manifest
    key = body.split(b"\0", 1)[0]
    packed = kind == b"zTXt" or (kind == b"iTXt" and body[len(key) + 1 : len(key) + 2] == b"\1")
    return key.startswith(b"Raw profile") or _shows_preview(body) or (packed and key == b"XML:com.adobe.xmp")


def _webp(data: bytes, policy: Policy) -> tuple[bytes, list[str]]:
    kept: list[tuple[bytes, bytes]] = []
    dropped: list[str] = []
    for kind, body in webp_chunks(data):
        if kind == b"EXIF":
            block, lost = exif.rebuild(body[6:] if body[:4] == b"Exif" else body, policy=policy)
            dropped += lost
            if block:
                kept.append((kind, block))
        elif (
            kind in _WEBP_SHOWS
            or body == PACKET
            or (policy == "keep" and kind != b"C2PA" and not _shows_preview(body))
        ):
            kept.append((kind, body))
        else:
            dropped.append(kind.decode("latin-1").strip())
    if len(data) > 8 + int.from_bytes(data[4:8], "little"):
        dropped.append("bytes after the end of the image")
    present = {kind for kind, _ in kept}
    out = b"WEBP"
    for kind, body in kept:
        if kind == b"VP8X":
            # Extended header: bit 3 says EXIF, bit 2 XMP (WebP container specification).
            flags = (
                body[0] & ~0x0C | (0x08 if b"EXIF" in present else 0) | (0x04 if b"XMP " in present else 0)
            )
            body = bytes([flags, 0, 0, 0]) + body[4:10]
        out += kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) & 1)
    return b"RIFF" + struct.pack("<I", len(out)) + out, dropped


def _gif(data: bytes, policy: Policy) -> tuple[bytes, list[str]]:
    first, blocks = gif_blocks(data)
    out, dropped = [data[:first]], []
    for kind, start, end in blocks:
        body = data[start:end]
        profile = kind == "application" and body[3:14] == b"ICCRGBG1012"
        if kind == "control":
            out.append(body[:7] + b"\0")  # its one sub-block of four bytes; who adds more says something else
            if len(body) > 8:
                dropped.append("GIF control, more than four bytes")
        elif kind in ("image", "end") or profile or (policy == "keep" and not _shows_preview(body)):
            out.append(body)
        else:
            dropped.append(f"GIF {kind}")
    if blocks and blocks[-1][0] == "end" and blocks[-1][2] < len(data):
        dropped.append(_TAIL)
    return b"".join(out), dropped


def _iso(data: bytes, policy: Policy) -> tuple[bytes, list[str]]:
    if policy == "keep":
        return data, []  # An edited one is written as PNG, with the EXIF alone.
    try:
        return heif.clean(data, policy)
    except isobmff.BoxError as error:
        raise ImageError("corrupt", f"the metadata cannot be taken out: {error}") from error
