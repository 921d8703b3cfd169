"""A JPEG encoded anew: a new file, or an old one whose blocks cannot be replaced one by one."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from PIL import Image as PillowImage
from PIL import JpegImagePlugin

from cleanplate.pipeline.images.formats.jpeg_coding.parts import is_app, joined, jpeg_segments

_ADOBE = 0xEE  # APP14 says how the colours are coded, so it belongs to the scan


def write_jpeg(
    stored: npt.NDArray[np.unsignedinteger],
    *,
    quality: int,
    icc: bytes | None = None,
    dpi: tuple[float, float] | None = None,
    exif: bytes | None = None,
) -> bytes:
    """A new JPEG of an HWC uint8 array: 1 channel grey, 3 RGB, 4 CMYK. No chroma subsampling from 90 on."""
    out = io.BytesIO()
    _picture(stored).save(
        out,
        "JPEG",
        quality=quality,
        subsampling=0 if quality >= 90 else 2,
        optimize=True,
        dpi=(round(dpi[0]), round(dpi[1])) if dpi else (0, 0),
        icc_profile=icc or b"",
        exif=exif or b"",
    )
    return out.getvalue()


def reencode(source: bytes, stored: npt.NDArray[np.unsignedinteger]) -> bytes:
    """The picture written anew with the source's quantisation tables, subsampling and scan mode.

    stored: HWC uint8 in the file's frame, 1, 3 or 4 channels as the source. Every block is quantised again,
    so pixels change everywhere by a little. The source's APPn and COM segments are carried over.
    """
    # Not the file as it is: bytes between its segments, which libjpeg skips, would stop Pillow.
    segments = jpeg_segments(source)[0]
    plain = joined([s for s in segments if not is_app(s.marker)])
    with JpegImagePlugin.JpegImageFile(io.BytesIO(plain)) as old:
        tables = [old.quantization[key] for key in sorted(old.quantization)]
        layers = old.layer
        progressive = bool(old.info.get("progressive"))
    luma = (layers[0][1], layers[0][2])
    sampling = {(1, 1): 0, (2, 1): 1, (2, 2): 2}.get(luma, 2) if len(layers) == 3 else 0
    out = io.BytesIO()
    _picture(stored).save(
        out, "JPEG", qtables=tables, subsampling=sampling, progressive=progressive, optimize=True
    )
    carried = [s for s in segments if is_app(s.marker) and s.marker != _ADOBE]
    coded = [s for s in jpeg_segments(out.getvalue())[0] if not is_app(s.marker) or s.marker == _ADOBE]
    return joined(carried + coded)


def _picture(stored: npt.NDArray[np.unsignedinteger]) -> PillowImage.Image:
    height, width, channels = stored.shape
    mode = {1: "L", 3: "RGB", 4: "CMYK"}[channels]
    return PillowImage.frombytes(mode, (width, height), stored.astype(np.uint8).tobytes())
