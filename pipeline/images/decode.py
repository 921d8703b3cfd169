"""Bytes to pixels: decode what is safe to decode, keeping what is needed to write it back."""

from __future__ import annotations

import io
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
    TiffImagePlugin,
    WebPImagePlugin,
)
from PIL.ImageFile import ImageFile

from cleanplate.models.types import Image
from cleanplate.pipeline.errors import ran_out_of_memory
from cleanplate.pipeline.images.formats import exif, heif, isobmff, jpeg_blocks
from cleanplate.pipeline.images.formats.base import ImageError, jpeg_segments, png_chunks, webp_chunks
from cleanplate.pipeline.images.formats.table import Header, header

T = TypeVar("T", bound=np.generic)
Stored = npt.NDArray[np.unsignedinteger]
ISO = ("avif", "heif")
"""Formats whose orientation is the container's, applied by the decoder; an EXIF orientation says nothing there."""

# The classes, not PIL.Image.open: that one tries every format it knows and has its own global size limit.
_PLUGINS: dict[str, type[ImageFile]] = {
    "jpeg": JpegImagePlugin.JpegImageFile,
    "png": PngImagePlugin.PngImageFile,
    "gif": GifImagePlugin.GifImageFile,
    "webp": WebPImagePlugin.WebPImageFile,
    "bmp": BmpImagePlugin.BmpImageFile,
    "tiff": TiffImagePlugin.TiffImageFile,
}

_MOST_SCANS = 200
"""Each scan of a progressive JPEG is a pass over the whole picture; encoders make about ten."""


@dataclass(frozen=True)
class Decoded:
    """An image in memory. Arrays are read-only.

    pixels: HWC uint8 RGB, upright, alpha left out (not blended with any background).
    format: 'jpeg', 'png', 'gif', 'webp', 'bmp', 'tiff', 'avif' or 'heif', by content.
    mode: colour model of `stored`: 'L', 'LA', 'RGB', 'RGBA' or 'CMYK'.
    bits: 8 or 16 per channel.
    stored: HWC uint8 or uint16 in that mode, upright; what the edit is written into.
    orientation: EXIF orientation 1..8 that turns the file's rows into `pixels`; 1 for TIFF, AVIF and HEIC,
        which are turned on load.
    icc: ICC profile or None. dpi: (x, y) in dots per inch or None.
    source_mode: how the file held it ('palette', 'bilevel', 'key' for a transparent colour, 'grey4' for
        grey of fewer than 8 bits), where that is not simply `mode`; else ''.
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
        return self.stored[..., -1] if self.mode in ("LA", "RGBA") else None


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
        return _decode(data, head)
    except ImageError:
        raise
    # The one place where foreign parsers read foreign bytes: whatever they raise is about this image.
    except Exception as error:
        if ran_out_of_memory(error):
            raise ImageError("out_of_memory", "not enough memory to decode") from error
        cut = "truncated" in str(error).lower() or isinstance(error, EOFError)
        raise ImageError(
            "truncated" if cut else "corrupt", f"{type(error).__name__} in the decoder"
        ) from error


def _decode(data: bytes, head: Header) -> Decoded:
    if head.format in ISO:
        stored, mode, icc, turned = heif.decode(data, head.format)
        return _decoded(head, upright(stored, turned), mode, icc=icc or None, lossy=True)
    orientation = exif.orientation(exif_block(data, head.format))
    if head.format == "jpeg" and jpeg_blocks.is_arithmetic(data):
        data = jpeg_blocks.to_huffman(data)  # Pillow's decoder is built without arithmetic coding
    with _PLUGINS[head.format](io.BytesIO(data)) as picture:
        icc = picture.info.get("icc_profile")
        dpi = picture.info.get("dpi")
        if _is_deep(data, picture):
            stored, mode, source_mode = _deep(data, head.format)
            if isinstance(picture, TiffImagePlugin.TiffImageFile):
                stored = upright(stored, int(picture.tag_v2.get(274, 1)))
        else:
            stored, mode, source_mode = _shallow(picture)  # Pillow has turned a TIFF by now
    clean_dpi = (float(dpi[0]), float(dpi[1])) if dpi and dpi[0] > 0 and dpi[1] > 0 else None
    lossy = head.format == "jpeg" or (
        head.format == "webp" and any(k == b"VP8 " for k, _ in webp_chunks(data))
    )
    return _decoded(
        head, upright(stored, orientation), mode, orientation, icc or None, clean_dpi, source_mode, lossy
    )


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
    bits = getattr(picture, "_bits", 8)
    if target == "L" and not source_mode and bits < 8:
        source_mode = "grey4"
    return np.array(array[..., None] if array.ndim == 2 else array), target, source_mode


def _is_deep(data: bytes, picture: ImageFile) -> bool:
    if picture.format == "PNG":
        return data[24] == 16
    if isinstance(picture, TiffImagePlugin.TiffImageFile):
        depth = picture.tag_v2.get(258, (1,))
        if max(depth) > 16 or any(kind != 1 for kind in picture.tag_v2.get(339, (1,))):
            raise ImageError("unsupported", "TIFF samples that are not 8- or 16-bit unsigned are not handled")
        return bool(max(depth) == 16)
    return False


def _deep(data: bytes, name: str) -> tuple[Stored, str, str]:
    # Pillow keeps 8 of 16 bits for colour; OpenCV keeps them all. cv2.IMREAD_UNCHANGED does not turn.
    found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if found is None:
        raise ImageError("corrupt", f"the 16-bit {name} cannot be decoded")
    if found.dtype != np.uint16:
        raise ImageError("unsupported", f"this kind of 16-bit {name} is not handled")
    array = found.astype(np.uint16, copy=False)
    if array.ndim == 2:
        return array[..., None], "L", ""
    channels = array.shape[2]
    if channels == 4:
        keyed = name == "png" and data[25] in (0, 2)
        if name == "png" and data[25] in (0, 4):
            return array[..., [0, 3]], "LA", "key" if keyed else ""
        return array[..., [2, 1, 0, 3]], "RGBA", "key" if keyed else ""
    if channels == 3:
        return array[..., ::-1], "RGB", ""
    raise ImageError("unsupported", f"{channels} channels of 16 bits are not handled")


def to_rgb(stored: Stored, mode: str) -> Image:
    """HWC uint8 RGB of an HWC array in `mode`; alpha left out; 16 bits rounded to 8.

    CMYK is turned by the plain formula (no profile): R = (255 - C)(255 - K) / 255.
    """
    colour = stored[..., :1] if mode in ("L", "LA") else stored if mode == "CMYK" else stored[..., :3]
    colour = to_eight_bits(colour)
    if mode in ("L", "LA"):
        return np.repeat(colour, 3, axis=2).astype(np.uint8)
    if mode == "CMYK":
        ink = 255 - colour.astype(np.uint16)
        return ((ink[..., :3] * ink[..., 3:] + 127) // 255).astype(np.uint8)
    return np.ascontiguousarray(colour, dtype=np.uint8)


def to_eight_bits(array: Stored) -> npt.NDArray[np.uint8]:
    """16 bits rounded to 8 (65535 -> 255); 8 bits as they are."""
    if array.dtype == np.uint16:
        return ((array.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    return array.astype(np.uint8, copy=False)


def exif_block(data: bytes, name: str) -> bytes | None:
    """The EXIF block of a JPEG, PNG, WebP, HEIC or AVIF file, from its byte order mark on; None where there is none."""
    found: bytes | None = None
    if name == "jpeg":
        segments, _ = jpeg_segments(data)
        found = next((s.payload for s in segments if s.marker == 0xE1 and s.payload[:4] == b"Exif"), None)
    elif name == "png":
        found = next((body for kind, body in png_chunks(data) if kind == b"eXIf"), None)
    elif name == "webp":
        found = next((body for kind, body in webp_chunks(data) if kind == b"EXIF"), None)
    elif name in ISO:
        found = isobmff.exif_item(data)
    if found is not None and found[:6] in (b"Exif\0\0", b"Exif\0\xff"):
        found = found[6:]
    return found


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
