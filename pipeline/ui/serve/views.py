"""Pictures, finds and results as the page shows them."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from PIL import Image as Pil

from cleanplate.models.types import Image, Mask, Region
from cleanplate.pipeline.images import rle
from cleanplate.pipeline.images.decode import decode
from cleanplate.pipeline.ui.serve.workspace import Found, Result

_QUALITY = 90


def webp(pixels: Image, side: int) -> bytes:
    """HWC uint8 RGB as WebP, its long side at most `side` pixels."""
    picture = Pil.fromarray(np.ascontiguousarray(pixels))
    picture.thumbnail((side, side), Pil.Resampling.LANCZOS, reducing_gap=3.0)
    out = io.BytesIO()
    picture.save(out, "webp", quality=_QUALITY, method=1)
    return out.getvalue()


def thumb(data: bytes, side: int, max_pixels: int) -> bytes:
    """A small WebP of an encoded picture. Raises ImageError."""
    return webp(decode(data, max_pixels=max_pixels).pixels, side)


def png(mask: Mask) -> bytes:
    """HW bool as a PNG of one bit a pixel, white = True."""
    out = io.BytesIO()
    Pil.fromarray(mask.astype(np.uint8) * 255).convert("1").save(out, "png")
    return out.getvalue()


def find(found: Found) -> dict[str, Any]:
    """A find for the page. mask: where its box of pixels lies, and they as a white PNG with alpha; null when empty."""
    area = int(np.count_nonzero(found.mask))
    return _region(found.region) | {"allowed": found.allowed, "area": area, "mask": drawn(found.mask)}


def drawn(mask: Mask) -> dict[str, Any] | None:
    """Where the box of a mask's pixels (HW bool) lies, and they as a white PNG with alpha; None when empty."""
    box = rle.box_of(mask)
    if box is None:
        return None
    x0, y0, x1, y1 = map(int, box)
    cut = np.ascontiguousarray(mask[y0:y1, x0:x1]).astype(np.uint8) * 255
    out = io.BytesIO()
    Pil.merge("LA", (Pil.new("L", (x1 - x0, y1 - y0), 255), Pil.fromarray(cut))).save(out, "png")
    data = base64.b64encode(out.getvalue()).decode()
    return {"box": [x0, y0, x1, y1], "png": f"data:image/png;base64,{data}"}


def result(done: Result) -> dict[str, Any]:
    file = done.file
    return {
        "left": [_region(region) for region in done.left],
        "coverage": float(done.mask.mean()),
        "inpainter": done.inpainter,
        "seconds": round(done.seconds, 2),
        "bytes": len(file.data),
        "format": file.format,
        "pixels_equal": file.pixels_equal,
        "jpeg_blocks_equal": file.jpeg_blocks_equal,
        "note": file.note,
        "metadata_dropped": file.metadata_dropped,
    }


def _region(region: Region) -> dict[str, Any]:
    box = [round(float(v), 1) for v in region.box]
    return {"kind": region.kind, "detector": region.detector, "score": round(region.score, 4), "box": box}
