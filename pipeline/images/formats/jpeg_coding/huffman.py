"""JPEG entropy coding: quantised coefficients to baseline or progressive scans (ITU-T T.81, F.1.2, G.1.2).

libjpeg's coefficient writer, as jpeglib wraps it, writes one baseline scan, forgets restart intervals and
renumbers components; this one keeps what the source had. Whole arrays at once, no loop over blocks.
Progressive files get spectral selection only (DC, then two bands of AC), not successive approximation.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

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
_PACK_AT_ONCE = 1 << 20
_LONGEST_EOB_RUN = 0x7FFF


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


@dataclass(frozen=True)
class _Symbols:
    # Huffman symbols in stream order: table 0..3 DC, 4..7 AC; `extra` holds `size` raw bits after the code;
    # `unit` is the restart interval that the symbol lies in.
    table: npt.NDArray[np.uint8]
    symbol: npt.NDArray[np.uint8]
    extra: npt.NDArray[np.int32]
    size: npt.NDArray[np.uint8]
    unit: npt.NDArray[np.int32]


def scans(components: list[Component], *, progressive: bool, restart: int) -> bytes:
    """DHT and SOS segments with their data, for all components of one frame.

    restart: restart interval in MCUs, 0 = none; the DRI segment is the caller's.
    """
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
    first, last = band
    places = [components.index(c) for c in group]
    tables = [min(place, 1) for place in places]
    blocks, owner, unit = _in_order(group, restart)
    coefficients = blocks.take(ZIGZAG, axis=1)
    table = np.array(tables, np.uint8)[owner]
    if first == 0:
        symbols = _sequential(coefficients, owner, table, unit, last)
    else:
        symbols = _band(coefficients[:, first : last + 1], table, unit)
    used = np.unique(symbols.table)
    codes = np.zeros((8, 256), np.int64)
    lengths = np.zeros((8, 256), np.int64)
    head = b""
    for name in used:
        counts = np.bincount(symbols.symbol[symbols.table == name], minlength=256)
        bits, values = optimal_table(counts)
        codes[name], lengths[name] = _codes(bits, values)
        body = bytes([(0x10 | int(name) - 4) if name >= 4 else int(name), *bits]) + bytes(values)
        head += struct.pack(">BBH", 0xFF, 0xC4, len(body) + 2) + body
    spec = b"".join(bytes([c.number, t << 4 | t]) for c, t in zip(group, tables, strict=True))
    sos = bytes([len(group)]) + spec + bytes([first, last, 0])
    head += struct.pack(">BBH", 0xFF, 0xDA, len(sos) + 2) + sos
    return head + _pack(symbols, codes, lengths)


def _in_order(group: list[Component], restart: int) -> tuple[Blocks, Ints, Ints]:
    # Blocks in the order of the scan (n x 64), which of the group each belongs to, its restart interval.
    if len(group) == 1:
        blocks = group[0].blocks.reshape(-1, 64)
        units = np.arange(len(blocks)) // restart if restart else np.zeros(len(blocks), np.int64)
        return blocks, np.zeros(len(blocks), np.int64), units
    rows = max(-(-c.blocks.shape[0] // c.v) for c in group)
    columns = max(-(-c.blocks.shape[1] // c.h) for c in group)
    parts, owners = [], []
    for i, c in enumerate(group):
        padded = _pad(c.blocks, rows * c.v, columns * c.h)
        tiled = padded.reshape(rows, c.v, columns, c.h, 64).transpose(0, 2, 1, 3, 4)
        parts.append(tiled.reshape(rows * columns, c.v * c.h, 64))
        owners += [i] * (c.v * c.h)
    blocks = np.concatenate(parts, axis=1)
    per = blocks.shape[1]
    mcu = np.repeat(np.arange(rows * columns), per)
    units = mcu // restart if restart else np.zeros_like(mcu)
    return blocks.reshape(-1, 64), np.tile(np.array(owners), rows * columns), units


def _pad(blocks: Blocks, rows: int, columns: int) -> Blocks:
    # Blocks outside the image repeat the last DC, which costs least; decoders throw them away.
    have_rows, have_columns = blocks.shape[:2]
    if (rows, columns) == (have_rows, have_columns):
        return blocks
    out = np.pad(blocks, ((0, rows - have_rows), (0, columns - have_columns), (0, 0)), mode="edge")
    out[have_rows:, :, 1:] = 0
    out[:, have_columns:, 1:] = 0
    return out


def _sequential(zigzag: Ints, owner: Ints, table: npt.NDArray[np.uint8], unit: Ints, last: int) -> _Symbols:
    # Baseline coding of whole blocks, or of DC alone where last == 0.
    difference = np.empty(len(zigzag), np.int32)
    for name in np.unique(owner):
        mine = owner == name
        dc, starts = zigzag[mine, 0].astype(np.int32), unit[mine]
        step = np.diff(dc, prepend=0)
        fresh = np.diff(starts, prepend=-1) != 0
        step[fresh] = dc[fresh]
        difference[mine] = step
    ac = zigzag[:, 1 : last + 1]
    nonzero, place, zrl = _runs(ac)
    count = np.bincount(nonzero, weights=zrl + 1, minlength=len(zigzag)).astype(np.int64)
    ends = np.zeros(len(zigzag), bool) if last == 0 else ac[:, -1] == 0
    start = np.concatenate([[0], np.cumsum(1 + count + ends)])
    out = _blank(int(start[-1]))
    fill = np.repeat(np.arange(len(zigzag)), np.diff(start))
    out.table[:], out.unit[:] = table[fill] + 4, unit[fill]
    head = start[:-1]
    out.table[head] = table
    out.symbol[head], out.extra[head] = _magnitude(difference)
    out.size[head] = out.symbol[head]
    _put_ac(out, ac, nonzero, place, zrl, start[:-1] + 1)
    out.symbol[start[1:][ends] - 1] = 0
    return out


def _band(band: Ints, table: npt.NDArray[np.uint8], unit: Ints) -> _Symbols:
    # One band of AC coefficients of one component, with runs of end-of-band (G.1.2.2).
    nonzero, place, zrl = _runs(band)
    count = np.bincount(nonzero, weights=zrl + 1, minlength=len(band)).astype(np.int64)
    ends = band[:, -1] == 0
    before = np.concatenate([[False], ends[:-1]])
    fresh = ends & ((count > 0) | ~before | (np.diff(unit, prepend=-1) != 0))
    since = np.arange(len(band)) - np.maximum.accumulate(np.where(fresh, np.arange(len(band)), 0))
    fresh |= ends & (since % _LONGEST_EOB_RUN == 0)
    lengths = np.bincount((np.cumsum(fresh) - 1)[ends], minlength=int(fresh.sum()))
    start = np.concatenate([[0], np.cumsum(count + fresh)])
    out = _blank(int(start[-1]))
    fill = np.repeat(np.arange(len(band)), np.diff(start))
    out.table[:], out.unit[:] = table[fill] + 4, unit[fill]
    _put_ac(out, band, nonzero, place, zrl, start[:-1])
    at = start[1:][fresh] - 1
    power = np.frexp(lengths)[1] - 1
    out.symbol[at], out.size[at] = power << 4, power
    out.extra[at] = lengths - (1 << power)
    return out


def _blank(count: int) -> _Symbols:
    # Filled with the symbol for 16 zeros (ZRL); what is not written over stays that.
    return _Symbols(
        np.zeros(count, np.uint8),
        np.full(count, 0xF0, np.uint8),
        np.zeros(count, np.int32),
        np.zeros(count, np.uint8),
        np.zeros(count, np.int32),
    )


def _runs(ac: Ints) -> tuple[Ints, Ints, Ints]:
    # Block and place of each nonzero coefficient, and how many whole runs of 16 zeros precede it.
    block, place = np.nonzero(ac)
    if not block.size:
        return block, place, place
    gap = np.diff(place, prepend=0)
    first = np.diff(block, prepend=-1) != 0
    gap[first] = place[first] + 1
    return block, place, (gap - 1) >> 4


def _put_ac(out: _Symbols, ac: Ints, block: Ints, place: Ints, zrl: Ints, start: Ints) -> None:
    # Writes the symbol of each nonzero coefficient; start: where the AC symbols of each block begin.
    if not block.size:
        return
    done = np.cumsum(zrl + 1)
    first = np.diff(block, prepend=-1) != 0
    base = (done - zrl - 1)[first]
    at = start[block] + done - 1 - base[np.cumsum(first) - 1]
    gap = np.diff(place, prepend=0)
    gap[first] = place[first] + 1
    size, extra = _magnitude(ac[block, place])
    out.symbol[at] = ((gap - 1) & 15) << 4 | size
    out.size[at], out.extra[at] = size, extra


def _magnitude(values: Ints) -> tuple[Ints, Ints]:
    # Size category and the raw bits that follow (F.1.2.1.1): negative numbers as one's complement.
    wide = values.astype(np.int32)
    size = np.frexp(np.abs(wide).astype(np.float32))[1]
    return size, wide + np.where(wide < 0, (1 << size) - 1, 0)


def optimal_table(counts: npt.NDArray[np.int64]) -> tuple[list[int], list[int]]:
    """Huffman table for symbol counts (256 of them): number of codes of length 1..16, symbols by length.

    T.81 K.2: one unused code point is reserved so that no code is all ones; lengths are cut to 16.
    """
    frequency = [int(n) for n in counts] + [1]
    sizes = [0] * 257
    follows = [-1] * 257
    while True:
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
    # Code and length by symbol (T.81 annex C).
    codes, lengths = np.zeros(256, np.int64), np.zeros(256, np.int64)
    code, at = 0, 0
    for length, count in enumerate(bits, start=1):
        for _ in range(count):
            codes[values[at]], lengths[values[at]] = code, length
            code, at = code + 1, at + 1
        code <<= 1
    return codes, lengths


def _pack(symbols: _Symbols, codes: Ints, lengths: Ints) -> bytes:
    # Bits to bytes; each restart interval is filled up with ones; FF is followed by 00; RSTn between them.
    bits = lengths[symbols.table, symbols.symbol] + symbols.size
    total = np.cumsum(bits)
    ends = np.flatnonzero(np.diff(symbols.unit, append=symbols.unit[-1] + 1))
    in_unit = np.diff(total[ends], prepend=0)
    bytes_of = (in_unit + 7) // 8
    unit_start = np.cumsum(bytes_of) - bytes_of
    # Where a symbol's first bit goes: after the bits before it in its interval, counted from a whole byte.
    shift = unit_start * 8 - (total[ends] - in_unit)
    offset = total - bits + shift[np.searchsorted(ends, np.arange(len(total)))]
    out = np.zeros(int(bytes_of.sum()) + 8, np.float64)
    for at in range(0, len(total), _PACK_AT_ONCE):
        part = slice(at, at + _PACK_AT_ONCE)
        value = codes[symbols.table[part], symbols.symbol[part]] << symbols.size[part] | symbols.extra[part]
        first = offset[part] >> 3
        word = value << (40 - bits[part] - (offset[part] & 7))
        low = int(first[0])
        for byte in range(5):
            piece = np.bincount(first + byte - low, weights=(word >> (32 - 8 * byte)) & 0xFF)
            out[low : low + len(piece)] += piece
    data = out[:-8].astype(np.uint8)
    spare = bytes_of * 8 - in_unit
    data[unit_start + bytes_of - 1] |= ((1 << spare) - 1).astype(np.uint8)
    stuffed = np.flatnonzero(data == 0xFF) + 1
    marks = (unit_start + bytes_of)[:-1]
    place = np.concatenate([stuffed, np.repeat(marks, 2)])
    values = np.zeros(len(place), np.uint8)
    values[len(stuffed) :: 2] = 0xFF
    values[len(stuffed) + 1 :: 2] = 0xD0 + np.arange(len(marks)) % 8
    return np.insert(data, place, values).tobytes()
