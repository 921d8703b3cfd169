"""Tiled marks by their period: copies that were missed are looked for where the found ones say that they are.

Finds of like size are points of a lattice, c + m a + n b. Its two vectors are taken from the displacements between
them. At each free point the copies' common shape is laid over the picture: it is another copy where the U-Net's map
or the picture itself shows that shape.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from cleanplate.models.detectors.overlay.evidence import Box, cut, window
from cleanplate.models.detectors.overlay.overlay_map import Looks
from cleanplate.models.segmenters.masks import grow
from cleanplate.models.types import Image, Mask, Region

VIEW = "@lattice"
"""What the name of the detector of a tiling's copies ends in, of one that was found by the period."""
ALIKE, SLANT = 1.4, 10.0
"""Largest ratio of the sides of two copies, and most degrees between them."""
LEAST = 5
"""Copies that make a lattice."""
NEAR = 0.15
"""How far a copy may lie from its point, as a share of the shorter vector."""
HELD = 0.75
"""Least share of the like-sized finds that lie on the lattice."""
SEEN, STANDS_OUT = 0.12, 3.5
"""A copy is there where the mean chance in its shape is so much above that round about, or where the shape stands out
of the picture by so many standard deviations of what it does at other places."""
COVERED = 0.6
"""Share of a copy's shape that makes it a known one."""
CUT = 0.3
"""Share of a copy's shape that lies in the picture at least: at its edges copies are cut."""
MOST = 200
"""Points of a lattice that are looked at."""

Points = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Lattice:
    """Points origin + m a + n b, x and y in pixels."""

    origin: Points
    a: Points
    b: Points

    def at(self, points: Points) -> Points:
        """N x 2 (m, n), not rounded, of N x 2 points."""
        return np.asarray(np.linalg.solve(np.stack([self.a, self.b], 1), (points - self.origin).T).T)

    def inside(self, width: float, height: float, rim: float) -> Points:
        """The points in a picture of this size, or no farther than `rim` outside."""
        corners = np.array(
            [[-rim, -rim], [width + rim, -rim], [-rim, height + rim], [width + rim, height + rim]]
        )
        low, high = np.floor(self.at(corners).min(0)), np.ceil(self.at(corners).max(0))
        m, n = np.meshgrid(np.arange(low[0], high[0] + 1), np.arange(low[1], high[1] + 1))
        points = self.origin + m.reshape(-1, 1) * self.a + n.reshape(-1, 1) * self.b
        kept = (points > -rim).all(1) & (points < np.array([width + rim, height + rim])).all(1)
        return np.asarray(points[kept])


def lattice_of(points: Points) -> tuple[Lattice, npt.NDArray[np.bool_]] | None:
    """The lattice that most of the N x 2 points lie on, and which do; None where there is none.

    Of the pairs of displacements the one counts whose lattice holds most points, and of those the coarsest: the points
    lie on every finer one as well.
    """
    if len(points) < LEAST:
        return None
    best: tuple[tuple[int, float], Lattice, npt.NDArray[np.bool_]] | None = None
    for a, b in _pairs(points):
        cell = abs(float(a[0] * b[1] - a[1] * b[0]))
        for origin in points[:3]:
            lattice = Lattice(origin, a, b)
            held = _held(lattice, points)
            key = (int(held.sum()), cell)
            if best is None or key[0] > best[0][0] or (key[0] == best[0][0] and cell > best[0][1]):
                best = key, lattice, held
    if best is None or best[0][0] < max(LEAST, HELD * len(points)):
        return None
    return _refined(best[1], points[best[2]]), best[2]


def _pairs(points: Points) -> Iterator[tuple[Points, Points]]:
    """Pairs of displacements between points, short ones, that are not nearly parallel."""
    steps = (points[:, None] - points[None]).reshape(-1, 2)
    steps = steps[(steps[:, 1] > 0) | ((steps[:, 1] == 0) & (steps[:, 0] > 0))]
    lengths = np.linalg.norm(steps, axis=1)
    short: list[Points] = []
    for step in steps[np.argsort(lengths)]:
        if all(np.linalg.norm(step - one) > 2 * NEAR * np.linalg.norm(one) for one in short):
            short.append(step)
        if len(short) == 8:
            break
    for k, a in enumerate(short):
        for b in short[k + 1 :]:
            sine = abs(a[0] * b[1] - a[1] * b[0]) / (np.linalg.norm(a) * np.linalg.norm(b))
            if sine > 0.25:
                yield a, b


def _held(lattice: Lattice, points: Points) -> npt.NDArray[np.bool_]:
    at = lattice.at(points)
    off = (at - np.round(at)) @ np.stack([lattice.a, lattice.b])
    limit = NEAR * min(np.linalg.norm(lattice.a), np.linalg.norm(lattice.b))
    return np.asarray(np.linalg.norm(off, axis=1) <= limit)


def _refined(lattice: Lattice, points: Points) -> Lattice:
    """The lattice by least squares of the points on it, where they determine it."""
    at = np.round(lattice.at(points))
    known = np.c_[np.ones(len(at)), at]
    if np.linalg.matrix_rank(known) < 3:
        return lattice
    fitted = np.linalg.lstsq(known, points, rcond=None)[0]
    return Lattice(fitted[0], fitted[1], fitted[2])


def with_copies(image: Image, looks: Looks, regions: list[Region]) -> list[Region]:
    """The regions of the HWC uint8 RGB image, and after them the copies of what is tiled that they miss."""
    known = np.zeros(image.shape[:2], np.bool_)
    for region in regions:
        if region.mask is not None and not region.doubtful:
            known |= region.mask
    more: list[Region] = []
    for kind in dict.fromkeys(r.kind for r in regions):
        mine = [r for r in regions if r.kind == kind and r.mask is not None and not r.doubtful]
        found = _copies(image, looks, _alike(mine, image.shape), known)
        for mask, score in found:
            known |= mask
            x0, y0, x1, y1 = (float(side) for side in window(mask))
            name = mine[0].detector.partition("@")[0] + VIEW
            more.append(Region(kind, name, score, (x0, y0, x1, y1), mask))
    return [*regions, *more]


def _alike(regions: Sequence[Region], shape: tuple[int, ...]) -> list[Region]:
    """The largest group of regions of one size and slant that do not touch the edges of a picture of this shape."""
    whole = [r for r in regions if r.mask is not None and _apart_from_edges(r.box, shape)]
    if len(whole) < LEAST:
        return []
    rects = np.array([_rectangle(r.mask) for r in whole if r.mask is not None])
    sides = np.log(rects[:, :2])
    turn = np.abs(rects[:, None, 2] - rects[None, :, 2])
    alike = np.abs(sides[:, None] - sides[None]).max(-1) < np.log(ALIKE)
    alike &= np.minimum(turn, 180 - turn) < SLANT
    return [whole[n] for n in np.flatnonzero(alike[alike.sum(1).argmax()])]


def _apart_from_edges(box: Sequence[float], shape: tuple[int, ...]) -> bool:
    return box[0] > 1 and box[1] > 1 and box[2] < shape[1] - 1 and box[3] < shape[0] - 1


def _rectangle(mask: Mask) -> tuple[float, float, float]:
    """(longer side, shorter side, degrees of the longer one in [0, 180)) of the smallest rectangle round a mask."""
    points = cv2.findNonZero(mask.astype(np.uint8))
    _, (one, other), angle = cv2.minAreaRect(cv2.convexHull(points))
    return max(one, other) + 1, min(one, other) + 1, (angle if one >= other else angle + 90) % 180


def _copies(image: Image, looks: Looks, alike: Sequence[Region], known: Mask) -> Iterator[tuple[Mask, float]]:
    """(pixels, how sure) of the copies that are missed."""
    points = np.array([[(r.box[0] + r.box[2]) / 2, (r.box[1] + r.box[3]) / 2] for r in alike]).reshape(-1, 2)
    fitted = lattice_of(points)
    if fitted is None:
        return
    lattice, held = fitted
    shape = _common([r for r, kept in zip(alike, held, strict=True) if kept])
    high, wide = shape.shape
    free = lattice.inside(image.shape[1], image.shape[0], max(high, wide) / 2)
    if len(free) > MOST:
        return
    likeness = _Likeness(image, looks, shape)
    for x, y in free:
        place = _placed(shape, x, y, known.shape)
        if place is None or known[place].mean() > COVERED:
            continue
        found = likeness.best(x, y)
        if found is not None:
            yield found


def _common(regions: Sequence[Region]) -> Mask:
    """What most copies have: HW bool, its middle that of their boxes."""
    half_w = round(max(r.box[2] - r.box[0] for r in regions) / 2) + 2
    half_h = round(max(r.box[3] - r.box[1] for r in regions) / 2) + 2
    total = np.zeros((2 * half_h + 1, 2 * half_w + 1), np.float32)
    for r in regions:
        assert r.mask is not None
        x, y = round((r.box[0] + r.box[2]) / 2), round((r.box[1] + r.box[3]) / 2)
        framed = np.pad(r.mask, ((half_h, half_h), (half_w, half_w)))
        total += framed[y : y + total.shape[0], x : x + total.shape[1]]
    return np.asarray(total >= 0.4 * len(regions))


def _placed(shape: Mask, x: float, y: float, size: tuple[int, ...]) -> Mask | None:
    """A copy's pixels in a picture of this size, its middle at x, y; None where too little of it lies inside."""
    out = np.zeros(size[:2], np.bool_)
    high, wide = shape.shape
    left, top = round(x) - wide // 2, round(y) - high // 2
    x0, y0, x1, y1 = max(0, left), max(0, top), min(size[1], left + wide), min(size[0], top + high)
    if x1 <= x0 or y1 <= y0:
        return None
    part = shape[y0 - top : y1 - top, x0 - left : x1 - left]
    if part.sum() < CUT * shape.sum():
        return None
    out[y0:y1, x0:x1] = part
    return out


class _Likeness:
    """How much a place looks like a copy of this shape (HW bool): by the U-Net's map, and by the picture."""

    def __init__(self, image: Image, looks: Looks, shape: Mask) -> None:
        self._shape, self._size = shape, image.shape[:2]
        self._chance = looks.chance
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
        spread = max(2.0, min(shape.shape) / 6)
        rough = grey - cv2.GaussianBlur(grey, (0, 0), spread)
        filter_ = shape.astype(np.float32)
        soft = cv2.GaussianBlur(filter_, (0, 0), spread)
        filter_ = filter_ - soft
        norm = float(np.sqrt((filter_**2).sum())) + 1e-6
        # What the shape gives at every place, in standard deviations of the picture's own.
        self._answer = cv2.filter2D(rough, cv2.CV_32F, filter_ / norm, borderType=cv2.BORDER_CONSTANT)
        self._usual = float(np.percentile(np.abs(self._answer), 68)) + 1e-6

    def best(self, x: float, y: float) -> tuple[Mask, float] | None:
        """(pixels, how sure) of the copy at x, y or a few pixels off it; None where there is none."""
        reach = max(2, round(0.06 * max(self._shape.shape)))
        x0, y0 = max(0, round(x) - reach), max(0, round(y) - reach)
        part = np.abs(self._answer[y0 : round(y) + reach + 1, x0 : round(x) + reach + 1])
        if part.size:
            row, column = np.unravel_index(int(part.argmax()), part.shape)
            stands = float(part[row, column]) / self._usual
            if stands >= STANDS_OUT:
                x, y = x0 + float(column), y0 + float(row)
        else:
            stands = 0.0
        mask = _placed(self._shape, x, y, self._size)
        if mask is None:
            return None
        box: Box = window(mask)
        inner = cut(mask, box)
        chance = cut(self._chance, box)
        beside = ~grow(inner, 2)
        seen = float(chance[inner].mean()) - (float(chance[beside].mean()) if beside.any() else 0.0)
        if seen < SEEN and stands < STANDS_OUT:
            return None
        return mask, float(np.clip(max(0.5 + seen, stands / (stands + STANDS_OUT)), 0.5, 1.0))
