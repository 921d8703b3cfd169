"""Huffman codes and raw bits packed into the bytes of a scan (ITU-T T.81, F.1.2.3, B.1.1.5).

A picture has millions of symbols, so no loop runs over them: numpy computes for all at once at which bit each goes,
and adds it into the bytes that it touches.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.signedinteger]
Bytes = npt.NDArray[np.uint8]

_AT_ONCE = 1 << 20
"""Symbols a step: what one takes is some 100 bytes each."""
_TOUCHED = 5
"""A symbol is a code of at most 16 bits and at most 15 raw ones: with up to 7 bits before it in its first byte that
is 38, so it never touches more than five bytes."""


def pack(value: Ints, length: Ints, interval: Ints) -> bytes:
    """Entropy-coded bytes with stuffing and restart markers.

    value: of each symbol, its code with its raw bits behind it, in stream order. length: how many bits that is, 1..31.
    interval: number of the restart interval that it lies in, rising from 0.
    """
    # Every interval starts at a whole byte, because a decoder that lost its way starts again there.
    ends = np.cumsum(length)
    last = np.flatnonzero(np.diff(interval, append=interval[-1] + 1))  # each interval's last symbol
    bits = np.diff(ends[last], prepend=0)
    size = (bits + 7) // 8
    start = np.cumsum(size) - size
    # A symbol's first bit: its place among all bits, moved by what whole bytes added before its interval.
    moved = start * 8 - (ends[last] - bits)
    first = ends - length + moved[np.searchsorted(last, np.arange(len(ends)))]
    data = _laid(value, length, first, int(size.sum()))
    # The bits that are left of an interval's last byte are ones, which no code consists of (B.1.1.5).
    spare = size * 8 - bits
    data[start + size - 1] |= ((1 << spare) - 1).astype(np.uint8)
    return _marked(data, start + size)


def _laid(value: Ints, length: Ints, first: Ints, size: int) -> Bytes:
    # `size` bytes, each symbol's value with its highest bit at bit `first`, counted from the first byte's highest.
    out = np.zeros(size + _TOUCHED, np.uint8)
    width = 8 * _TOUCHED
    for at in range(0, len(value), _AT_ONCE):
        part = slice(at, at + _AT_ONCE)
        byte, within = first[part] >> 3, first[part] & 7
        # The symbol as it lies in the five bytes from its first on.
        window = value[part].astype(np.int64) << (width - length[part] - within)
        low = int(byte[0])
        for k in range(_TOUCHED):
            piece = (window >> (width - 8 - 8 * k)) & 0xFF
            # Symbols that share a byte have no bit in common there, so that their sum is their union.
            summed = np.bincount(byte + k - low, weights=piece)
            out[low : low + len(summed)] += summed.astype(np.uint8)
    return out[:size]


def _marked(data: Bytes, ends: Ints) -> bytes:
    # FF is followed by 00, so that nobody takes it for a marker (B.1.1.5); RST0..RST7, in turn, stand between the
    # intervals, which end before the bytes `ends`.
    stuffed = np.flatnonzero(data == 0xFF) + 1
    between = ends[:-1]
    places = np.concatenate([stuffed, np.repeat(between, 2)])
    added = np.zeros(len(places), np.uint8)
    added[len(stuffed) :: 2] = 0xFF
    added[len(stuffed) + 1 :: 2] = 0xD0 + np.arange(len(between)) % 8
    # Where a stuffed byte and a marker go to the same place, the stuffed one was named first and stays first.
    return np.insert(data, places, added).tobytes()
