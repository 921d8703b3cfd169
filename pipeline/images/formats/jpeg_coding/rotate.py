"""Turn a JPEG upright without loss: blocks are moved, transposed and mirrored as coefficients.

A mirrored block is the same block with its odd frequencies negated, a transposed one has its coefficients
transposed (the DCT is separable and its odd basis functions are antisymmetric). Only whole MCUs can be
mirrored, so the mirrored sides must be multiples of the MCU.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from cleanplate.pipeline.images.formats import exif
from cleanplate.pipeline.images.formats.jpeg_coding import blocks as jpeg_blocks
from cleanplate.pipeline.images.formats.jpeg_coding.huffman import ZIGZAG, Component
from cleanplate.pipeline.images.formats.jpeg_coding.parts import SOF, Segment, jpeg_segments

_DQT = 0xDB
# EXIF orientation -> (transpose, then mirror columns, then mirror rows); the same turns as `decode.upright`.
_STEPS = {
    2: (False, True, False),
    3: (False, True, True),
    4: (False, False, True),
    5: (True, False, False),
    6: (True, True, False),
    7: (True, True, True),
    8: (True, False, True),
}


def turn(source: bytes, orientation: int) -> bytes | None:
    """The file stored upright, its EXIF orientation set to 1, every coefficient kept up to place and sign.

    orientation: the file's, 2..8. None where a mirrored side is not a multiple of the MCU, or where the
    file cannot be read block by block. Raises ImageError for a file that cannot be taken apart.
    """
    transpose, columns, rows = _STEPS[orientation]
    try:
        old = jpeg_blocks.read(source)
        segments, _ = jpeg_segments(source)
        frame = next(s for s in segments if s.marker in SOF).payload
        height, width = int.from_bytes(frame[1:3], "big"), int.from_bytes(frame[3:5], "big")
        high, wide = 8 * max(c.v for c in old.components), 8 * max(c.h for c in old.components)
        if transpose:
            height, width, high, wide = width, height, wide, high
        if (columns and width % wide) or (rows and height % high):
            return None
        components = [_turned(c, transpose, columns, rows) for c in old.components]
        head = [_segment(s, transpose) for s in segments]
        new = b"\xff\xd8" + b"".join(s.to_bytes() for s in head) + b"\xff\xd9"
        return jpeg_blocks.write(new, replace(old, components=components))
    except (jpeg_blocks.SpliceError, exif.ExifError):
        return None


def _turned(component: Component, transpose: bool, columns: bool, rows: bool) -> Component:
    blocks = component.blocks.reshape(*component.blocks.shape[:2], 8, 8)
    h, v = component.h, component.v
    if transpose:
        blocks, h, v = blocks.transpose(1, 0, 3, 2), v, h
    odd = np.where(np.arange(8) % 2, -1, 1).astype(np.int16)
    if columns:
        blocks = blocks[:, ::-1] * odd
    if rows:
        blocks = blocks[::-1] * odd[:, None]
    return Component(component.number, h, v, np.ascontiguousarray(blocks).reshape(*blocks.shape[:2], 64))


def _segment(segment: Segment, transpose: bool) -> Segment:
    payload = segment.payload
    if segment.marker == 0xE1 and payload[:6] == b"Exif\0\0":
        return replace(segment, payload=payload[:6] + exif.reset_orientation(payload[6:]))
    if segment.marker == 0xE1:
        return replace(segment, payload=exif.reset_xmp_orientation(payload))
    if not transpose:
        return segment
    if segment.marker in SOF:
        specs = b"".join(
            bytes([payload[i], payload[i + 1] >> 4 | (payload[i + 1] & 15) << 4, payload[i + 2]])
            for i in range(6, len(payload), 3)
        )
        return replace(segment, payload=payload[:1] + payload[3:5] + payload[1:3] + payload[5:6] + specs)
    if segment.marker == _DQT:
        return replace(segment, payload=_tables(payload))
    return segment


def _tables(payload: bytes) -> bytes:
    # Quantisation tables, transposed: 8 or 16 bits per entry, in zigzag order (T.81 B.2.4.1).
    place: npt.NDArray[np.int64] = np.argsort(ZIGZAG)  # row-major index -> zigzag index
    order = place.reshape(8, 8).T.reshape(-1)[ZIGZAG]
    out, at = b"", 0
    while at < len(payload):
        wide = 2 if payload[at] >> 4 else 1
        entries = np.frombuffer(payload, np.uint8, 64 * wide, at + 1).reshape(64, wide)
        out += payload[at : at + 1] + entries[order].tobytes()
        at += 1 + 64 * wide
    return out
