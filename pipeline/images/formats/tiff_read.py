"""TIFF pixels: strips and tiles of 8 and 16 bits laid out here, everything else by Pillow.

Unpacking is zlib's and libtiff's work (through Pillow); which sample a byte belongs to is decided here, so that every
form in `tiff_form` gives the same picture, and a block that does not unpack to its full size is an error. `tifffile`
would need a second package of 26 MB for LZW; it is the second reader in the tests instead.
"""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import TiffImagePlugin

from cleanplate.pipeline.images.formats import exif
from cleanplate.pipeline.images.formats.base import ImageError, Stored
from cleanplate.pipeline.images.formats.exif import Entry
from cleanplate.pipeline.images.formats.jpeg_coding.parts import jpeg_segments
from cleanplate.pipeline.images.formats.tiff_form import (
    ASSOCIATED,
    CMYK,
    DEFLATE,
    ICC,
    JPEG,
    NONE,
    PACKBITS,
    PALETTE,
    RGB,
    WHITE_IS_ZERO,
    Form,
    numbers,
)

_AS_BYTES = frozenset([NONE, 5, 32773, 34925, 50000]) | DEFLATE
# The tags that Pillow needs to find and unpack the pixels; not the orientation, which is applied here.
_PIXEL_TAGS = frozenset(
    [256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323, 324, 325]
)
_PIXEL_TAGS |= {338, 339, 347, 530, 531, 532}


def decode_tiff(data: bytes, found: Form) -> tuple[Stored, str, str]:
    """HWC uint8 or uint16 rows of the file; mode; how the file held it, where that is not the mode.

    Modes as `base.Rows`: 'L', 'LA', 'La', 'RGB', 'RGBA', 'RGBa', 'CMYK'; a small last letter for colours that
    alpha is multiplied into. Raises ImageError.
    """
    if found.bits >= 8 and found.compression in _AS_BYTES:
        return _interpreted(found, _samples(data, found))
    return _by_pillow(data, found)


def _samples(data: bytes, found: Form) -> Stored:
    # Every sample of the file at its place: HWC in native byte order, not yet interpreted.
    kind = np.dtype(f"{found.order}u{found.bits // 8}")
    out = np.zeros((found.height, found.width, found.samples), kind.newbyteorder("="))
    high, wide = found.block
    across = -(-found.width // wide)
    per_plane = across * -(-found.height // high)
    for i, (start, size) in enumerate(found.blocks):
        rows = found.rows_of(i)
        raw = _unpacked(data[start : start + size], found, rows)
        block = np.frombuffer(raw, kind).reshape(rows, wide, -1)
        if (
            found.predictor == 2
        ):  # each sample is coded as the difference from its left neighbour, modulo 2^bits
            block = np.cumsum(block, axis=1, dtype=out.dtype)
        plane, place = divmod(i, per_plane)
        top, left = place // across * high, place % across * wide
        target = out[top : top + rows, left : left + wide]
        inside = block[: target.shape[0], : target.shape[1]]
        if found.planes == 2:
            target[..., plane] = inside[..., 0]
        else:
            target[...] = inside
    return out


def _unpacked(raw: bytes, found: Form, rows: int) -> bytes:
    # Exactly the bytes that the rows take. Raises ImageError where there are fewer.
    need = rows * found.row_bytes
    if found.compression == NONE:
        out = raw[:need]
    elif found.compression in DEFLATE:
        out = _inflated(raw, need)
    else:
        out = _by_libtiff(raw, found.compression, rows, found.row_bytes)
    if len(out) < need:
        raise ImageError("truncated", "a TIFF strip unpacks to fewer bytes than its rows take")
    return out


def _inflated(raw: bytes, need: int) -> bytes:
    # One byte more is asked for, so that the checksum behind the last one is reached and held against the data.
    stream = zlib.decompressobj()
    try:
        return stream.decompress(raw, need + 1)[:need]
    except zlib.error as error:
        raise ImageError("corrupt", "the deflated data of a TIFF strip is damaged") from error


def _by_libtiff(raw: bytes, compression: int, rows: int, row_bytes: int) -> bytes:
    # The block as a one-strip picture of 8-bit grey: libtiff unpacks bytes and leaves them as they are.
    sizes = {
        256: row_bytes,
        257: rows,
        258: 8,
        259: compression,
        262: 1,
        273: 0,
        277: 1,
        278: rows,
        279: len(raw),
    }
    entries = [Entry(tag, 4, 1, struct.pack("<I", value)) for tag, value in sizes.items()]
    entries[5] = Entry(273, 4, 1, struct.pack("<I", 8 + exif.ifd_size(entries)))
    try:
        with TiffImagePlugin.TiffImageFile(io.BytesIO(exif.build("<", entries, {}) + raw)) as picture:
            return picture.tobytes()
    except (OSError, SyntaxError, ValueError) as error:
        raise ImageError("corrupt", "the packed data of a TIFF strip is damaged") from error


def _interpreted(found: Form, samples: Stored) -> tuple[Stored, str, str]:
    if found.photometric == PALETTE:
        return _painted(found, samples[..., 0]), "RGB", "palette"
    if found.photometric == WHITE_IS_ZERO:
        return np.iinfo(samples.dtype).max - samples, "L", "white-is-zero"
    mode = {RGB: "RGB", CMYK: "CMYK"}.get(found.photometric, "L")
    if found.alpha:
        mode += "a" if found.alpha == ASSOCIATED else "A"
    return samples, mode, ""


def _painted(found: Form, index: Stored) -> Stored:
    # ColorMap holds all reds, then all greens, then all blues, each 0..65535.
    colours = np.array(found.palette, np.uint16).reshape(3, -1).T
    if found.bits == 16:
        return np.asarray(colours[index])
    return np.asarray((colours >> 8).astype(np.uint8)[index])


def _by_pillow(data: bytes, found: Form) -> tuple[Stored, str, str]:
    # JPEG and fax compression, and samples of 1 to 4 bits. It gets a directory of the pixels' tags alone, since
    # others (an orientation in XMP, a damaged resolution) change what it does.
    kept = sorted((e for e in found.entries if e.tag in _PIXEL_TAGS and e.whole), key=lambda e: e.tag)
    data += b"\0" * (len(data) % 2)
    table = exif.write_ifd(found.order, kept, len(data), {})
    data = data[:4] + struct.pack(found.order + "I", len(data)) + data[8:] + table
    with TiffImagePlugin.TiffImageFile(io.BytesIO(data)) as picture:
        picture.load()
        if picture.size != (found.width, found.height):
            raise ImageError("corrupt", "the decoded size differs from the declared one")
        if found.photometric == PALETTE:
            return np.array(picture.convert("RGB")), "RGB", "palette"
        target = "L" if picture.mode in ("1", "L") else "RGB"
        array = np.array(picture.convert(target))
    held = ("bilevel" if found.bits == 1 else f"{found.bits}-bit grey") if found.bits < 8 else ""
    return array[..., None] if array.ndim == 2 else array, target, held


def used_bytes(raw: bytes, found: Form, index: int) -> int:
    """How much of a block's data its pixels take; all of it where only the decoder could tell (LZW, fax)."""
    need = found.rows_of(index) * found.row_bytes
    if found.compression == NONE:
        return min(need, len(raw))
    if found.compression in DEFLATE:
        stream = zlib.decompressobj()
        stream.decompress(raw, need + 1)
        return len(raw) - len(stream.unused_data)
    if found.compression == PACKBITS:
        at = got = 0
        while got < need and at < len(raw):
            code = raw[at]
            if code < 128:  # that many bytes and one more, as they are
                at, got = at + 2 + code, got + 1 + code
            elif code > 128:  # one byte, repeated
                at, got = at + 2, got + 257 - code
            else:
                at += 1
        return min(at, len(raw))
    if found.compression == JPEG:
        return len(raw) - len(jpeg_segments(raw)[1])
    return len(raw)


def icc_of(found: Form) -> bytes | None:
    """The ICC profile that the directory holds, or None."""
    return next((e.value for e in found.entries if e.tag == ICC and e.whole and e.value), None)


def dpi_of(found: Form) -> tuple[float, float] | None:
    """Resolution (x, y) in dots per inch, or None where the file names none, or no unit."""
    tags = {entry.tag: entry for entry in reversed(found.entries)}
    ratios = []
    for tag in (282, 283):
        entry = tags.get(tag)
        if entry is None or entry.kind != 5 or entry.count < 1 or not entry.whole:
            return None
        above, below = struct.unpack_from(found.order + "II", entry.value)
        ratios.append(above / below if below else 0.0)
    unit = (numbers(found.order, tags.get(296)) or [2])[0]
    scale = {2: 1.0, 3: 2.54}.get(unit, 0.0)
    return (ratios[0] * scale, ratios[1] * scale) if min(ratios) * scale > 0 else None
