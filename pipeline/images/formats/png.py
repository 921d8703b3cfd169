"""Write an array as PNG or WebP so that reading it gives the same array."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import numpy.typing as npt
from PIL import Image as PillowImage

from cleanplate.pipeline.images.formats.base import PNG_MAGIC, png_chunk, png_chunks
from cleanplate.pipeline.images.formats.png_read import checked_chunks

Stored = npt.NDArray[np.unsignedinteger]

_COLOUR_TYPE = {"L": 0, "RGB": 2, "LA": 4, "RGBA": 6}
# Chunks that describe the old pixel data; a new picture of another kind must not carry them.
_PNG_DATA = frozenset([b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"hIST", b"acTL", b"fcTL", b"fdAT"])
_PNG_KIND = frozenset([b"bKGD", b"sBIT"])


def write_png(
    stored: Stored,
    mode: str,
    *,
    source: bytes | None = None,
    same_kind: bool = False,
    icc: bytes | None = None,
    dpi: tuple[float, float] | None = None,
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
    data = _deflate_16(stored) if bits == 16 else _idat(stored, mode)
    chunks = [png_chunk(b"IHDR", ihdr), *before, png_chunk(b"IDAT", data), *after, png_chunk(b"IEND", b"")]
    return PNG_MAGIC + b"".join(chunks)


def _idat(stored: Stored, mode: str) -> bytes:
    # Pillow picks a filter per row, which packs photographs well; only its pixel data is taken.
    out = io.BytesIO()
    _picture(stored, mode).save(out, "PNG")
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
    picture = _picture(wide, "RGBA" if mode in ("LA", "RGBA") else "RGB")
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


def _picture(stored: Stored, mode: str) -> PillowImage.Image:
    array = np.ascontiguousarray(stored[..., 0] if mode == "L" else stored, dtype=np.uint8)
    return PillowImage.fromarray(array, mode=mode) if mode == "CMYK" else PillowImage.fromarray(array)
