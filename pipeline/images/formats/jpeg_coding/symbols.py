"""Quantised coefficients to the symbols that Huffman codes stand for (ITU-T T.81, F.1.2.1, F.1.2.2, G.1.2.2).

A symbol is a byte: for DC the size of a difference; for AC how many zeros come before a coefficient (upper four bits)
and its size (lower four). `size` raw bits follow, which say which number of that size it is. Whole arrays at once: how
many symbols each block has is counted first, so that each knows where its own begin.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.signedinteger]
Bytes = npt.NDArray[np.uint8]

AC = 4
"""Added to a table's number: tables 0..3 code DC, 4..7 AC."""
_SIXTEEN_ZEROS, _END_OF_BLOCK = 0xF0, 0x00
_LONGEST_EOB_RUN = 0x7FFF
"""Blocks that one end-of-band symbol can skip: 14 raw bits behind a size of 14."""


@dataclass(frozen=True)
class Symbols:
    """Symbols in stream order. table: 0..7 (`AC`). symbol: 0..255. extra: the raw bits behind the code, `size` of them.
    interval: number of the restart interval."""

    table: Bytes
    symbol: Bytes
    extra: npt.NDArray[np.int32]
    size: Bytes
    interval: npt.NDArray[np.int32]


@dataclass(frozen=True)
class _Nonzero:
    """The coefficients that are not zero, block after block. block, place: where each is. zeros: that come before it in
    its block, since the last one. first: is it its block's first?"""

    block: Ints
    place: Ints
    zeros: Ints
    first: npt.NDArray[np.bool_]

    @property
    def sixteens(self) -> Ints:
        """Symbols for 16 zeros that each needs before its own, which counts 15 at most."""
        return self.zeros >> 4


def sequential(zigzag: Ints, owner: Ints, table: Bytes, interval: Ints, last: int) -> Symbols:
    """Whole blocks in one scan, or their DC alone (F.1.2).

    zigzag: blocks x 64 in the scan's order. owner: the component of each block. table, interval: of each block.
    last: index of the last coefficient that the scan holds: 63, or 0 for DC alone.
    """
    ac = zigzag[:, 1 : last + 1]
    found = _nonzero(ac)
    counted = _per_block(found, len(zigzag))
    # A block that ends in zeros says so; one whose last coefficient is not zero needs no end.
    ends = np.zeros(len(zigzag), bool) if last == 0 else ac[:, -1] == 0
    start = np.concatenate([[0], np.cumsum(1 + counted + ends)])
    out = _blank(start, table, interval)
    dc = start[:-1]
    out.table[dc] = table
    out.symbol[dc], out.extra[dc] = _magnitude(_differences(zigzag[:, 0], owner, interval))
    out.size[dc] = out.symbol[dc]
    _put(out, ac, found, dc + 1)
    out.symbol[start[1:][ends] - 1] = _END_OF_BLOCK
    return out


def band(coefficients: Ints, table: Bytes, interval: Ints) -> Symbols:
    """One band of AC coefficients of one component of a progressive file (G.1.2.2).

    coefficients: blocks x width of the band. Blocks that end in zeros, one after the other, share one symbol: its raw
    bits count them.
    """
    found = _nonzero(coefficients)
    counted = _per_block(found, len(coefficients))
    number = np.arange(len(coefficients))
    ends = coefficients[:, -1] == 0
    # A run starts anew where a block has something before its end, follows one without an end, or where the
    # decoder starts again; and where the run would not fit into its count.
    after_end = np.concatenate([[False], ends[:-1]])
    restarts = np.diff(interval, prepend=-1) != 0
    starts = ends & ((counted > 0) | ~after_end | restarts)
    since = number - np.maximum.accumulate(np.where(starts, number, 0))
    starts |= ends & (since % _LONGEST_EOB_RUN == 0)
    # The symbol stands with the first block of its run, before that block's successors are skipped.
    run = np.bincount((np.cumsum(starts) - 1)[ends], minlength=int(starts.sum()))
    start = np.concatenate([[0], np.cumsum(counted + starts)])
    out = _blank(start, table, interval)
    _put(out, coefficients, found, start[:-1])
    at = start[1:][starts] - 1
    power = np.frexp(run)[1] - 1  # the run's highest bit is the symbol, the bits below it follow raw
    out.symbol[at], out.size[at] = power << 4, power
    out.extra[at] = run - (1 << power)
    return out


def _differences(dc: Ints, owner: Ints, interval: Ints) -> Ints:
    # Each DC minus the one before it of the same component; from zero on at the start of an interval (F.1.2.1.1).
    out = np.empty(len(dc), np.int32)
    for component in np.unique(owner):
        mine = owner == component
        own = dc[mine].astype(np.int32)
        step = np.diff(own, prepend=0)
        fresh = np.diff(interval[mine], prepend=-1) != 0
        step[fresh] = own[fresh]
        out[mine] = step
    return out


def _nonzero(ac: Ints) -> _Nonzero:
    block, place = np.nonzero(ac)
    first = np.diff(block, prepend=-1) != 0
    zeros = np.diff(place, prepend=0) - 1
    zeros[first] = place[first]
    return _Nonzero(block, place, zeros, first)


def _per_block(found: _Nonzero, blocks: int) -> Ints:
    # AC symbols of each block, its end not counted.
    return np.bincount(found.block, weights=found.sixteens + 1, minlength=blocks).astype(np.int64)


def _blank(start: Ints, table: Bytes, interval: Ints) -> Symbols:
    # Room for every symbol, block after block. Filled with the one for 16 zeros: what is not written over stays that.
    count = int(start[-1])
    of_block = np.repeat(np.arange(len(start) - 1), np.diff(start))
    return Symbols(
        (table[of_block] + AC).astype(np.uint8),
        np.full(count, _SIXTEEN_ZEROS, np.uint8),
        np.zeros(count, np.int32),
        np.zeros(count, np.uint8),
        interval[of_block].astype(np.int32),
    )


def _put(out: Symbols, ac: Ints, found: _Nonzero, start: Ints) -> None:
    # Writes the symbol of each nonzero coefficient. start: where the AC symbols of each block begin.
    if not found.block.size:
        return
    # Its place: behind the symbols of its block's earlier coefficients, and its own for 16 zeros.
    done = np.cumsum(found.sixteens + 1)
    before_block = (done - found.sixteens - 1)[found.first]
    at = start[found.block] + done - 1 - before_block[np.cumsum(found.first) - 1]
    size, extra = _magnitude(ac[found.block, found.place])
    out.symbol[at] = (found.zeros & 15) << 4 | size
    out.size[at], out.extra[at] = size, extra


def _magnitude(values: Ints) -> tuple[Ints, Ints]:
    # Size and raw bits (F.1.2.1.1). Of a negative number the bits are those of it minus one, so that the highest is 0
    # and the decoder sees the sign.
    wide = values.astype(np.int32)
    size = np.frexp(np.abs(wide).astype(np.float32))[1]
    return size, wide + np.where(wide < 0, (1 << size) - 1, 0)
