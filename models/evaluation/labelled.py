"""Detectors against labelled boxes: the same photographs at several sizes and turns, and which box was found."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from cleanplate.models.segmenters.masks import box_mask
from cleanplate.models.types import Image, Mask, Region, iou

Box = tuple[float, float, float, float]
"""xyxy pixels."""

MATCH = 0.5
"""A find and a labelled box are the same thing from this intersection over union on."""
COVERED = 0.7
"""A labelled thing is gone when so much of its box would be edited."""
SIZES = (0, 16, 32, 64, 128, 256)
"""Lower ends of the classes of size: the shorter side of a labelled box, pixels."""


@dataclass(frozen=True)
class Label:
    """A thing that somebody marked in a photograph. box: xyxy pixels."""

    kind: str
    box: Box

    @property
    def side(self) -> float:
        """The shorter side, pixels."""
        return min(self.box[2] - self.box[0], self.box[3] - self.box[1])


@dataclass(frozen=True)
class View:
    """How a photograph is shown. scale: its size, 1 = as it is. turn: degrees clockwise."""

    scale: float = 1.0
    turn: float = 0.0


def seen(image: Image, labels: Sequence[Label], view: View) -> tuple[Image, list[Label]]:
    """The photograph (HWC uint8 RGB) and its labels as a view shows them.

    A canvas that holds all of the turned picture, grey beside it. A turned label is the upright box about what was
    turned: for faces about the ellipse in their box, which is what they fill, for others about the box itself.
    """
    height, width = image.shape[:2]
    if view.scale != 1:
        size = (max(1, round(width * view.scale)), max(1, round(height * view.scale)))
        how = cv2.INTER_AREA if view.scale < 1 else cv2.INTER_CUBIC
        image = np.asarray(cv2.resize(image, size, interpolation=how), np.uint8)
    quarters, rest = divmod(view.turn, 90)
    angle = math.radians(view.turn)
    cos, sin = math.cos(angle), math.sin(angle)
    high, wide = image.shape[:2]
    across = wide * abs(cos) + high * abs(sin)
    down = wide * abs(sin) + high * abs(cos)
    if rest:
        canvas = (math.ceil(across - 1e-6), math.ceil(down - 1e-6))
        matrix = np.array(
            [
                [cos, -sin, (canvas[0] - 1) / 2 - cos * (wide - 1) / 2 + sin * (high - 1) / 2],
                [sin, cos, (canvas[1] - 1) / 2 - sin * (wide - 1) / 2 - cos * (high - 1) / 2],
            ]
        )
        image = np.asarray(cv2.warpAffine(image, matrix, canvas, borderValue=(127, 127, 127)), np.uint8)
        across, down = canvas
    else:  # Exact, without a pixel mixed.
        image = np.ascontiguousarray(np.rot90(image, -int(quarters) % 4))
    turned = []
    for label in labels:
        x0, y0, x1, y1 = (value * view.scale for value in label.box)
        x, y = (x0 + x1) / 2 - wide / 2, (y0 + y1) / 2 - high / 2
        x, y = across / 2 + cos * x - sin * y, down / 2 + sin * x + cos * y
        half_x, half_y = _reach(label.kind, (x1 - x0) / 2, (y1 - y0) / 2, cos, sin)
        turned.append(Label(label.kind, (x - half_x, y - half_y, x + half_x, y + half_y)))
    return image, turned


def _reach(kind: str, a: float, b: float, cos: float, sin: float) -> tuple[float, float]:
    """Half the sides of the upright box about a turned ellipse (faces) or box of half sides a, b."""
    if kind == "face":
        return math.hypot(a * cos, b * sin), math.hypot(a * sin, b * cos)
    return abs(a * cos) + abs(b * sin), abs(a * sin) + abs(b * cos)


@dataclass(frozen=True)
class Found:
    """One labelled thing, or one find that matches none. kind: its kind. side: the labelled box's shorter side (of a
    find without a label its own). label: whether somebody marked it. found: whether a find matches it. iou: with the
    find, 0 without. score: of the find, 0 without. covered: share of the labelled box that would be edited."""

    kind: str
    side: float
    label: bool
    found: bool
    iou: float
    score: float
    covered: float


def compare(labels: Sequence[Label], regions: Sequence[Region], edited: Mask) -> list[Found]:
    """Labels against finds of the same kind, the surest find first, each label at most once (as PASCAL VOC counts,
    Everingham et al. 2010, section 4.2). edited: HW bool of the picture, what would be changed."""
    taken: dict[int, tuple[float, float]] = {}
    spare = []
    for region in sorted(regions, key=lambda one: -one.score):
        free = [n for n, label in enumerate(labels) if n not in taken and label.kind == region.kind]
        best = max(free, key=lambda n: iou(labels[n].box, region.box), default=None)
        if best is not None and (shared := iou(labels[best].box, region.box)) >= MATCH:
            taken[best] = (shared, region.score)
        else:
            side = min(region.box[2] - region.box[0], region.box[3] - region.box[1])
            spare.append(Found(region.kind, side, False, False, 0.0, region.score, 0.0))
    rows = []
    for n, label in enumerate(labels):
        shared, score = taken.get(n, (0.0, 0.0))
        inside = box_mask(edited.shape, label.box)
        covered = float(edited[inside].mean()) if inside.any() else 0.0
        rows.append(Found(label.kind, label.side, True, n in taken, shared, score, covered))
    return rows + spare


def size_class(side: float) -> str:
    """The class of a labelled box by its shorter side: "16-32" and the like."""
    low = max(n for n in SIZES if n <= max(side, 0))
    above = [n for n in SIZES if n > low]
    return f"{low}-{above[0]} px" if above else f"{low} px and more"


def views(scales: Sequence[float], turns: Sequence[float]) -> Iterator[View]:
    """Every scale unturned, and every turn at the first scale."""
    for scale in scales:
        yield View(scale, 0.0)
    for turn in turns:
        if turn % 360:
            yield View(scales[0], turn)
