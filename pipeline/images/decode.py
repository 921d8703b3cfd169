"""Bytes to pixels: decode what is safe to decode, keeping what is needed to write it back."""

from __future__ import annotations

import re
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image as PillowImage

from cleanplate.models.types import Image
from cleanplate.pipeline.errors import ran_out_of_memory
from cleanplate.pipeline.images.formats.base import Dpi, Header, ImageError, Rows, Stored
from cleanplate.pipeline.images.formats.table import FORMATS, header

T = TypeVar("T", bound=np.generic)
ALPHA, PREMULTIPLIED = ("LA", "RGBA", "La", "RGBa"), ("La", "RGBa")
"""Modes with alpha, and those of them whose colours alpha is multiplied into."""
_GREY = ("L", "LA", "La")
_PROSE = re.compile(r"[a-z0-9 ,.:;-]{4,90}")
_LIMIT = threading.Lock()
_decoding, _theirs = 0, PillowImage.MAX_IMAGE_PIXELS


@dataclass(frozen=True)
class Decoded:
    """An image in memory. Arrays are read-only.

    pixels: HWC uint8 RGB, upright, alpha left out (not blended with any background).
    format: its name in `formats.table`, by content.
    mode: colour model of `stored`: 'L', 'LA', 'RGB', 'RGBA' or 'CMYK'; 'La' and 'RGBa' where alpha is multiplied into
        the colours (TIFF's associated alpha).
    bits: 8 or 16 per channel.
    stored: HWC uint8 or uint16 in that mode, upright; what the edit is written into.
    orientation: EXIF orientation 1..8 that turns the file's rows into `pixels`; 1 for TIFF, AVIF and HEIC,
        which are turned on load.
    icc: ICC profile or None. dpi: (x, y) in dots per inch or None.
    source_mode: how the file held it ('palette', 'bilevel', 'key' for a transparent colour, '4-bit grey',
        'white-is-zero'), where that is not simply `mode`; else ''.
    lossy: the file's pixel data is lossily compressed (JPEG, WebP VP8, AVIF, HEIC).
    """

    pixels: Image
    format: str
    mode: str
    bits: int
    stored: Stored
    orientation: int = 1
    icc: bytes | None = None
    dpi: Dpi | None = None
    source_mode: str = ""
    lossy: bool = False

    @property
    def height(self) -> int:
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        return int(self.pixels.shape[1])

    @property
    def alpha(self) -> Stored | None:
        """HW in the depth of `stored`, 0 = transparent; None where the image has no alpha."""
        return self.stored[..., -1] if self.mode in ALPHA else None


def decode(data: bytes, *, max_pixels: int = 256_000_000) -> Decoded:
    """The image of an encoded file, by content. The declared size is checked before anything is decoded.

    max_pixels: largest width x height that is decoded.
    Raises ImageError (see `base.KINDS`); nothing else for any bytes.
    """
    head = header(data)
    if head.width * head.height > max_pixels:
        raise ImageError("too_large", f"{head.width} x {head.height} pixels, the limit is {max_pixels}")
    if head.frames > 1:
        kind = "multipage" if head.pages else "animated"
        raise ImageError(kind, f"{head.frames} pictures in one {head.format} file are not handled")
    try:
        with _our_limit():
            return _upright(head, FORMATS[head.format].decode(data))
    except ImageError:
        raise
    # The one place where foreign parsers read foreign bytes: whatever they raise is about this image.
    except Exception as error:
        raise _cause(error, head.format) from error


def _upright(head: Header, rows: Rows) -> Decoded:
    """Raises ImageError where the picture is not of the declared size."""
    stored = np.ascontiguousarray(upright(rows.stored, rows.orientation))
    if stored.shape[0] * stored.shape[1] != head.width * head.height:
        raise ImageError("corrupt", "the decoded size differs from the declared one")
    pixels = to_rgb(stored, rows.mode)
    for array in (stored, pixels):
        array.flags.writeable = False
    return Decoded(
        pixels=pixels,
        format=head.format,
        mode=rows.mode,
        bits=16 if stored.dtype == np.uint16 else 8,
        stored=stored,
        orientation=1 if rows.turned else rows.orientation,
        icc=rows.icc,
        dpi=rows.dpi,
        source_mode=rows.held,
        lossy=rows.lossy,
    )


def _cause(error: Exception, name: str) -> ImageError:
    # What a person understands, of whatever a decoder raised. No bytes of the file get into it.
    if ran_out_of_memory(error):
        return ImageError("out_of_memory", "not enough memory to decode")
    words = str(error).lower()
    if isinstance(error, EOFError) or any(
        word in words for word in ("truncated", "not enough", "end of file")
    ):
        return ImageError("truncated", f"the {name} ends before its picture does")
    if isinstance(error, OSError | SyntaxError | RuntimeError | zlib.error) and _PROSE.fullmatch(words):
        return ImageError("corrupt", f"the {name} is damaged: {words}")
    return ImageError("corrupt", f"the {name} is damaged: its parts contradict each other")


@contextmanager
def _our_limit() -> Iterator[None]:
    """Pillow has a size limit of its own, below ours, in a global variable: off while we decode."""
    global _decoding, _theirs
    with _LIMIT:
        if _decoding == 0:
            _theirs, PillowImage.MAX_IMAGE_PIXELS = PillowImage.MAX_IMAGE_PIXELS, None
        _decoding += 1
    try:
        yield
    finally:
        with _LIMIT:
            _decoding -= 1
            if _decoding == 0:
                PillowImage.MAX_IMAGE_PIXELS = _theirs


def to_rgb(stored: Stored, mode: str) -> Image:
    """HWC uint8 RGB of an HWC array in `mode`; alpha left out; 16 bits rounded to 8.

    CMYK is turned by the plain formula (no profile): R = (255 - C)(255 - K) / 255. Colours that alpha is multiplied
    into are divided by it.
    """
    stored = straight(stored, mode)
    colour = stored[..., :1] if mode in _GREY else stored if mode == "CMYK" else stored[..., :3]
    colour = to_eight_bits(colour)
    if mode in _GREY:
        return np.repeat(colour, 3, axis=2).astype(np.uint8)
    if mode == "CMYK":
        ink = 255 - colour.astype(np.uint16)
        return ((ink[..., :3] * ink[..., 3:] + 127) // 255).astype(np.uint8)
    return np.ascontiguousarray(colour, dtype=np.uint8)


def straight(stored: Stored, mode: str) -> Stored:
    """The array with colours divided by alpha where `mode` ('La', 'RGBa') says that they are multiplied by it."""
    if mode not in PREMULTIPLIED:
        return stored
    alpha = stored[..., -1:].astype(np.uint32)
    top = np.iinfo(stored.dtype).max
    colour = (stored[..., :-1].astype(np.uint32) * top + alpha // 2) // np.maximum(alpha, 1)
    colour = np.where(alpha == 0, stored[..., :-1], np.minimum(colour, top))
    return np.concatenate([colour.astype(stored.dtype), stored[..., -1:]], axis=2)


def to_eight_bits(array: Stored) -> npt.NDArray[np.uint8]:
    """16 bits rounded to 8 (65535 -> 255); 8 bits as they are."""
    if array.dtype == np.uint16:
        return ((array.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    return array.astype(np.uint8, copy=False)


def upright(array: npt.NDArray[T], orientation: int) -> npt.NDArray[T]:
    """HW.. rows of the file turned upright by EXIF orientation 1..8 (Exif 2.32, figure of tag 274)."""
    if orientation == 2:
        return array[:, ::-1]
    if orientation == 3:
        return array[::-1, ::-1]
    if orientation == 4:
        return array[::-1]
    if orientation == 5:
        return array.swapaxes(0, 1)
    if orientation == 6:
        return array.swapaxes(0, 1)[:, ::-1]
    if orientation == 7:
        return array[::-1, ::-1].swapaxes(0, 1)
    if orientation == 8:
        return array.swapaxes(0, 1)[::-1]
    return array


def upright_to_stored(array: npt.NDArray[T], orientation: int) -> npt.NDArray[T]:
    """The inverse of `upright`."""
    return upright(array, {6: 8, 8: 6}.get(orientation, orientation))
