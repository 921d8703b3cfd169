"""Whether a known mark was blended into a picture at a place: the second test of `logos`.

Where a mark of colour R lies over a ground B with opacity a times its own alpha m, the picture is B + a m (R - B). Its
gradients are then those of the ground plus a times S = grad(m R) - B grad(m), which is known but for B: and B is much
like what lies just beside the mark. So the signed colour gradients of the picture (two directions, three channels)
are compared with S at every edge of the mark: the mean cosine says whether they agree, the regression of one on the
other how opaque the mark would be. Edges that only run the right way agree in direction, not in sign and colour, and
where they do by chance, the opacity is next to nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from cleanplate.models.types import Image

Floats = npt.NDArray[np.float32]
Render = Callable[[float, float, float, float, tuple[int, int]], tuple[Floats, Floats]]
"""side, turn, centre x, centre y, (height, width) -> (HWC the mark's colours times its alpha, HW its alpha 0..1)."""

QUICK, CLOSE = 44, 96
"""Long side of a mark, pixels, in the first test and in the last, at most."""
NOISE = 2.5
"""Grey levels a pixel: weaker gradients count less."""
WEAK, STRONG = 8.0, 40.0
"""Gradients of the mark itself below WEAK levels a pixel are no edge; above STRONG all count alike."""


@dataclass(frozen=True)
class Evidence:
    """agreement: mean of the cosine over the mark's edges and of that over its worst third, -1..1. opacity: by
    regression, biased low; about 0 by chance."""

    agreement: float
    opacity: float


@dataclass(frozen=True)
class Pose:
    """Centre x, y in image pixels, long side in pixels, degrees clockwise."""

    x: float
    y: float
    side: float
    turn: float


class Looked:
    """The surroundings of a pose, `fine` pixels for the mark's long side, in which poses near by can be tested.

    image: HWC uint8 RGB. render draws the mark; it is that of a `reference.Mark`.
    """

    def __init__(self, image: Image, render: Render, pose: Pose, fine: int) -> None:
        self._render = render
        factor = min(float(fine), 1.5 * pose.side) / pose.side
        reach = 0.9 * pose.side + 4 / factor
        height, width = image.shape[:2]
        self._left, self._top = max(0, math.floor(pose.x - reach)), max(0, math.floor(pose.y - reach))
        right, bottom = min(width, math.ceil(pose.x + reach)), min(height, math.ceil(pose.y + reach))
        size = (
            max(8, round((right - self._left) * factor)),
            max(8, round((bottom - self._top) * factor)),
        )
        self._scale = (size[0] / (right - self._left), size[1] / (bottom - self._top))
        how = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
        part = np.ascontiguousarray(image[self._top : bottom, self._left : right])
        small = cv2.resize(part, size, interpolation=how).astype(np.float32)
        self._pixels = np.asarray(cv2.GaussianBlur(small, (0, 0), 0.8), np.float32)
        self._slopes = _slopes(self._pixels)
        self._strength = np.sqrt((self._slopes**2).sum(2) + NOISE**2)

    def test(self, pose: Pose) -> Evidence:
        """How well the picture agrees with the mark at a pose; (0, 0) where it has no edge to show."""
        sx, sy = self._scale
        colours, cover = self._render(
            pose.side * (sx + sy) / 2,
            pose.turn,
            (pose.x - self._left) * sx,
            (pose.y - self._top) * sy,
            (self._pixels.shape[0], self._pixels.shape[1]),
        )
        expected = self._expected(colours, cover)
        strength = np.sqrt((expected**2).sum(2))
        weight = np.where(strength > WEAK, np.minimum(strength, STRONG), 0).astype(np.float32)
        ys, xs = np.nonzero(weight)
        if not len(ys):
            return Evidence(0.0, 0.0)
        own, here = weight[ys, xs], self._strength[ys, xs]
        product = (self._slopes[ys, xs] * expected[ys, xs]).sum(1)
        cosine = product / (here * strength[ys, xs])
        # Where the ground itself is rough, its slopes tell little.
        trust = 1 / here**2
        opacity = float((trust * product).sum() / (trust * strength[ys, xs] ** 2).sum())
        return Evidence(evenly(ys, xs, own, own * cosine), opacity)

    def _expected(self, colours: Floats, cover: Floats) -> Floats:
        """H x W x 6: the gradients that the mark adds at full opacity, over the ground beside it."""
        around = max(3, int(0.12 * max(cover.shape))) | 1
        clear = (1 - cover)[..., None]
        share = cv2.blur(1 - cover, (around, around))[..., None]
        beside = cv2.blur(self._pixels * clear, (around, around)) / np.maximum(share, 1e-3)
        wide = cv2.blur(self._pixels, (3 * around, 3 * around))
        known = np.clip(share / 0.15, 0, 1)
        ground = beside * known + wide * (1 - known)
        edge = _slopes(np.asarray(cv2.GaussianBlur(cover, (0, 0), 0.8), np.float32)[..., None])
        drawn = _slopes(np.asarray(cv2.GaussianBlur(colours, (0, 0), 0.8), np.float32))
        return np.asarray(
            drawn - np.concatenate([ground * edge[..., :1], ground * edge[..., 1:]], 2), np.float32
        )

    def refined(self, pose: Pose) -> tuple[Pose, Evidence]:
        """The best pose near by: up to 3 pixels, 6 % of size, 4 degrees away."""
        best, known = pose, self.test(pose)
        for step in (1.0, 0.5):
            for _ in range(2):
                before = best
                for other in self._near(before, step):
                    moved = Pose(
                        best.x + other.x - before.x,
                        best.y + other.y - before.y,
                        best.side * other.side / before.side,
                        best.turn + other.turn - before.turn,
                    )
                    found = self.test(moved)
                    if found.agreement > known.agreement:
                        best, known = moved, found
                if best == before:
                    break
        return best, known

    def _near(self, pose: Pose, step: float) -> Iterator[Pose]:
        pixel = step / self._scale[0]
        for sign in (-1, 1):
            yield Pose(pose.x + sign * pixel, pose.y, pose.side, pose.turn)
            yield Pose(pose.x, pose.y + sign * pixel, pose.side, pose.turn)
            yield Pose(pose.x, pose.y, pose.side * (1 + sign * 0.015 * step), pose.turn)
            yield Pose(pose.x, pose.y, pose.side, pose.turn + sign * step)


def _slopes(pixels: Floats) -> Floats:
    """H x W x 2C: horizontal slopes of the channels, then vertical ones, grey levels a pixel."""
    shape = (*pixels.shape[:2], -1)
    across = cv2.Scharr(pixels, cv2.CV_32F, 1, 0, scale=1 / 32).reshape(shape)
    down = cv2.Scharr(pixels, cv2.CV_32F, 0, 1, scale=1 / 32).reshape(shape)
    return np.concatenate([across, down], 2)


def evenly(
    ys: npt.NDArray[np.intp],
    xs: npt.NDArray[np.intp],
    weight: npt.NDArray[np.floating],
    agreement: npt.NDArray[np.floating],
) -> float:
    """Of edge pixels at ys, xs with their weights, and their agreement times weight: the mean of that of the whole and
    of that of its worst third: in 3 x 3 parts, those with enough edges."""
    row = (ys - ys.min()) * 3 // max(1, ys.max() - ys.min() + 1)
    column = (xs - xs.min()) * 3 // max(1, xs.max() - xs.min() + 1)
    part = row * 3 + column
    weights, sums = np.bincount(part, weight, 9), np.bincount(part, agreement, 9)
    enough = weights > 0.03 * weights.sum()
    parts = np.sort(sums[enough] / weights[enough])
    worst = parts[: max(1, len(parts) // 3)].mean() if len(parts) else 0.0
    return float((sums.sum() / weights.sum() + worst) / 2)
