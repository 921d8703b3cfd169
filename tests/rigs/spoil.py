"""Files damaged at random, the same ones for the same seed: what disks, networks and other programs do to pictures."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np

from rigs import bad_images
from rigs.tiffs import DEFLATE, LZW, PACKBITS, tiff


def whole_files() -> dict[str, bytes]:
    """One sound file of every form: all of `bad_images.GOOD`, and TIFF of further forms."""
    files = {name: one[1]() for name, one in bad_images.GOOD.items()}
    scene = bad_images.scene()
    deep = scene.astype(np.uint16) * 257
    files |= {
        "tiff 16 planar": tiff(deep, 2, planar=2, order=">"),
        "tiff 16 tiles lzw": tiff(deep, 2, compression=LZW, predictor=2, block=(32, 32), tiled=True),
        "tiff 16 white is zero": tiff(deep[..., :1], 0, block=(16, 0), compression=PACKBITS),
        "tiff associated alpha": tiff(
            np.dstack([scene // 2, scene[..., 0] | 128]), 2, extra=[1], compression=DEFLATE
        ),
        "tiff 16 cmyk planar": tiff(np.dstack([deep, deep[..., :1]]), 5, planar=2, block=(20, 0)),
    }
    return files


def damaged(count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """(what was done to which file, the file), form after form."""
    rng = np.random.default_rng(seed)
    files = sorted(whole_files().items())
    for n in range(count):
        name, data = files[n % len(files)]
        how = _WAYS[int(rng.integers(0, len(_WAYS)))]
        yield f"{n}: {name}, {how.__name__}", how(bytearray(data), rng)


def _bytes(data: bytearray, rng: np.random.Generator) -> bytes:
    for at in rng.integers(0, len(data), int(rng.integers(1, 30))):
        data[at] = rng.integers(0, 256)
    return bytes(data)


def _bits_of_the_head(data: bytearray, rng: np.random.Generator) -> bytes:
    for at in rng.integers(0, min(len(data), 300), int(rng.integers(1, 6))):
        data[at] ^= 1 << int(rng.integers(0, 8))
    return bytes(data)


def _numbers_of_the_head(data: bytearray, rng: np.random.Generator) -> bytes:
    for at in rng.integers(0, min(len(data), 400) - 4, 2):
        value = (0, 1, 0xFFFF, 0xFFFFFFFF, 0x7FFFFFFF, len(data))[int(rng.integers(0, 6))]
        struct.pack_into("<I" if rng.random() < 0.5 else ">I", data, int(at), value)
    return bytes(data)


def _cut(data: bytearray, rng: np.random.Generator) -> bytes:
    return bytes(data[: int(rng.integers(0, len(data)))])


def _zeroed(data: bytearray, rng: np.random.Generator) -> bytes:
    at, size = int(rng.integers(0, len(data))), int(rng.integers(1, 600))
    data[at : at + size] = bytes(len(data[at : at + size]))
    return bytes(data)


def _a_part_twice(data: bytearray, rng: np.random.Generator) -> bytes:
    at, size = int(rng.integers(0, len(data))), int(rng.integers(1, 200))
    return bytes(data[: at + size] + data[at:])


def _a_part_gone(data: bytearray, rng: np.random.Generator) -> bytes:
    at, size = int(rng.integers(0, len(data))), int(rng.integers(1, 50))
    return bytes(data[:at] + data[at + size :])


def _another_files_middle(data: bytearray, rng: np.random.Generator) -> bytes:
    at = int(rng.integers(0, len(data)))
    return bytes(data[:at] + bad_images.jpeg()[200:900] + data[at:])


_WAYS = (
    _bytes,
    _bits_of_the_head,
    _numbers_of_the_head,
    _cut,
    _zeroed,
    _a_part_twice,
    _a_part_gone,
    _another_files_middle,
)
