"""Decoding by Pillow, whatever mode it chooses."""

from __future__ import annotations

import io

import numpy as np
from PIL.ImageFile import ImageFile

from cleanplate.pipeline.images.formats.base import Dpi, ImageError, Rows, Stored


def rows_of(data: bytes, plugin: type[ImageFile]) -> Rows:
    """The picture as one of Pillow's plugins opens it: not by PIL.Image.open, which tries every format it knows.

    Raises ImageError and whatever Pillow raises.
    """
    with plugin(io.BytesIO(data)) as picture:
        icc, dpi = picture.info.get("icc_profile"), picture.info.get("dpi")
        stored, mode, held = _loaded(picture)
    return Rows(stored, mode, held, icc or None, _dpi(dpi))


def _dpi(found: tuple[float, float] | None) -> Dpi | None:
    return (float(found[0]), float(found[1])) if found and found[0] > 0 and found[1] > 0 else None


def _loaded(picture: ImageFile) -> tuple[Stored, str, str]:
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
