"""TIFF files made by hand, every form of them, from arrays: what a reader gives is held against the array."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.unsignedinteger]
NONE, LZW, DEFLATE, OLD_DEFLATE, PACKBITS = 1, 5, 8, 32946, 32773
Tags = Mapping[int, tuple[int, list[int] | bytes]]
_CODES = {1: "B", 3: "H", 4: "I"}


def tiff(
    samples: Samples,
    photometric: int,
    *,
    order: str = "<",
    extra: list[int] | None = None,
    planar: int = 1,
    compression: int = NONE,
    predictor: int = 1,
    block: tuple[int, int] | None = None,
    tiled: bool = False,
    more: Tags | None = None,
) -> bytes:
    """A TIFF of HWC samples, as they are. block: height and width of a tile, or rows of a strip and anything.

    more: further tags, tag -> (type, numbers or bytes); they replace those made here.
    """
    height, width, bands = samples.shape
    high, wide = block or (height, width)
    wide = wide if tiled else width
    packed = [
        _packed(part, order, compression, predictor) for part in _blocks(samples, planar, high, wide, tiled)
    ]
    where, sizes = (324, 325) if tiled else (273, 279)
    tags: dict[int, tuple[int, list[int] | bytes]] = {
        256: (4, [width]),
        257: (4, [height]),
        258: (3, [samples.itemsize * 8] * bands),
        259: (3, [compression]),
        262: (3, [photometric]),
        277: (3, [bands]),
        284: (3, [planar]),
        where: (4, [0] * len(packed)),
        sizes: (4, [len(part) for part in packed]),
    }
    tags |= {322: (4, [wide]), 323: (4, [high])} if tiled else {278: (4, [high])}
    tags |= {317: (3, [predictor])} if predictor != 1 else {}
    tags |= {338: (3, extra)} if extra is not None else {}
    tags |= more or {}
    head = len(_directory(order, tags))
    ends = np.cumsum([head] + [len(part) for part in packed]).tolist()
    if not more or where not in more:
        tags[where] = (4, ends[:-1])
    return _directory(order, tags) + b"".join(packed)


def _blocks(samples: Samples, planar: int, high: int, wide: int, tiled: bool) -> Iterator[Samples]:
    height, width, bands = samples.shape
    for plane in [slice(b, b + 1) for b in range(bands)] if planar == 2 else [slice(None)]:
        for y in range(0, height, high):
            for x in range(0, width, wide):
                part = samples[y : y + high, x : x + wide, plane]
                if tiled:  # over the edge of the picture stands what no reader may show
                    down, across = high - part.shape[0], wide - part.shape[1]
                    part = np.pad(part, ((0, down), (0, across), (0, 0)), constant_values=77)
                yield part


def _packed(part: Samples, order: str, compression: int, predictor: int) -> bytes:
    if predictor == 2:
        part = np.concatenate([part[:, :1], part[:, 1:] - part[:, :-1]], axis=1)
    raw = part.astype(f"{order}u{part.itemsize}").tobytes()
    if compression == LZW:
        return lzw(raw)
    if compression in (DEFLATE, OLD_DEFLATE):
        return zlib.compress(raw)
    return packbits(raw) if compression == PACKBITS else raw


def _directory(order: str, tags: Tags) -> bytes:
    table, values, at = b"", b"", 14 + 12 * len(tags)
    for tag, (kind, content) in sorted(tags.items()):
        packed = (
            content
            if isinstance(content, bytes)
            else struct.pack(f"{order}{len(content)}{_CODES[kind]}", *content)
        )
        cell = packed.ljust(4, b"\0")
        if len(packed) > 4:
            cell = struct.pack(order + "I", at + len(values))
            values += packed + b"\0" * (len(packed) % 2)
        count = len(packed) // {5: 8, 3: 2, 4: 4}.get(kind, 1)
        table += struct.pack(order + "HHI", tag, kind, count) + cell
    mark = b"II*\0" if order == "<" else b"MM\0*"
    return mark + struct.pack(order + "IH", 8, len(tags)) + table + bytes(4) + values


def packbits(raw: bytes) -> bytes:
    """TIFF 6.0, section 9: runs of equal bytes, and the rest as it is."""
    out, at = b"", 0
    while at < len(raw):
        run = 1
        while run < 128 and raw[at : at + 1] == raw[at + run : at + run + 1]:
            run += 1
        if run > 1:
            out, at = out + bytes([257 - run]) + raw[at : at + 1], at + run
        else:
            out, at = out + b"\0" + raw[at : at + 1], at + 1
    return out


def lzw(raw: bytes) -> bytes:
    """TIFF 6.0, section 13: codes of 9 to 12 bits, the first bit first."""
    bits: list[tuple[int, int]] = [(256, 9)]
    table: dict[bytes, int] = {}

    def fresh() -> dict[bytes, int]:
        return {bytes([i]): i for i in range(256)}

    table, width, prefix = fresh(), 9, b""
    for value in raw:
        longer = prefix + bytes([value])
        if longer in table:
            prefix = longer
            continue
        bits.append((table[prefix], width))
        table[longer] = len(table) + 2  # 256 clears, 257 ends
        if len(table) + 2 == 4095:
            bits.append((256, width))
            table, width = fresh(), 9
        elif len(table) + 2 > (1 << width) - 1:
            width += 1
        prefix = bytes([value])
    bits += [(table[prefix], width)] if prefix else []
    if len(table) + 3 > (1 << width) - 1 and width < 12:
        width += 1
    bits.append((257, width))
    text = "".join(f"{code:0{size}b}" for code, size in bits)
    return bytes(int(text[i : i + 8].ljust(8, "0"), 2) for i in range(0, len(text), 8))
