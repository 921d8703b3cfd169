"""Every form that is decoded, decoded by another library as well: OpenCV where we use Pillow, arrays made by hand
where we use OpenCV. `test_tiff` does it for TIFF with tifffile; for HEIC there is no second reader."""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from cleanplate.pipeline.images import encode
from cleanplate.pipeline.images.decode import upright
from rigs import bad_images

# OpenCV reads no CMYK as Pillow does, no GIF transparency, turns AVIF in its own way; 16 bits are its own work here.
OTHERS = [
    name
    for name in bad_images.GOOD
    if not name.startswith(("tiff", "heic", "png 16", "gif transparent", "jpeg cmyk", "avif rotated"))
    and "10 bit" not in name
]
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


@pytest.mark.parametrize("name", OTHERS)
def test_opencv_shows_the_same_pixels(name: str) -> None:
    data = bad_images.GOOD[name][1]()
    found = encode.decode(data)
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    shown = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    assert shown is not None
    right = upright(shown[..., ::-1], found.orientation)
    off = np.abs(found.pixels.astype(int) - right.astype(int))
    if found.lossy:  # decoders round chroma differently
        assert off.mean() < 1.5
    else:
        assert off.max() == 0


@pytest.mark.parametrize("interlaced", [0, 1])
@pytest.mark.parametrize("kind", [0, 2, 4, 6])
@pytest.mark.parametrize("depth", [8, 16])
def test_png_shows_the_array_that_it_was_made_of(depth: int, kind: int, interlaced: int) -> None:
    bands = {0: 1, 2: 3, 4: 2, 6: 4}[kind]
    rng = np.random.default_rng(depth + kind)
    array = rng.integers(0, 1 << depth, (19, 13, bands)).astype(np.uint16 if depth == 16 else np.uint8)
    rows = b"".join(_rows(array[y::dy, x::dx]) for x, y, dx, dy in (ADAM7 if interlaced else ((0, 0, 1, 1),)))
    head = struct.pack(">IIBBBBB", 13, 19, depth, kind, 0, 0, interlaced)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(bad_images.png_chunk(*chunk) for chunk in chunks)
    found = encode.decode(data)
    assert (found.stored == array).all()
    assert found.mode == {0: "L", 2: "RGB", 4: "LA", 6: "RGBA"}[kind]


def _rows(part: npt.NDArray[np.unsignedinteger]) -> bytes:
    # Every second row as differences from the left (filter 1), the others as they are.
    out = b""
    wide = part.shape[2] * part.itemsize
    for y, row in enumerate(part.astype(f">u{part.itemsize}")):
        plain = np.frombuffer(row.tobytes(), np.uint8)
        left = np.concatenate([np.zeros(wide, np.uint8), plain[:-wide]])[: plain.size]
        out += (
            (b"\1" + (plain - left).tobytes())
            if y % 2 and plain.size
            else (b"\0" + plain.tobytes())
            if plain.size
            else b""
        )
    return out
