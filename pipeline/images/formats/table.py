"""Every image format that is handled: one row each. What is done by format is looked up here.

Nothing in `sniff` and `header` decodes pixels, so they are safe on hostile input: the size that a header declares is
known before any decoder allocates for it.
"""

from __future__ import annotations

import struct
import zlib

from cleanplate.pipeline.images.formats import bmp, exif, gif, heif, jpeg, png, tiff, webp
from cleanplate.pipeline.images.formats.base import Cleaned, Format, Header, ImageError
from cleanplate.pipeline.images.formats.policy import Policy

FORMATS: dict[str, Format] = {
    one.name: one
    for one in (
        jpeg.FORMAT,
        png.FORMAT,
        gif.FORMAT,
        webp.FORMAT,
        bmp.FORMAT,
        tiff.FORMAT,
        heif.AVIF,
        heif.HEIF,
    )
}
# Known by their first bytes, so that the cause can name them.
_NOT_HANDLED = {"JPEG 2000": (b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")}


def sniff(data: bytes) -> str | None:
    """The name of the format that the first bytes are of; None for one that is not in the table."""
    return next((name for name, one in FORMATS.items() if one.starts(data)), None)


def header(data: bytes) -> Header:
    """Format, declared size and frame count without decoding.

    Raises ImageError: 'empty', 'not_an_image', 'unsupported', 'truncated', 'corrupt', 'too_large'.
    TIFF gives the first page's size and the length of its page chain.
    """
    if not data:
        raise ImageError("empty", "zero bytes")
    name = sniff(data)
    if name is None:
        for known, starts in _NOT_HANDLED.items():
            if data.startswith(starts):
                raise ImageError("unsupported", f"{known} is recognised, but not handled")
        raise ImageError("not_an_image", "no known image format starts like this")
    try:
        found = FORMATS[name].header(data)
    except (struct.error, IndexError) as error:
        raise ImageError("truncated", f"the {name} header ends early") from error
    if found.width < 1 or found.height < 1:
        raise ImageError("corrupt", f"the {name} header declares {found.width} x {found.height} pixels")
    return found


def exif_block(data: bytes, name: str) -> bytes | None:
    """The EXIF block of a file, from its byte order mark on; None where there is none. Raises ImageError."""
    read = FORMATS[name].exif
    return read(data) if read else None


def orientation_of(data: bytes, name: str) -> int:
    """The orientation 1..8 that viewers turn the file's rows by: of its EXIF, else of ImageMagick's raw profile in
    PNG, else of its XMP. 1 where the container turns the picture, as in AVIF. Raises ImageError."""
    read = FORMATS[name].orientation
    return read(data) if read else 1


def turned_by(data: bytes, name: str, orientation: int) -> bytes:
    """The file with this orientation in its EXIF, where it has lost it and its format has a place for it."""
    one = FORMATS[name]
    if one.with_exif is None or orientation_of(data, name) == orientation:
        return data
    return one.with_exif(data, exif.with_orientation(exif_block(data, name), orientation))


def clean(data: bytes, name: str, *, policy: Policy, edited: bool) -> Cleaned:
    """The file without what the policy forbids, and the names of what was dropped, in file order.

    name: format of `data`. edited: its pixels differ from its source's. Compressed pixel data passes byte for byte.
    An orientation that stands in what is dropped (XMP, a raw profile) moves to EXIF, so that viewers show what they
    showed. Raises ImageError where the file cannot be taken apart, ValueError for an unknown format.
    """
    if name not in FORMATS:
        raise ValueError(f"no metadata rules for {name!r}")
    if policy == "keep" and not edited:
        return data, []
    one = FORMATS[name]
    try:
        out, dropped = one.clean(data, policy)
    except (struct.error, IndexError, zlib.error) as error:
        raise ImageError("corrupt", f"the parts of the {name} contradict each other") from error
    return turned_by(out, name, orientation_of(data, name)), dropped


def mark(data: bytes, name: str) -> bytes | None:
    """The file with the mark of an edit in its XMP; None where it cannot be written: the format holds no XMP (BMP,
    GIF), or the XMP that is there cannot be added to."""
    write = FORMATS[name].mark
    return write(data) if write else None
