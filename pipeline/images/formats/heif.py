"""HEIC and AVIF: pixels out of them, and their metadata wiped in place.

They are read, never written: both code lossily, so an edited one becomes PNG. Pictures are addressed by absolute
offsets; what must go is therefore overwritten where it lies, and thumbnails become items of type `free`, which readers
pass over. AVIF is decoded by Pillow (8 bits) and OpenCV (10 and 12), HEIC by pillow-heif, which is an extra.
"""

from __future__ import annotations

import io

import cv2
import numpy as np
import numpy.typing as npt
from PIL import AvifImagePlugin

from cleanplate.pipeline.images.formats import exif
from cleanplate.pipeline.images.formats.base import ImageError
from cleanplate.pipeline.images.formats.isobmff import (
    CODED,
    Box,
    Item,
    Pictures,
    bits,
    boxes,
    content,
    pictures,
)

Stored = npt.NDArray[np.unsignedinteger]
_KNOWN = frozenset([b"ftyp", b"meta", b"mdat", b"moov", b"free", b"skip"])
_XMP_TYPE = b"application/rdf+xml"
_CHANNELS = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


def decode(data: bytes, name: str) -> tuple[Stored, str, bytes | None, int]:
    """HW or HWC array, uint8, or uint16 with 10 and 12 bits spread over 16; its mode; its ICC profile; and the EXIF
    orientation 1..8 that turns it upright.

    name: 'avif' or 'heif'. Raises ImageError('unsupported') for HEIC without the extra.
    """
    depth = bits(data)
    if name == "heif":
        array, icc, turned = _heif(data, depth)
    else:
        array, icc, turned = _avif(data, depth)
    array = array[..., None] if array.ndim == 2 else array
    return array, _CHANNELS[array.shape[2]], icc, turned


def _avif(data: bytes, depth: int) -> tuple[Stored, bytes | None, int]:
    with AvifImagePlugin.AvifImageFile(io.BytesIO(data)) as picture:
        icc, turned = picture.info.get("icc_profile"), int(picture.getexif().get(exif.ORIENTATION, 1))
        if depth == 8:
            return np.asarray(picture), icc, turned
    found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if found is None or found.dtype != np.uint16:
        raise ImageError("unsupported", f"this kind of AVIF of {depth} bits is not handled")
    array = found.astype(np.uint16, copy=False)
    array = array[..., [2, 1, 0, 3][: array.shape[2]]] if array.ndim == 3 else array
    return _spread(array, depth), icc, turned


def _heif(data: bytes, depth: int) -> tuple[Stored, bytes | None, int]:
    try:
        import pillow_heif
    except ImportError as error:
        raise ImageError("unsupported", "HEIC needs the extra: pip install 'cleanplate[heif]'") from error
    found = pillow_heif.open_heif(io.BytesIO(data), convert_hdr_to_8bit=False)
    array: Stored = np.asarray(found)
    if array.dtype == np.uint16:  # It gives 10 and 12 bits in the upper ones of 16.
        array = _spread((array >> (16 - depth)).astype(np.uint16), depth)
    return array, found.info.get("icc_profile"), 1


def _spread(array: npt.NDArray[np.uint16], depth: int) -> npt.NDArray[np.uint16]:
    """0..2^depth - 1 as 0..65535, rounded: turned back by rounding again."""
    top = (1 << depth) - 1
    return ((array.astype(np.uint32) * 65535 + top // 2) // top).astype(np.uint16)


def clean(data: bytes, policy: str) -> tuple[bytes, list[str]]:
    """The file without what the policy forbids, as long as before; and the names of what was dropped.

    policy: 'scrub' or 'strip' (`metadata`). Raises BoxError.
    """
    found, out, dropped = pictures(data), bytearray(data), []
    for item in found.items.values():
        if item.kind == b"Exif":
            dropped += _wipe_exif(data, out, item, policy)
        elif item.kind not in CODED and item.kind != b"free":
            is_xmp = item.kind == b"mime" and item.content == _XMP_TYPE
            dropped.append("XMP" if is_xmp else f"item {item.kind.decode('latin-1')}")
            _free(out, item)
    for number in _thumbnails(found):
        dropped.append("thumbnail")
        _free(out, found.items[number])
    for kind, at, _, _ in found.refs:
        if kind == b"thmb":
            out[at : at + 4] = b"free"
    for box in {b.start: b for many in found.properties.values() for b in many if b.kind == b"udes"}.values():
        _blank(out, box, b"free")
        dropped.append("description")
    for box in boxes(data, 0, len(data)):
        if box.kind not in _KNOWN:
            _blank(out, box, b"free")
            dropped.append(
                "C2PA or other uuid box" if box.kind == b"uuid" else f"box {box.kind.decode('latin-1')}"
            )
        elif box.kind in (b"free", b"skip") and any(data[box.body : box.end]):
            _blank(out, box, b"free")
            dropped.append("bytes in free space")
    return bytes(out), dropped


def _wipe_exif(data: bytes, out: bytearray, item: Item, policy: str) -> list[str]:
    body = content(data, item)
    skipped = 4 + int.from_bytes(body[:4], "big")
    kept, lost = exif.rebuild(body[skipped:], policy=policy)
    if kept is None or len(kept) > len(body) - skipped:
        _free(out, item)
        return lost or ["EXIF"]
    _overwrite(out, item, body[:skipped] + kept)
    return lost


def _thumbnails(found: Pictures) -> set[int]:
    """Items that are another one's thumbnail, and the tiles that only such are made of."""
    gone = {source for kind, _, source, _ in found.refs if kind == b"thmb"} - {found.primary}
    while more := {
        t
        for kind, _, source, to in found.refs
        if kind == b"dimg" and source in gone
        for t in to
        if t not in gone
    }:
        kept = {t for kind, _, source, to in found.refs if kind == b"dimg" and source not in gone for t in to}
        if not (new := more - kept):
            break
        gone |= new
    return {n for n in gone if n in found.items and found.items[n].kind != b"free"}


def _free(out: bytearray, item: Item) -> None:
    _overwrite(out, item, b"")
    out[item.at : item.at + 4] = b"free"


def _overwrite(out: bytearray, item: Item, content: bytes) -> None:
    """Lay content over the item's extents, the rest of them zeros."""
    content = content.ljust(sum(size for _, size in item.extents), b"\0")
    for start, size in item.extents:
        out[start : start + size], content = content[:size], content[size:]


def _blank(out: bytearray, box: Box, kind: bytes) -> None:
    out[box.start + 4 : box.start + 8] = kind
    out[box.body : box.end] = bytes(box.end - box.body)
