"""Masks as rows carry them: COCO compressed run-length codes, unions, boxes, areas."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from pycocotools import mask as coco

from cleanplate.models.types import Mask

Box = tuple[float, float, float, float]


def to_rle(mask: Mask) -> str:
    """COCO compressed RLE counts of an HW bool mask (column-major runs, as pycocotools writes them).

    The size is not in the string; it is the height and width of the image.
    """
    _check(mask)
    packed = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    counts: bytes = packed["counts"]
    return counts.decode("ascii")


def from_rle(counts: str | None, height: int, width: int) -> Mask:
    """HW bool mask of height x width from `to_rle`'s string; None holds no pixel. Raises ValueError where the runs do
    not fit."""
    if counts is None:
        return np.zeros((height, width), dtype=bool)
    # pycocotools trusts the string and writes outside its buffer when the runs are longer than the size.
    runs = _runs(counts)
    if sum(runs) != height * width:
        raise ValueError(f"the runs cover {sum(runs)} pixels, the image has {height * width}")
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return np.ascontiguousarray(flat.reshape((height, width), order="F"))


def union(masks: Iterable[Mask], height: int, width: int) -> Mask:
    """HW bool, True where any mask is True; all False where there are none. Raises ValueError on a size."""
    out = np.zeros((height, width), dtype=bool)
    for mask in masks:
        if mask.shape != out.shape:
            raise ValueError(f"a mask of {mask.shape} for an image of {out.shape}")
        out |= mask
    return out


def box_of(mask: Mask) -> Box | None:
    """xyxy pixels of the smallest box that holds the mask (x1, y1 exclusive); None where it is empty."""
    _check(mask)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if rows.size == 0:
        return None
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def from_box(box: Box, height: int, width: int) -> Mask:
    """HW bool, True for every pixel that the xyxy box touches; parts outside the image are cut off."""
    x0, y0 = max(0, int(np.floor(box[0]))), max(0, int(np.floor(box[1])))
    x1, y1 = max(0, int(np.ceil(box[2]))), max(0, int(np.ceil(box[3])))
    out = np.zeros((height, width), dtype=bool)
    out[y0:y1, x0:x1] = True
    return out


def area(mask: Mask) -> int:
    """Pixels that are True."""
    return int(np.count_nonzero(mask))


def coverage(mask: Mask) -> float:
    """Share of the image that is True, 0..1."""
    _check(mask)
    return area(mask) / mask.size


def _check(mask: Mask) -> None:
    if mask.ndim != 2 or mask.dtype != np.bool_ or mask.size == 0:
        raise ValueError(f"a mask is HW bool and not empty, this is {mask.dtype} {mask.shape}")


def _runs(counts: str) -> list[int]:
    # The string form of maskApi.c: 5 bits a character, low first, bit 6 = more, then deltas from two back.
    runs: list[int] = []
    at = 0
    while at < len(counts):
        value, shift, more = 0, 0, True
        while more:
            if at >= len(counts):
                raise ValueError("the run-length string ends inside a number")
            code = ord(counts[at]) - 48
            if not 0 <= code < 64:
                raise ValueError("a character that no run-length string has")
            value |= (code & 0x1F) << shift
            more = bool(code & 0x20)
            at += 1
            shift += 5
            if not more and code & 0x10:
                value |= -1 << shift
        if len(runs) > 2:
            value += runs[-2]
        if value < 0:
            raise ValueError("a negative run")
        runs.append(value)
    return runs
