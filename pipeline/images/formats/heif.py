"""HEIC and AVIF: pixels out of them, and their metadata wiped in place.

They are read, never written: both code lossily, so an edited one becomes PNG. Pictures are addressed by absolute
offsets; what must go is therefore overwritten where it lies, and thumbnails become items of type `free`, which readers
pass over. AVIF is decoded by Pillow (8 bits) and OpenCV (10 and 12), HEIC by pillow-heif, which is an extra.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt
from PIL import AvifImagePlugin

from cleanplate.pipeline.images.formats import exif, isobmff
from cleanplate.pipeline.images.formats.base import TAIL, Cleaned, Format, Header, ImageError, Rows, Stored
from cleanplate.pipeline.images.formats.isobmff import (
    CODED,
    Box,
    BoxError,
    Item,
    Pictures,
    bits,
    boxes,
    content,
    ending,
    pictures,
)
from cleanplate.pipeline.images.formats.policy import Policy

_KNOWN = frozenset([b"ftyp", b"meta", b"mdat", b"moov", b"free", b"skip"])
_XMP_TYPE = b"application/rdf+xml"
_META = frozenset([b"hdlr", b"pitm", b"iinf", b"iloc", b"iprp", b"iref", b"idat", b"dinf", b"grpl", b"free"])
# Properties that tell of a picture instead of showing it: description, alternative text, dates.
_TELLING = frozenset([b"udes", b"altt", b"crtt", b"mdft", b"uuid", b"free"])
_NAMES = frozenset([b"", b"Color", b"Alpha", b"Exif", b"XMP", b"HEVC Image", b"AV1 Image"])
_CHANNELS = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


def _decode(data: bytes, name: str) -> Rows:
    """uint8, or uint16 with 10 and 12 bits spread over 16. Raises ImageError('unsupported') for HEIC without the
    extra."""
    data = data[: ending(data)]
    depth = bits(data)
    if name == "heif":
        array, icc, turned = _heif(data, depth)
    else:
        array, icc, turned = _avif(data, depth)
    array = array[..., None] if array.ndim == 2 else array
    return Rows(array, _CHANNELS[array.shape[2]], "", icc or None, None, turned, turned=True, lossy=True)


def _avif(data: bytes, depth: int) -> tuple[Stored, bytes | None, int]:
    with AvifImagePlugin.AvifImageFile(io.BytesIO(data)) as picture:
        icc, turned = picture.info.get("icc_profile"), int(picture.getexif().get(exif.ORIENTATION, 1))
        if depth == 8:
            return np.asarray(picture), icc, turned
    found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if found is None:
        raise ImageError("corrupt", "the AVIF's picture data is damaged")
    if found.dtype != np.uint16:
        raise ImageError("unsupported", f"this kind of AVIF of {depth} bits is not handled")
    array = found.astype(np.uint16, copy=False)
    array = array[..., [2, 1, 0, 3][: array.shape[2]]] if array.ndim == 3 else array
    return _spread(array, depth), icc, turned


def _heif(data: bytes, depth: int) -> tuple[Stored, bytes | None, int]:
    try:
        import pillow_heif
    except ImportError as error:
        raise ImageError("unsupported", "HEIC needs the extra: pip install '.[heif]'") from error
    found = pillow_heif.open_heif(io.BytesIO(data), convert_hdr_to_8bit=False)
    array: Stored = np.asarray(found)
    if array.dtype == np.uint16:  # It gives 10 and 12 bits in the upper ones of 16.
        array = _spread((array >> (16 - depth)).astype(np.uint16), depth)
    return array, found.info.get("icc_profile"), 1


def _spread(array: npt.NDArray[np.uint16], depth: int) -> npt.NDArray[np.uint16]:
    """0..2^depth - 1 as 0..65535, rounded: turned back by rounding again."""
    top = (1 << depth) - 1
    return ((array.astype(np.uint32) * 65535 + top // 2) // top).astype(np.uint16)


def clean(data: bytes, policy: Policy) -> Cleaned:
    """The file without what the policy forbids, as long as its boxes are; and the names of what was dropped.

    With 'keep' the file as it is: an edited one is written as PNG, with the EXIF alone. Raises ImageError.
    """
    if policy == "keep":
        return data, []
    try:
        return _clean(data, policy)
    except BoxError as error:
        raise ImageError("corrupt", f"the metadata cannot be taken out: {error}") from error


def _clean(data: bytes, policy: Policy) -> Cleaned:
    whole, data = data, data[: ending(data)]
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
    dropped += _blank_boxes(data, out)
    if _blank_gaps(data, out, found):
        dropped.append("bytes that no item covers")
    if len(whole) > len(data):
        dropped.append(TAIL)
    return bytes(out), dropped


def _blank_boxes(data: bytes, out: bytearray) -> list[str]:
    # Boxes that say something, and names: at the top of the file, in its meta box, among the properties.
    dropped = []
    for box in boxes(data, 0, len(data)):
        if box.kind in (b"free", b"skip"):
            if any(data[box.body : box.end]):
                _blank(out, box, b"free")
                dropped.append("bytes in free space")
        elif box.kind not in _KNOWN:
            _blank(out, box, b"free")
            name = "C2PA or other uuid box" if box.kind == b"uuid" else f"box {box.kind.decode('latin-1')}"
            dropped.append(name)
        if box.kind == b"meta":
            dropped += _blank_meta(data, out, box)
    return dropped


def _blank_meta(data: bytes, out: bytearray, meta: Box) -> list[str]:
    dropped = []
    for box in boxes(data, meta.body + 4, meta.end):
        if box.kind not in _META or (box.kind == b"free" and any(data[box.body : box.end])):
            _blank(out, box, b"free")
            dropped.append(f"box {box.kind.decode('latin-1')}")
        elif box.kind == b"hdlr" and any(data[box.body + 24 : box.end]):
            out[box.body + 24 : box.end] = bytes(box.end - box.body - 24)
            dropped.append("name of the handler")
        elif box.kind == b"iprp":
            for part in boxes(data, box.body, box.end):
                for prop in boxes(data, part.body, part.end) if part.kind == b"ipco" else ():
                    if prop.kind in _TELLING and any(data[prop.body : prop.end]):
                        _blank(out, prop, b"free")
                        dropped.append("description" if prop.kind == b"udes" else "property")
    return dropped


def _blank_gaps(data: bytes, out: bytearray, found: Pictures) -> bool:
    """Zeros where no item lies in the boxes that hold items, and in the names of items; was there anything?"""
    before = out.count(0)
    for item in found.items.values():
        stop = data.index(b"\0", item.at + 4)
        if data[item.at + 4 : stop] not in _NAMES:
            out[item.at + 4 : stop] = bytes(stop - item.at - 4)
    top = list(boxes(data, 0, len(data)))
    inner = [b for box in top if box.kind == b"meta" for b in boxes(data, box.body + 4, box.end)]
    held = bytearray(len(data))
    for start, size in (extent for item in found.items.values() for extent in item.extents):
        held[start : start + size] = out[start : start + size]
    for box in (b for b in [*top, *inner] if b.kind in (b"mdat", b"idat")):
        out[box.body : box.end] = held[box.body : box.end]
    return out.count(0) != before


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


def _brands(data: bytes) -> list[bytes]:
    # The major brand first. Empty where the file does not start with a box of brands.
    stop = min(int.from_bytes(data[:4], "big"), 256)
    return [data[8:12]] + [data[at : at + 4] for at in range(16, stop, 4)] if data[4:8] == b"ftyp" else []


def _is_avif(data: bytes) -> bool:
    return bool({b"avif", b"avis"} & set(_brands(data)))


def _is_heif(data: bytes) -> bool:
    brands = _brands(data)
    return bool(brands) and brands[0][:2] in (b"he", b"mi", b"ms") and not _is_avif(data)


def _header(data: bytes, name: str) -> Header:
    try:
        width, height = isobmff.size(data, cropped=name == "heif")
        moves = isobmff.pictures(data).sequence
        return Header(name, width, height, isobmff.frames(data), pages=not moves)
    except BoxError as error:
        raise ImageError("truncated" if error.cut else "corrupt", f"the {name} header: {error}") from error


def _exif(data: bytes) -> bytes | None:
    return exif.bare(isobmff.exif_item(data))


def _format(name: str, suffixes: tuple[str, ...], starts: Callable[[bytes], bool]) -> Format:
    # No `orientation`: the container turns the picture, and the decoder does; EXIF says nothing there.
    return Format(
        name=name,
        suffixes=suffixes,
        starts=starts,
        header=lambda data: _header(data, name),
        decode=lambda data: _decode(data, name),
        clean=clean,
        as_png=f"lossy {name} written as PNG, so that nothing outside the edit changes",
        exif=_exif,
    )


AVIF = _format("avif", ("avif",), _is_avif)
HEIF = _format("heif", ("heic", "heif"), _is_heif)
