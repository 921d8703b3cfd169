"""BMP: what its headers say, a file without what lies between its parts, and a new file.

BITMAPINFOHEADER and its successors up to BITMAPV5HEADER. Nothing says how long the pixel data is but its rows, so
the file's own size field, which many writers get wrong, is not believed.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass, replace

import numpy as np
from PIL import BmpImagePlugin
from PIL import Image as PillowImage

from cleanplate.pipeline.images.formats.base import (
    TAIL,
    Cleaned,
    Dpi,
    Edit,
    Format,
    Header,
    Rows,
    Stored,
    Written,
    u32le,
)
from cleanplate.pipeline.images.formats.pillow import rows_of
from cleanplate.pipeline.images.formats.policy import Policy

_HEADERS = frozenset([12, 16, 40, 52, 56, 64, 108, 124])
_EMBEDDED, _LINKED, _SRGB, _CALIBRATED = 0x4D424544, 0x4C494E4B, 0x73524742, 0
_CORE, _V4, _V5 = 12, 108, 124
_BIT_FIELDS, _ALPHA_BIT_FIELDS = 3, 6
GAP = "bytes between the parts of the BMP"


@dataclass(frozen=True)
class Parts:
    """Where the parts of a BMP lie, as (start, end) in the file.

    head: file header, information header and masks; palette; pixels; profile: of V5 headers, empty without. stride:
    bytes of a row, 0 for run-length coded pixels. bits: of a pixel. entry: bytes of a palette entry. size: of the
    information header. space: its colour space, 0 where it has none.
    """

    head: tuple[int, int]
    palette: tuple[int, int]
    pixels: tuple[int, int]
    profile: tuple[int, int]
    stride: int
    width: int
    bits: int
    entry: int
    size: int
    space: int


def parts(data: bytes) -> Parts:
    """Raises struct.error where the headers end early."""
    (start,) = struct.unpack_from("<I", data, 10)
    (size,) = struct.unpack_from("<I", data, 14)
    if size == _CORE:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        compression = used = 0
    else:
        width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
        used = struct.unpack_from("<I", data, 46)[0] if size >= 40 else 0
    masks = {_BIT_FIELDS: 12, _ALPHA_BIT_FIELDS: 16}.get(compression, 0) if size == 40 else 0
    end = min(14 + size + masks, len(data))
    entry = 3 if size == _CORE else 4
    colours = min(used or 1 << bits, 1 << bits) if bits <= 8 else 0
    stride = (width * bits + 31) // 32 * 4
    if compression in (1, 2):
        stop, stride = start + _run_length(data[start:], compression == 2), 0
    else:
        stop = start + stride * abs(height)
    space, profile = 0, (0, 0)
    if size >= _V4:
        (space,) = struct.unpack_from("<I", data, 14 + 56)
    if size == _V5 and space in (_EMBEDDED, _LINKED):
        at, length = struct.unpack_from("<II", data, 14 + 112)
        if length and 14 + at + length <= len(data):
            profile = (14 + at, 14 + at + length)
    palette = (end, max(end, min(end + entry * colours, start)))
    return Parts(
        (0, end), palette, (start, min(stop, len(data))), profile, stride, width, bits, entry, size, space
    )


def _run_length(data: bytes, four_bits: bool) -> int:
    # Bytes up to and with the mark that ends run-length coded pixels.
    at = 0
    while at + 1 < len(data):
        count, value = data[at], data[at + 1]
        at += 2
        if count:
            continue
        if value == 1:
            return at
        if value == 2:
            at += 2
        elif value > 2:
            plain = (value + 1) // 2 if four_bits else value
            at += plain + plain % 2
    return len(data)


def profile(data: bytes) -> bytes | None:
    """The ICC profile that lies in the file, or None."""
    found = parts(data)
    start, end = found.profile
    return data[start:end] or None if found.space == _EMBEDDED else None


def _header(data: bytes) -> Header:
    if u32le(data, 14) == 12:
        width, height = struct.unpack_from("<HH", data, 18)
        return Header("bmp", width, height, 1)
    width, height = struct.unpack_from("<ii", data, 18)
    return Header("bmp", width, abs(height), 1)


def _decode(data: bytes) -> Rows:
    found = rows_of(data, BmpImagePlugin.BmpImageFile)
    few = found.mode == "L" and data[28] < 8 and not found.held
    return replace(found, icc=profile(data), held=f"{data[28]}-bit grey" if few else found.held)


def clean(data: bytes, policy: Policy) -> Cleaned:
    """The file without the bytes that no part of it takes, rows' padding included; and the names of what was dropped.

    A profile in the file stays; the path of one beside it goes. All the same for every policy. Raises struct.error
    where the headers end early.
    """
    found = parts(data)
    kept = [found.head, found.palette, found.pixels]
    dropped = []
    if found.space == _EMBEDDED:
        kept.append(found.profile)
    elif found.space == _LINKED:
        dropped.append("BMP profile path")
    stop = max(end for _, end in kept)
    out = bytearray(stop)
    for start, end in kept:
        out[start:end] = data[start:end]
    _tidy(out, found)
    if data[6:stop] != out[6:]:
        dropped.append(GAP)
    if data.count(0, stop) < len(data) - stop:
        dropped.append(TAIL)
    struct.pack_into("<I", out, 2, len(out))
    return bytes(out), dropped


def _tidy(out: bytearray, found: Parts) -> None:
    # Fields and padding that no reader looks at, where anything may stand: zeros.
    out[6:10] = bytes(4)
    if found.entry == 4:
        for at in range(found.palette[0] + 3, found.palette[1], 4):
            out[at] = 0
    if found.space not in (_CALIBRATED, _EMBEDDED, _LINKED) and found.size >= _V4:
        out[14 + 60 : 14 + 108] = bytes(48)  # end points and gamma hold for calibrated colours alone
    if found.size == _V5:
        if found.space == _LINKED:
            struct.pack_into("<I", out, 14 + 56, _SRGB)
        if found.space != _EMBEDDED:
            out[14 + 112 : 14 + 120] = bytes(8)
        out[14 + 120 : 14 + 124] = bytes(4)
    start, end = found.pixels
    used = found.width * found.bits
    if found.stride and used % 32 and found.width > 0:
        whole = (end - start) // found.stride * found.stride
        rows = np.frombuffer(out, np.uint8, whole, start).reshape(-1, found.stride)
        rows[:, -(-used // 8) :] = 0
        if used % 8:
            rows[:, used // 8] &= 0xFF << (8 - used % 8) & 0xFF


def write_bmp(stored: Stored, mode: str, *, dpi: Dpi | None, icc: bytes | None = None) -> bytes:
    """A BMP of an HWC uint8 array in mode 'L', 'RGB' or 'RGBA'."""
    if mode == "RGBA" or icc:
        return _with_long_header(stored, mode, dpi, icc or b"")
    out = io.BytesIO()
    array = np.ascontiguousarray(stored[..., 0] if mode == "L" else stored, dtype=np.uint8)
    options = {"dpi": dpi} if dpi else {}
    PillowImage.fromarray(array).save(out, "BMP", **options)
    return out.getvalue()


def _with_long_header(stored: Stored, mode: str, dpi: Dpi | None, icc: bytes) -> bytes:
    # Pillow writes the short header, in which the fourth byte of a pixel means nothing and no profile has a place:
    # BITMAPV4HEADER names the alpha, BITMAPV5HEADER the profile too.
    height, width = stored.shape[:2]
    order = {"L": [0], "RGB": [2, 1, 0], "RGBA": [2, 1, 0, 3]}[mode]
    rows = np.ascontiguousarray(stored[::-1][..., order], np.uint8).reshape(height, -1)
    pixels = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 4))).tobytes()
    palette = b"".join(bytes([i, i, i, 0]) for i in range(256)) if mode == "L" else b""
    size = _V5 if icc else _V4
    per_metre = [round(d / 0.0254) for d in dpi or (0, 0)]
    compression = _BIT_FIELDS if mode == "RGBA" else 0
    head = struct.pack("<IiiHHII", size, width, height, 1, 8 * len(order), compression, len(pixels))
    head += struct.pack("<iiII", *per_metre, len(palette) // 4, 0)
    masks = (0xFF0000, 0xFF00, 0xFF, 0xFF000000) if mode == "RGBA" else (0, 0, 0, 0)
    head += struct.pack("<5I", *masks, _EMBEDDED if icc else _SRGB)
    start = 14 + size + len(palette)
    if icc:
        images_intent = 4
        head = head.ljust(_V4, b"\0")
        head += struct.pack("<4I", images_intent, start - 14 + len(pixels), len(icc), 0)
    whole = head.ljust(size, b"\0") + palette + pixels + icc
    return b"BM" + struct.pack("<IHHI", 14 + len(whole), 0, 0, start) + whole


def _starts(data: bytes) -> bool:
    # Two letters are weak evidence, so the size of a known header must follow.
    return data[:2] == b"BM" and len(data) >= 18 and u32le(data, 14) in _HEADERS


def _write(edit: Edit) -> Written:
    _, dropped = clean(edit.source, edit.policy)
    return Written(write_bmp(edit.stored, edit.mode, dpi=edit.dpi, icc=edit.icc), dropped, edit.rewritten)


FORMAT = Format(
    name="bmp",
    suffixes=("bmp", "dib"),
    starts=_starts,
    header=_header,
    decode=_decode,
    clean=clean,
    write=_write,
)
