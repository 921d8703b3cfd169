"""PNG: its chunks read, cleaned and marked; written so that reading gives the same array."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import replace

import cv2
import numpy as np
from PIL import Image as PillowImage
from PIL import PngImagePlugin

from cleanplate.pipeline.images.formats import exif, png_parts
from cleanplate.pipeline.images.formats.base import (
    TAIL,
    Cleaned,
    Dpi,
    Edit,
    Format,
    Header,
    ImageError,
    New,
    Rows,
    Stored,
    Target,
    Written,
)
from cleanplate.pipeline.images.formats.pillow import rows_of
from cleanplate.pipeline.images.formats.png_parts import (
    PNG_MAGIC,
    checked_chunks,
    png_chunk,
    png_chunks,
    png_file,
    raw_size,
    trimmed,
)
from cleanplate.pipeline.images.formats.policy import Policy
from cleanplate.pipeline.images.formats.xmp import PACKET, marked, shows_preview

XMP_TEXT = b"XML:com.adobe.xmp\0\0\0\0\0"
"""Start of an uncompressed iTXt body that holds XMP."""
_TEXT = frozenset([b"tEXt", b"zTXt", b"iTXt"])
# What a PNG needs to show as it showed: colour, gamma, transparency, resolution.
_SHOWS = frozenset(
    b"IHDR PLTE tRNS IDAT IEND cHRM gAMA iCCP sRGB sBIT cICP mDCV cLLI bKGD pHYs acTL".split(),
)
_COLOUR_TYPE = {"L": 0, "RGB": 2, "LA": 4, "RGBA": 6}
# Chunks that describe the old pixel data; a new picture of another kind must not carry them.
_PNG_DATA = frozenset([b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"hIST", b"acTL", b"fcTL", b"fdAT"])
_PNG_KIND = frozenset([b"bKGD", b"sBIT"])


def _header(data: bytes) -> Header:
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


def _decode(data: bytes) -> Rows:
    pixels = png_parts.bare(data)
    depth = data[24]
    if depth == 16:
        png_parts.check_pixel_data(pixels)
        found = _deep(pixels)
    else:
        found = rows_of(pixels, PngImagePlugin.PngImageFile)
    held = f"{depth}-bit grey" if depth < 8 and found.mode == "L" and not found.held else found.held
    icc, dpi = png_parts.profile(data), png_parts.resolution(data)
    return replace(found, held=held, icc=icc, dpi=dpi, orientation=_orientation(data))


def _deep(data: bytes) -> Rows:
    # Pillow keeps 8 of 16 bits for colour; OpenCV keeps them all. The pixel data is known to be whole.
    found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if found is None or found.dtype != np.uint16:
        raise ImageError("corrupt", "the 16-bit PNG cannot be decoded")
    array = found.astype(np.uint16, copy=False)
    colour = data[25]
    channels = {0: 1, 2: 3, 4: 2, 6: 4}.get(colour)
    if array.ndim == 2 and channels == 1:
        return Rows(array[..., None], "L")
    if array.ndim == 3 and array.shape[2] == 3 and channels == 3:
        return Rows(array[..., ::-1], "RGB")
    if array.ndim == 3 and array.shape[2] == 4:
        if colour in (0, 4):
            return Rows(array[..., [0, 3]], "LA", "key" if colour == 0 else "")
        return Rows(array[..., [2, 1, 0, 3]], "RGBA", "key" if colour == 2 else "")
    raise ImageError("unsupported", "this kind of 16-bit PNG is not handled")


def _exif(data: bytes) -> bytes | None:
    chunks = checked_chunks(data)
    return exif.bare(next((body for kind, body, right in chunks if kind == b"eXIf" and right), None))


def _orientation(data: bytes) -> int:
    return exif.found_orientation(_exif(data)) or png_parts.orientation(data) or 1


def _clean(data: bytes, policy: Policy) -> Cleaned:
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
            kind in _SHOWS or body == XMP_TEXT + PACKET or (policy == "keep" and not _is_preview(kind, body))
        ):
            chunks.append((kind, body))
        else:
            key = body.split(b"\0", 1)[0][:79].decode("latin-1") if kind in _TEXT else ""
            dropped.append(f"{kind.decode('latin-1')} {key}".strip())
    if size < len(data):
        dropped.append(TAIL)
    packed = trimmed(b"".join(body for kind, body in chunks if kind == b"IDAT"), raw_size(data))
    if packed is not None:
        dropped.append("bytes behind the pixel data")
        at = next(i for i, (kind, _) in enumerate(chunks) if kind == b"IDAT")
        others = [(kind, body) for kind, body in chunks if kind != b"IDAT"]
        chunks = [*others[:at], (b"IDAT", packed), *others[at:]]
    return png_file(chunks), dropped


def _is_preview(kind: bytes, body: bytes) -> bool:
    # A packed text cannot be looked into cheaply: one that is XMP or a raw profile counts as a preview.
    if kind not in _TEXT:
        return kind == b"caBX"  # a C2PA manifest
    key = body.split(b"\0", 1)[0]
    packed = kind == b"zTXt" or (kind == b"iTXt" and body[len(key) + 1 : len(key) + 2] == b"\1")
    return key.startswith(b"Raw profile") or shows_preview(body) or (packed and key == b"XML:com.adobe.xmp")


def _with_exif(data: bytes, block: bytes) -> bytes:
    chunks = [(kind, body) for kind, body in png_chunks(data) if kind != b"eXIf"]
    return png_file([*chunks[:1], (b"eXIf", block), *chunks[1:]])


def _mark(data: bytes) -> bytes | None:
    chunks = list(png_chunks(data))
    key = XMP_TEXT[:-4]
    at = next((i for i, (kind, body) in enumerate(chunks) if kind == b"iTXt" and body.startswith(key)), None)
    if at is not None and not chunks[at][1].startswith(XMP_TEXT):
        return None  # packed, or with a language: nothing that writers of XMP do
    packet = marked(chunks[at][1][len(XMP_TEXT) :] if at is not None else None)
    if packet is None:
        return None
    text_chunk = (b"iTXt", XMP_TEXT + packet)
    if at is not None:
        chunks[at] = text_chunk
    else:
        chunks.insert(next(i for i, (kind, _) in enumerate(chunks) if kind == b"IDAT"), text_chunk)
    return png_file(chunks)


def _write(edit: Edit) -> Written:
    _, dropped = _clean(edit.source, edit.policy)
    written = write_png(edit.stored, edit.mode, source=edit.source, same_kind=not edit.held)
    return Written(_clean(written, edit.policy)[0], dropped, edit.rewritten)


def convert(new: New) -> bytes:
    """A new PNG."""
    return write_png(new.stored, new.mode, icc=new.icc, dpi=new.dpi, exif=new.exif)


def write_png(
    stored: Stored,
    mode: str,
    *,
    source: bytes | None = None,
    same_kind: bool = False,
    icc: bytes | None = None,
    dpi: Dpi | None = None,
    exif: bytes | None = None,
) -> bytes:
    """A PNG of an HWC uint8 or uint16 array in mode 'L', 'LA', 'RGB' or 'RGBA'.

    source: a PNG whose other chunks are carried over, in their order; icc, dpi, exif are then not used.
    same_kind: the source has the same colour type and depth, so its background and significant bits hold.
    """
    before: list[bytes] = []
    after: list[bytes] = []
    if source is not None:
        side = before
        for kind, body, right in checked_chunks(source):
            if kind == b"IDAT":
                side = after
            if right and kind not in _PNG_DATA and (same_kind or kind not in _PNG_KIND):
                side.append(png_chunk(kind, body))
    else:
        if icc:
            before.append(png_chunk(b"iCCP", b"icc\0\0" + zlib.compress(icc)))
        if dpi:
            metres = [round(d / 0.0254) for d in dpi]
            before.append(png_chunk(b"pHYs", struct.pack(">IIB", *metres, 1)))
        if exif:
            before.append(png_chunk(b"eXIf", exif))
    bits = 16 if stored.dtype == np.uint16 else 8
    height, width = stored.shape[:2]
    ihdr = struct.pack(">IIBBBBB", width, height, bits, _COLOUR_TYPE[mode], 0, 0, 0)
    data = _deflate_16(stored) if bits == 16 else _idat(stored)
    chunks = [png_chunk(b"IHDR", ihdr), *before, png_chunk(b"IDAT", data), *after, png_chunk(b"IEND", b"")]
    return PNG_MAGIC + b"".join(chunks)


def _idat(stored: Stored) -> bytes:
    # Pillow picks a filter per row, which packs photographs well; only its pixel data is taken.
    out = io.BytesIO()
    _picture(stored).save(out, "PNG")
    return b"".join(body for kind, body in png_chunks(out.getvalue()) if kind == b"IDAT")


def _deflate_16(stored: Stored) -> bytes:
    # Pillow cannot write 16-bit colour. Filter 2 ("up"): each byte minus the byte above (PNG 9.2).
    height = stored.shape[0]
    rows = stored.astype(">u2").reshape(height, -1).view(np.uint8)
    above = np.zeros_like(rows)
    above[1:] = rows[:-1]
    filtered = np.empty((height, rows.shape[1] + 1), np.uint8)
    filtered[:, 0] = 2
    np.subtract(rows, above, out=filtered[:, 1:])
    return zlib.compress(filtered.tobytes(), 6)


def _picture(stored: Stored) -> PillowImage.Image:
    return PillowImage.fromarray(
        np.ascontiguousarray(stored[..., 0] if stored.shape[2] == 1 else stored, np.uint8)
    )


FORMAT = Format(
    name="png",
    suffixes=("png",),
    starts=lambda data: data.startswith(PNG_MAGIC),
    header=_header,
    decode=_decode,
    clean=_clean,
    write=_write,
    exif=_exif,
    orientation=_orientation,
    with_exif=_with_exif,
    mark=_mark,
    signs=True,
    target=Target(convert, deep=True),
)
