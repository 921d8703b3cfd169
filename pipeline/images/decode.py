"""Bytes to pixels: decode what is safe to decode, keeping what is needed to write it back."""

from __future__ import annotations

import io
import re
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
import numpy.typing as npt
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    WebPImagePlugin,
)
from PIL import Image as PillowImage
from PIL.ImageFile import ImageFile

from cleanplate.models.types import Image
from cleanplate.pipeline.errors import ran_out_of_memory
from cleanplate.pipeline.images.formats import bmp, heif, isobmff, jpeg_blocks, png_read
from cleanplate.pipeline.images.formats.base import ImageError, jpeg_ends, jpeg_segments, webp_chunks
from cleanplate.pipeline.images.formats.orientation import ISO, orientation_of
from cleanplate.pipeline.images.formats.table import Header, header
from cleanplate.pipeline.images.formats.tiff_form import form as tiff_form
from cleanplate.pipeline.images.formats.tiff_read import decode_tiff, dpi_of, icc_of

T = TypeVar("T", bound=np.generic)
Stored = npt.NDArray[np.unsignedinteger]
# The classes, not PIL.Image.open: that one tries every format it knows and has its own global size limit.
_PLUGINS: dict[str, type[ImageFile]] = {
    "jpeg": JpegImagePlugin.JpegImageFile,
    "gif": GifImagePlugin.GifImageFile,
    "webp": WebPImagePlugin.WebPImageFile,
    "bmp": BmpImagePlugin.BmpImageFile,
}

ALPHA, PREMULTIPLIED = ("LA", "RGBA", "La", "RGBa"), ("La", "RGBa")
"""Modes with alpha, and those of them whose colours alpha is multiplied into."""
_GREY = ("L", "LA", "La")
_JPEG_APPS = (b"JFIF\0", b"Exif\0", b"ICC_PROFILE\0", b"Adobe")
# Entropy-coded bits that no whole scan reads; a cut one would show them.
_FILLER = bytes((i * 151 + 43) % 251 for i in range(4096)) + b"\xff\xd9"
_PROSE = re.compile(r"[a-z0-9 ,.:;-]{4,90}")
_LIMIT = threading.Lock()
_decoding, _theirs = 0, PillowImage.MAX_IMAGE_PIXELS

_MOST_SCANS = 200
"""Each scan of a progressive JPEG is a pass over the whole picture; encoders make about ten."""


@dataclass(frozen=True)
class Decoded:
    """An image in memory. Arrays are read-only.

    pixels: HWC uint8 RGB, upright, alpha left out (not blended with any background).
    format: 'jpeg', 'png', 'gif', 'webp', 'bmp', 'tiff', 'avif' or 'heif', by content.
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
    dpi: tuple[float, float] | None = None
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
    Raises ImageError (see `formats.KINDS`); nothing else for any bytes.
    """
    head = header(data)
    if head.width * head.height > max_pixels:
        raise ImageError("too_large", f"{head.width} x {head.height} pixels, the limit is {max_pixels}")
    if head.frames > 1:
        pages = head.format == "tiff" or (head.format in ISO and not isobmff.pictures(data).sequence)
        kind = "multipage" if pages else "animated"
        raise ImageError(kind, f"{head.frames} pictures in one {head.format} file are not handled")
    if head.format == "jpeg" and data.count(b"\xff\xda") > _MOST_SCANS:
        raise ImageError("too_large", f"a JPEG of more than {_MOST_SCANS} scans")
    try:
        with _our_limit():
            return _decode(data, head)
    except ImageError:
        raise
    # The one place where foreign parsers read foreign bytes: whatever they raise is about this image.
    except Exception as error:
        raise _cause(error, head.format) from error


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


def _decode(data: bytes, head: Header) -> Decoded:
    if head.format in ISO:
        stored, mode, icc, turned = heif.decode(data, head.format)
        return _decoded(head, upright(stored, turned), mode, icc=icc or None, lossy=True)
    if head.format == "tiff":
        stored, mode, held, turned = decode_tiff(data)
        form = tiff_form(data)
        return _decoded(
            head, upright(stored, turned), mode, icc=icc_of(form), dpi=dpi_of(form), source_mode=held
        )
    orientation = orientation_of(data, head.format)
    if head.format == "png":
        stored, mode, held = _png(data)
        icc, dpi = png_read.profile(data), png_read.resolution(data)
    elif head.format == "jpeg":
        stored, mode, held, icc, dpi = _jpeg(data)
    else:
        stored, mode, held, icc, dpi = _by_pillow(data, head.format)
    icc = bmp.profile(data) if head.format == "bmp" else icc
    lossy = head.format == "jpeg" or (
        head.format == "webp" and any(k == b"VP8 " for k, _ in webp_chunks(data))
    )
    return _decoded(head, upright(stored, orientation), mode, orientation, icc, dpi, held, lossy)


Found = tuple[Stored, str, str, bytes | None, tuple[float, float] | None]
"""Rows of the file, mode, how the file held it, ICC profile, dots per inch."""


def _by_pillow(data: bytes, name: str) -> Found:
    with _PLUGINS[name](io.BytesIO(data)) as picture:
        icc, dpi = picture.info.get("icc_profile"), picture.info.get("dpi")
        stored, mode, held = _shallow(picture)
    if name == "bmp" and mode == "L" and data[28] < 8 and not held:
        held = f"{data[28]}-bit grey"
    clean_dpi = (float(dpi[0]), float(dpi[1])) if dpi and dpi[0] > 0 and dpi[1] > 0 else None
    return stored, mode, held, icc or None, clean_dpi


def _png(data: bytes) -> tuple[Stored, str, str]:
    pixels = png_read.bare(data)
    depth = data[24]
    if depth == 16:
        png_read.check_pixel_data(pixels)
        return _deep_png(pixels)
    with PngImagePlugin.PngImageFile(io.BytesIO(pixels)) as picture:
        stored, mode, held = _shallow(picture)
    return stored, mode, f"{depth}-bit grey" if depth < 8 and mode == "L" and not held else held


def _jpeg(data: bytes) -> Found:
    """Pillow gets the segments joined anew: what lies between them, which libjpeg skips, would stop it."""
    segments, _ = jpeg_segments(data)
    ended = jpeg_ends(data)
    if jpeg_blocks.is_arithmetic(data):
        segments, _ = jpeg_segments(
            jpeg_blocks.to_huffman(data)
        )  # Pillow's decoder knows no arithmetic coding
    kept = [s for s in segments if not 0xE0 <= s.marker <= 0xEF or s.payload.startswith(_JPEG_APPS)]
    whole = b"\xff\xd8" + b"".join(s.to_bytes() for s in kept if s.marker != 0xFE)
    found = _by_pillow(whole + b"\xff\xd9", "jpeg")
    # Without an end marker nobody knows whether the scan is whole. One that is does not read what follows it.
    if not ended and (found[0] != _by_pillow(whole.rstrip(b"\xff") + _FILLER, "jpeg")[0]).any():
        raise ImageError("truncated", "the JPEG ends inside its picture")
    return found


def _decoded(
    head: Header,
    stored: Stored,
    mode: str,
    orientation: int = 1,
    icc: bytes | None = None,
    dpi: tuple[float, float] | None = None,
    source_mode: str = "",
    lossy: bool = False,
) -> Decoded:
    """stored: upright. Raises ImageError where it is not of the declared size."""
    stored = np.ascontiguousarray(stored)
    if stored.shape[0] * stored.shape[1] != head.width * head.height:
        raise ImageError("corrupt", "the decoded size differs from the declared one")
    pixels = to_rgb(stored, mode)
    for array in (stored, pixels):
        array.flags.writeable = False
    bits = 16 if stored.dtype == np.uint16 else 8
    return Decoded(pixels, head.format, mode, bits, stored, orientation, icc, dpi, source_mode, lossy)


def _shallow(picture: ImageFile) -> tuple[Stored, str, str]:
    # 8-bit HWC array, its mode, and how the file held it.
    picture.load()
    mode, keyed = picture.mode, "transparency" in picture.info
    source_mode = {"P": "palette", "PA": "palette", "1": "bilevel"}.get(mode, "key" if keyed else "")
    if mode in ("P", "PA"):
        target = "RGBA" if keyed or mode == "PA" else "RGB"
    elif keyed:
        target = "RGBA" if mode == "RGB" else "LA"
    elif mode in ("RGB", "L", "LA", "RGBA", "CMYK"):
        target = mode
    elif mode in ("1", "RGBX", "YCbCr", "RGBa", "La"):
        target = {"1": "L", "RGBX": "RGB", "YCbCr": "RGB", "RGBa": "RGBA", "La": "LA"}[mode]
    else:
        raise ImageError("unsupported", f"pixels of kind {mode} are not handled")
    flat = picture if mode == target else picture.convert("RGBA" if target == "LA" and keyed else target)
    array = np.asarray(flat if flat.mode == target else flat.convert(target))
    return np.array(array[..., None] if array.ndim == 2 else array), target, source_mode


def _deep_png(data: bytes) -> tuple[Stored, str, str]:
    # Pillow keeps 8 of 16 bits for colour; OpenCV keeps them all. The pixel data is known to be whole.
    found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if found is None or found.dtype != np.uint16:
        raise ImageError("corrupt", "the 16-bit PNG cannot be decoded")
    array = found.astype(np.uint16, copy=False)
    colour = data[25]
    channels = {0: 1, 2: 3, 4: 2, 6: 4}.get(colour)
    if array.ndim == 2 and channels == 1:
        return array[..., None], "L", ""
    if array.ndim == 3 and array.shape[2] == 3 and channels == 3:
        return array[..., ::-1], "RGB", ""
    if array.ndim == 3 and array.shape[2] == 4:
        if colour in (0, 4):
            return array[..., [0, 3]], "LA", "key" if colour == 0 else ""
        return array[..., [2, 1, 0, 3]], "RGBA", "key" if colour == 2 else ""
    raise ImageError("unsupported", "this kind of 16-bit PNG is not handled")


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
