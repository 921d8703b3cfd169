"""Tiled marks by the period of a map: what is overlay at most of a tiling's places is so at each.

Where few copies stand whole in a picture, or finds run into each other, there are no like-sized finds to take a
period from (`overlay.lattice`). The map of what is overlay still resembles itself when it is moved by a period: the
peaks of its autocorrelation are the lattice. Folded by it, the map says which pixels of every copy are the mark, at
the picture's edges as well.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from cleanplate.models.types import Mask

Floats = npt.NDArray[np.float32]
WORKING = 384
"""Long side of the map when its period is looked for."""
RESEMBLES = 0.35
"""Least of the autocorrelation at a period."""
SHARE = 0.7
"""Of the highest peak: lower ones are no periods."""
DIP = 0.6
"""Of a peak: so low the likeness falls on the way to it. A line of text resembles itself at any small move along it."""
OVERLAP = 0.2
"""Of the picture: a move that leaves less of it in common is not looked at."""
APART = 16
"""Pixels of the small map: shorter moves are no periods, the map is smooth. A finer tiling has longer ones as well."""
STEEP = 0.25
"""Least sine between the two vectors."""
FOLDED, TIMES = 0.45, 3
"""Least mean of a pixel over all places of the tiling, and how many of those a picture holds at least."""
EXPLAINED = 0.6
"""Share of the map that the folded one holds at least: else it has another reason than a tiling."""


def folded(chance: Floats) -> Mask | None:
    """The pixels of a tiling, HW bool, by a map of what is overlay (HW float32 in [0, 1]); None where the map has no
    period."""
    vectors = period(chance)
    if vectors is None:
        return None
    total, count = _fold(chance, *vectors)
    mask = (total >= FOLDED * count) & (count >= TIMES)
    sure = chance > 0.5
    if not sure.any() or mask[sure].mean() < EXPLAINED:
        return None
    return np.asarray(mask, np.bool_)


def period(chance: Floats) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None:
    """Two vectors (x, y in pixels) by which the map resembles itself; None where there are no two."""
    factor = min(1.0, WORKING / max(chance.shape))
    size = (max(8, round(chance.shape[1] * factor)), max(8, round(chance.shape[0] * factor)))
    small = np.asarray(cv2.resize(chance, size, interpolation=cv2.INTER_AREA), np.float32)
    likeness, middle = autocorrelation(small)
    peaks = _peaks(likeness, middle)
    back = np.array([chance.shape[1] / size[0], chance.shape[0] / size[1]])
    strong = [(vector, height) for vector, height in peaks if height >= SHARE * peaks[0][1]]
    strong.sort(key=lambda one: float(np.linalg.norm(one[0])))
    for other, _ in strong[1:]:
        a = strong[0][0]
        if abs(a[0] * other[1] - a[1] * other[0]) > STEEP * np.linalg.norm(a) * np.linalg.norm(other):
            return a * back, other * back
    return None


def autocorrelation(small: Floats) -> tuple[Floats, tuple[int, int]]:
    """(likeness in [-1, 1] of a map to itself at each move, row and column of no move): each move's product over the
    part that both have in common, by that of the part with itself, less what chance gives; -1 where that is small."""
    height, width = small.shape
    shape = (cv2.getOptimalDFTSize(2 * height), cv2.getOptimalDFTSize(2 * width))
    field, square, ones = (np.fft.rfft2(one, shape) for one in (small, small**2, np.ones_like(small)))
    product, area = (np.fft.irfft2(one * np.conj(one), shape) for one in (field, ones))
    here, there = np.fft.irfft2(ones * np.conj(square), shape), np.fft.irfft2(square * np.conj(ones), shape)
    power = np.sqrt(np.maximum(here, 0) * np.maximum(there, 0)) + 1e-6 * small.size
    usual = float(small.mean()) ** 2 / max(float((small**2).mean()), 1e-9)
    likeness = (product / power - usual) / max(1 - usual, 1e-6)
    likeness[area < OVERLAP * small.size] = -1
    return np.fft.fftshift(likeness).astype(np.float32), (shape[0] // 2, shape[1] // 2)


def _peaks(likeness: Floats, middle: tuple[int, int]) -> list[tuple[npt.NDArray[np.float64], float]]:
    """(move x and y, likeness) of the local maxima of one half of the moves, highest first, apart from no move."""
    around = cv2.dilate(likeness, np.ones((9, 9), np.uint8))
    rows, columns = np.nonzero((likeness >= around) & (likeness >= RESEMBLES))
    found = []
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        y, x = row - middle[0], column - middle[1]
        if (y < 0 or (y == 0 and x <= 0)) or max(abs(x), y) < APART:
            continue
        way = np.linspace(0, 1, 24)[:, None] * [y, x] + middle
        dip = likeness[np.round(way[:, 0]).astype(int), np.round(way[:, 1]).astype(int)].min()
        if dip > DIP * likeness[row, column]:
            continue
        found.append((_finer(likeness, row, column) - [middle[1], middle[0]], float(likeness[row, column])))
    return sorted(found, key=lambda one: -one[1])


def _finer(likeness: Floats, row: int, column: int) -> npt.NDArray[np.float64]:
    """x, y of a peak, between pixels: the middle of a parabola through its neighbours."""
    place = [float(column), float(row)]
    for axis, step in ((0, (0, 1)), (1, (1, 0))):
        low = float(likeness[max(0, row - step[0]), max(0, column - step[1])])
        high = float(
            likeness[min(likeness.shape[0] - 1, row + step[0]), min(likeness.shape[1] - 1, column + step[1])]
        )
        bend = low - 2 * float(likeness[row, column]) + high
        if low > -1 and high > -1 and bend < 0:
            place[axis] += float(np.clip(0.5 * (low - high) / bend, -0.5, 0.5))
    return np.array(place)


def _fold(
    chance: Floats, a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]
) -> tuple[Floats, npt.NDArray[np.float32]]:
    """(sum of the map moved by every m a + n b, how many of these moves show each pixel something)."""
    height, width = chance.shape
    total, count = np.zeros_like(chance), np.zeros_like(chance)
    ones = np.ones_like(chance)
    reach = int(np.ceil(2 * np.hypot(height, width) / min(np.linalg.norm(a), np.linalg.norm(b))))
    reach = min(reach, 60)
    for m in range(-reach, reach + 1):
        for n in range(-reach, reach + 1):
            x, y = m * a + n * b
            if abs(x) >= width or abs(y) >= height:
                continue
            move = np.array([[1, 0, x], [0, 1, y]], np.float64)
            total += cv2.warpAffine(chance, move, (width, height))
            count += cv2.warpAffine(ones, move, (width, height), flags=cv2.INTER_NEAREST)
    return total, count
