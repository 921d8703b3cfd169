"""JPEG entropy coding: quantised coefficients to baseline or progressive scans (ITU-T T.81, F.1.2, G.1.2).

libjpeg's coefficient writer, as jpeglib wraps it, writes one baseline scan, forgets restart intervals and
renumbers components; this one keeps what the source had. Coefficients become symbols in `symbols`, symbols get codes
here, and `bits` packs them. Progressive files get spectral selection only (DC, then two bands of AC), not successive
approximation.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cleanplate.pipeline.images.formats.jpeg_coding import symbols
from cleanplate.pipeline.images.formats.jpeg_coding.bits import pack

Ints = npt.NDArray[np.signedinteger]
Blocks = npt.NDArray[np.int16]

# Zigzag order: index in the scan -> index in the row-major 8 x 8 block (T.81 figure A.6).
# fmt: off
ZIGZAG = np.array([
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7,
    14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39,
    46, 53, 60, 61, 54, 47, 55, 62, 63,
])
# fmt: on


@dataclass(frozen=True)
class Component:
    """One colour component as the frame header describes it.

    number: its identifier in the file. h, v: sampling factors. blocks: rows x columns x 64 int16, row-major
    quantised coefficients; rows and columns cover the image, not the last MCU.
    """

    number: int
    h: int
    v: int
    blocks: Blocks


def scans(components: list[Component], *, progressive: bool, restart: int) -> bytes:
    """DHT and SOS segments with their data, for all components of one frame.

    restart: restart interval in MCUs, 0 = none; the DRI segment is the caller's.
    """
    # One scan holds all components, unless an MCU would be more than the ten blocks that B.2.3 allows.
    interleave = len(components) == 1 or sum(c.h * c.v for c in components) <= 10
    groups = [components] if interleave else [[c] for c in components]
    out = b""
    for group in groups:
        out += _scan(components, group, (0, 0 if progressive else 63), restart)
    if progressive:
        for band in ((1, 5), (6, 63)):
            for component in components:
                out += _scan(components, [component], band, restart)
    return out


def _scan(components: list[Component], group: list[Component], band: tuple[int, int], restart: int) -> bytes:
    # One scan with the tables that are best for it. band: first and last coefficient, in zigzag order.
    first, last = band
    # The first component has tables of its own, the others share some: luma and chroma differ most.
    tables = [min(components.index(c), 1) for c in group]
    blocks, owner, interval = _in_order(group, restart)
    coefficients = blocks.take(ZIGZAG, axis=1)
    table = np.array(tables, np.uint8)[owner]
    if first == 0:
        found = symbols.sequential(coefficients, owner, table, interval, last)
    else:
        found = symbols.band(coefficients[:, first : last + 1], table, interval)
    codes = np.zeros((8, 256), np.int64)
    lengths = np.zeros((8, 256), np.int64)
    head = b""
    for name in np.unique(found.table):
        counts = np.bincount(found.symbol[found.table == name], minlength=256)
        bits, values = optimal_table(counts)
        codes[name], lengths[name] = _codes(bits, values)
        # DHT's first byte: class (0 DC, 1 AC) and number of the table.
        kind = 0x10 | int(name) - symbols.AC if name >= symbols.AC else int(name)
        head += _segment(0xC4, bytes([kind, *bits]) + bytes(values))
    spec = b"".join(bytes([c.number, t << 4 | t]) for c, t in zip(group, tables, strict=True))
    head += _segment(0xDA, bytes([len(group)]) + spec + bytes([first, last, 0]))
    value = codes[found.table, found.symbol] << found.size | found.extra
    return head + pack(value, lengths[found.table, found.symbol] + found.size, found.interval)


def _segment(marker: int, payload: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload


def _in_order(group: list[Component], restart: int) -> tuple[Blocks, Ints, Ints]:
    # Blocks in the order of the scan (n x 64), which of the group each belongs to, its restart interval.
    if len(group) == 1:  # a component by itself goes block by block, whatever its sampling factors (A.2.2)
        blocks = group[0].blocks.reshape(-1, 64)
        intervals = np.arange(len(blocks)) // restart if restart else np.zeros(len(blocks), np.int64)
        return blocks, np.zeros(len(blocks), np.int64), intervals
    rows = max(-(-c.blocks.shape[0] // c.v) for c in group)
    columns = max(-(-c.blocks.shape[1] // c.h) for c in group)
    parts, owners = [], []
    for i, c in enumerate(
        group
    ):  # an MCU holds v rows of h blocks of each component, one after the other (A.2.3)
        padded = _pad(c.blocks, rows * c.v, columns * c.h)
        tiled = padded.reshape(rows, c.v, columns, c.h, 64).transpose(0, 2, 1, 3, 4)
        parts.append(tiled.reshape(rows * columns, c.v * c.h, 64))
        owners += [i] * (c.v * c.h)
    blocks = np.concatenate(parts, axis=1)
    per = blocks.shape[1]
    mcu = np.repeat(np.arange(rows * columns), per)
    intervals = mcu // restart if restart else np.zeros_like(mcu)
    return blocks.reshape(-1, 64), np.tile(np.array(owners), rows * columns), intervals


def _pad(blocks: Blocks, rows: int, columns: int) -> Blocks:
    # Blocks outside the image repeat the last DC, which costs least; decoders throw them away.
    have_rows, have_columns = blocks.shape[:2]
    if (rows, columns) == (have_rows, have_columns):
        return blocks
    out = np.pad(blocks, ((0, rows - have_rows), (0, columns - have_columns), (0, 0)), mode="edge")
    out[have_rows:, :, 1:] = 0
    out[:, have_columns:, 1:] = 0
    return out


def optimal_table(counts: npt.NDArray[np.int64]) -> tuple[list[int], list[int]]:
    """Huffman table for symbol counts (256 of them): number of codes of length 1..16, symbols by length.

    T.81 K.2: one unused code point is reserved so that no code is all ones; lengths are cut to 16.
    """
    # The reserved symbol 256 counts once: it gets one of the longest codes, and the highest of them.
    frequency = [int(n) for n in counts] + [1]
    sizes = [0] * 257
    follows = [-1] * 257
    while True:
        # The two rarest branches become one, and each code below them a bit longer. Of equals the higher number first.
        ranked = sorted((n, -i) for i, n in enumerate(frequency) if n)
        if len(ranked) < 2:
            break
        low, high = -ranked[0][1], -ranked[1][1]
        frequency[low] += frequency[high]
        frequency[high] = 0
        for code in (_tree(low, follows), _tree(high, follows)):
            for i in code:
                sizes[i] += 1
        follows[_tree(low, follows)[-1]] = high
    bits = [0] * (max(sizes) + 17)
    for size in sizes:
        bits[size] += size > 0
    # Too long codes come in pairs: one takes the place above both, the other goes beside a shorter one, which becomes
    # a bit longer for it (K.3).
    for length in range(len(bits) - 1, 16, -1):
        while bits[length]:
            shorter = length - 2
            while not bits[shorter]:
                shorter -= 1
            bits[length] -= 2
            bits[length - 1] += 1
            bits[shorter + 1] += 2
            bits[shorter] -= 1
    longest = max(i for i in range(17) if bits[i])
    bits[longest] -= 1  # the reserved code point
    values = sorted((size, i) for i, size in enumerate(sizes[:256]) if size)
    return bits[1:17], [i for _, i in values]


def _tree(start: int, follows: list[int]) -> list[int]:
    # The symbols that share a branch with `start`, in the order they were joined.
    out = [start]
    while follows[out[-1]] >= 0:
        out.append(follows[out[-1]])
    return out


def _codes(bits: list[int], values: list[int]) -> tuple[Ints, Ints]:
    # Code and length by symbol (T.81 annex C): codes of one length are consecutive numbers, and the first of the next
    # length is the next number with a zero behind it.
    codes, lengths = np.zeros(256, np.int64), np.zeros(256, np.int64)
    code, at = 0, 0
    for length, count in enumerate(bits, start=1):
        for _ in range(count):
            codes[values[at]], lengths[values[at]] = code, length
            code, at = code + 1, at + 1
        code <<= 1
    return codes, lengths
