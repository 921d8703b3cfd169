"""How a file's rows are turned: from its EXIF, its XMP, or what ImageMagick wrote."""

from __future__ import annotations

from cleanplate.pipeline.images.formats import exif, isobmff, png_read
from cleanplate.pipeline.images.formats.base import jpeg_segments, webp_chunks
from cleanplate.pipeline.images.formats.tiff_form import form as tiff_form

ISO = ("avif", "heif")
"""Formats whose orientation is the container's, applied by the decoder; an EXIF orientation says nothing there."""
_XMP = b"http://ns.adobe.com/xap/1.0/\0"


def exif_block(data: bytes, name: str) -> bytes | None:
    """The EXIF block of a JPEG, PNG, WebP, HEIC or AVIF file, from its byte order mark on; None where there is none."""
    found: bytes | None = None
    if name == "jpeg":
        segments, _ = jpeg_segments(data)
        found = next((s.payload for s in segments if s.marker == 0xE1 and s.payload[:4] == b"Exif"), None)
    elif name == "png":
        chunks = png_read.checked_chunks(data)
        found = next((body for kind, body, right in chunks if kind == b"eXIf" and right), None)
    elif name == "webp":
        found = next((body for kind, body in webp_chunks(data) if kind == b"EXIF"), None)
    elif name in ISO:
        found = isobmff.exif_item(data)
    if found is not None and found[:6] in (b"Exif\0\0", b"Exif\0\xff"):
        found = found[6:]
    return found


def orientation_of(data: bytes, name: str) -> int:
    """The orientation 1..8 that viewers turn a JPEG, PNG, WebP or TIFF by: of its EXIF, else of ImageMagick's raw
    profile in PNG, else of its XMP. 1 for other formats. Raises ImageError."""
    if name == "tiff":
        return tiff_form(data).orientation
    if name not in ("jpeg", "png", "webp"):
        return 1
    found = exif.found_orientation(exif_block(data, name))
    if found is None and name == "png":
        found = png_read.orientation(data)
    elif found is None:
        packet = _xmp(data, name)
        found = exif.xmp_orientation(packet) if packet else None
    return found or 1


def _xmp(data: bytes, name: str) -> bytes | None:
    if name == "webp":
        return next((body for kind, body in webp_chunks(data) if kind == b"XMP "), None)
    segments, _ = jpeg_segments(data)
    return next((s.payload for s in segments if s.marker == 0xE1 and s.payload.startswith(_XMP)), None)
