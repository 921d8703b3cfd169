"""Holes shaped like objects: the third kind of mask of LaMa's paper (section 4, "segmentation").

The authors take the objects from a panoptic network (detectron2, COCO) and move each to another place of the
same photograph, so that the hole looks like something one would remove but hides what is known. The moves and
their limits here are theirs. The objects come from whoever has them (instance masks of a COCO file); where
nobody has, from `coloured_pieces`, which is no object detector: pieces of one colour, of an object's size.

Masks are HW bool, True = object or hole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from cleanplate.models.segmenters.masks import fill_holes
from cleanplate.models.types import Image, Mask


@dataclass(frozen=True)
class Moves:
    """Limits of the released generator. Areas are shares of the image, shifts of its height.

    max_object, min_hole: area that an object may, and a hole must have.  scale: size changes by up to this.
    vertical: shift up or down.  hidden: share of the hole that may lie outside the image.
    overlap: share of the object that the hole may cover at its own place, and of the hole that may lie on it.
    covered: the same for every other object.
    """

    max_object: float = 0.3
    min_hole: float = 0.02
    scale: float = 0.25
    vertical: float = 0.1
    hidden: float = 0.2
    overlap: float = 0.5
    covered: float = 0.5


PAPER_MOVES = Moves()
TRIES = 20
"""Random moves tried for one object before the next one is taken."""


def moved_object(
    rng: np.random.Generator, objects: Sequence[Mask], moves: Moves = PAPER_MOVES
) -> Mask | None:
    """A hole with the outline of one of an image's objects, at another place; None when none can be moved.

    Objects are tried in random order. Raises ValueError when they are of different sizes.
    """
    if len({o.shape for o in objects}) > 1:
        raise ValueError("the objects of an image must be masks of its size")
    for number in rng.permutation(len(objects)):
        mask = objects[int(number)]
        if not mask.any() or mask.mean() >= moves.max_object:
            continue
        for _ in range(TRIES):
            hole = _move(rng, mask, moves)
            if hole is not None and _allowed(hole, int(number), objects, moves):
                return hole
    return None


def _move(rng: np.random.Generator, mask: Mask, moves: Moves) -> Mask | None:
    """The object mirrored, scaled and shifted; None when too much of it leaves the image or it is too small."""
    height, width = mask.shape
    ys, xs = np.nonzero(mask)
    top, bottom, left, right = ys.min(), ys.max() + 1, xs.min(), xs.max() + 1
    cut: npt.NDArray[np.uint8] = mask[top:bottom, left:right].astype(np.uint8)
    if rng.random() < 0.5:
        cut = cut[:, ::-1]
    scale = rng.uniform(1 - moves.scale, 1 + moves.scale)
    size = (max(1, round(cut.shape[1] * scale)), max(1, round(cut.shape[0] * scale)))
    cut = np.asarray(cv2.resize(np.ascontiguousarray(cut), size, interpolation=cv2.INTER_NEAREST), np.uint8)
    shift = rng.uniform(-moves.vertical, moves.vertical) * height
    y = round((top + bottom - size[1]) / 2 + shift)
    spare = round(moves.hidden * size[0])
    x = int(rng.integers(-spare, max(width - size[0] + spare, 1 - spare) + 1))
    hole = np.zeros_like(mask)
    y0, y1, x0, x1 = max(y, 0), min(y + size[1], height), max(x, 0), min(x + size[0], width)
    if y0 >= y1 or x0 >= x1:
        return None
    hole[y0:y1, x0:x1] = cut[y0 - y : y1 - y, x0 - x : x1 - x] > 0
    shown = int(hole.sum())
    big_enough = shown >= (1 - moves.hidden) * int(cut.sum()) and shown >= moves.min_hole * hole.size
    return hole if big_enough else None


def _allowed(hole: Mask, number: int, objects: Sequence[Mask], moves: Moves) -> bool:
    for other, mask in enumerate(objects):
        shared, limit = int((hole & mask).sum()), moves.overlap if other == number else moves.covered
        if shared > limit * int(mask.sum()) or shared > limit * int(hole.sum()):
            return False
    return True


def coloured_pieces(image: Image, colours: int = 6, side: int = 128) -> list[Mask]:
    """Connected pieces of one colour with 2-30 % of the image's area, their holes filled, largest first.

    image: HWC uint8 RGB. k-means on Lab colour and (weaker) position of a smoothed copy of at most `side`
    pixels; the same image always gives the same pieces.
    """
    height, width = image.shape[:2]
    factor = min(1.0, side / max(height, width))
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    small = cv2.medianBlur(np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8), 5)
    lab = cv2.cvtColor(small, cv2.COLOR_RGB2LAB).astype(np.float32)
    rows, columns = np.mgrid[: size[1], : size[0]].astype(np.float32) * (60 / max(size))
    samples = np.dstack([lab, rows, columns]).reshape(-1, 5)
    cv2.setRNGSeed(0)
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_MAX_ITER, 10, 1.0)
    start = np.zeros((len(samples), 1), np.int32)
    count = min(colours, len(samples))
    _, labels, _ = cv2.kmeans(samples, count, start, criteria, 1, cv2.KMEANS_PP_CENTERS)
    labels = labels.reshape(size[1], size[0])
    found: list[Mask] = []
    for label in range(count):
        n, parts = cv2.connectedComponents((labels == label).astype(np.uint8), connectivity=4)
        for part in range(1, n):
            piece = fill_holes(parts == part)
            if PAPER_MOVES.min_hole <= piece.mean() < PAPER_MOVES.max_object:
                full = cv2.resize(piece.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
                found.append(np.asarray(full > 0))
    return sorted(found, key=lambda piece: -int(piece.sum()))
