"""Lines of text as quadrilaterals: out of a probability map, in reading order, each once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from cleanplate.models.detectors.onnx_session import Floats
from cleanplate.models.detectors.views import tiles

Quad = npt.NDArray[np.float64]
"""4x2 corners x, y in image pixels: of the line's start, top first, then clockwise."""


@dataclass(frozen=True)
class Line:
    """One line of text: its quadrilateral, the detector's mean probability in it, and what was read (score 0
    and no text without a recogniser). slanted: found in the turned picture. drawn: found in an overlay's map, not in
    the picture. sketch: how well two letters or more of it read in that map. places: of each character of the text,
    where its middle lies along the line, 0 to 1."""

    quad: Quad
    found: float
    text: str = ""
    read: float = 0.0
    slanted: bool = False
    drawn: bool = False
    sketch: float = 0.0
    places: tuple[float, ...] = ()

    @property
    def view(self) -> str:
        """What is added to the detector's name, so that verification knows which view can see it."""
        return "@map" if self.drawn else "@slanted" if self.slanted else ""

    @property
    def height(self) -> float:
        return float(np.linalg.norm(self.quad[3] - self.quad[0]))

    @property
    def width(self) -> float:
        return float(np.linalg.norm(self.quad[1] - self.quad[0]))

    @property
    def letters(self) -> int:
        """How many letters and digits were read."""
        return sum(char.isalnum() for char in self.text)


def quads(probability: Floats, threshold: float, box_threshold: float) -> list[tuple[Quad, float]]:
    """Lines in an H x W probability map: (quadrilateral in map pixels, mean probability).

    Each connected blob is a shrunk line; its minimal rectangle grows by area * 1.6 / perimeter on each side
    (the unclipping of DB, Liao et al. 2020, arXiv:1911.08947, section 3.5; exact for a rectangle).
    """
    blobs = (probability > threshold).astype(np.uint8)
    contours, _ = cv2.findContours(blobs, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    out: list[tuple[Quad, float]] = []
    for contour in contours:
        (x, y), (w, h), angle = cv2.minAreaRect(contour)
        if min(w, h) < 2:
            continue
        score = _mean_inside(probability, np.asarray(cv2.boxPoints(((x, y), (w, h), angle))))
        if score < box_threshold:
            continue
        # Contours run through pixel centres, so the rectangle is one pixel short each way.
        w, h = w + 1, h + 1
        grow = 1.6 * w * h / (2 * (w + h))
        corners = cv2.boxPoints(((x + 0.5, y + 0.5), (w + 2 * grow, h + 2 * grow), angle))
        out.append((_ordered(np.asarray(corners, np.float64)), score))
    return out


def _mean_inside(probability: Floats, corners: npt.NDArray[np.float32]) -> float:
    height, width = probability.shape
    low = np.clip(np.floor(corners.min(0)).astype(int), 0, [width - 1, height - 1])
    high = np.clip(np.ceil(corners.max(0)).astype(int) + 1, low + 1, [width, height])
    patch = probability[low[1] : high[1], low[0] : high[0]]
    inside = np.zeros(patch.shape, np.uint8)
    cv2.fillPoly(inside, [np.round(corners - low).astype(np.int32)], 1)
    return float(patch[inside > 0].mean()) if inside.any() else 0.0


def _ordered(corners: Quad) -> Quad:
    """Corners of a rectangle so that the first edge is the top of a line that runs to the right; a tall
    rectangle (1.5 times) is a line that runs up or down, and its first edge is still its long side."""
    centre = corners.mean(0)
    around = corners[np.argsort(np.arctan2(*(corners - centre).T[::-1]))]  # clockwise on screen
    edges = np.roll(around, -1, 0) - around
    lengths = np.linalg.norm(edges, axis=1)
    tall = lengths.max() >= 1.5 * lengths.min()
    along = lengths > lengths.max() / 1.5 if tall else np.ones(4, np.bool_)
    # Among the edges that may be the top, the one that points most to the right (a vertical line: upwards).
    direction = edges[:, 0] - 1e-3 * edges[:, 1]
    start = int(np.argmax(np.where(along, direction, -np.inf)))
    return np.roll(around, -start, 0)


def angle_of(line: Line) -> float:
    """Degrees, clockwise on screen, of the line's direction."""
    along = line.quad[1] - line.quad[0]
    return float(np.degrees(np.arctan2(along[1], along[0])))


def turn_between(one: Line, other: Line) -> float:
    """Degrees in [0, 90] between the directions of two lines, whichever way they run."""
    turn = abs(angle_of(one) - angle_of(other)) % 180
    return min(turn, 180 - turn)


def beside(one: Line, other: Line) -> bool:
    """Whether two lines may be of one text: nearly as high (1.7 times at most) and at one angle (6 degrees), under each
    other by no more than 2.5 of their heights, or one going on where the other ends."""
    low, top = sorted((one.height, other.height))
    if not top or top > 1.7 * low or turn_between(one, other) > 6:
        return False
    high = (low + top) / 2
    along = (one.quad[1] - one.quad[0]) / max(one.width, 1e-6)
    x, y = np.abs(np.array([along, [-along[1], along[0]]]) @ (other.quad.mean(0) - one.quad.mean(0)))
    gap = x - (one.width + other.width) / 2
    return bool((gap < 0 and y < 2.5 * high) or (gap < 1.5 * high and y < 0.5 * high))


def box_of(quad: Quad, height: int, width: int) -> tuple[float, float, float, float] | None:
    x0, y0 = np.maximum(quad.min(0), 0).tolist()
    x1, y1 = np.minimum(quad.max(0), [width, height]).tolist()
    return (x0, y0, x1, y1) if x1 > x0 and y1 > y0 else None


def shared(one: Line, other: Line) -> tuple[float, float]:
    """(intersection over union, share of `one` inside `other`) of two quadrilaterals."""
    if (one.quad.max(0) < other.quad.min(0)).any() or (other.quad.max(0) < one.quad.min(0)).any():
        return 0.0, 0.0
    area, _ = cv2.intersectConvexConvex(one.quad.astype(np.float32), other.quad.astype(np.float32))
    own, others = one.height * one.width, other.height * other.width
    return area / max(own + others - area, 1e-6), area / max(own, 1e-6)


def without_twins(lines: list[Line]) -> list[Line]:
    """Of lines found twice (whole image and tile) the surer one."""
    scores = [line.found for line in lines]
    kept = tiles.suppress(len(lines), scores, lambda a, b: shared(lines[a], lines[b])[0], 0.6)
    return [lines[i] for i in sorted(kept)]


def without_parts(lines: list[Line]) -> list[int]:
    """Numbers of the lines that do not lie almost wholly inside a larger one (the piece that a tile cut off)."""
    areas = [line.height * line.width for line in lines]
    return sorted(tiles.suppress(len(lines), areas, lambda a, b: shared(lines[a], lines[b])[1], 0.8))


def without_seen(lines: Sequence[Line], believed: Sequence[bool]) -> list[int]:
    """Numbers of the lines but for drawn ones of which more than half lies in a believed one of the picture."""
    plain = [line for line, sure in zip(lines, believed, strict=True) if sure and not line.drawn]
    return [
        number
        for number, line in enumerate(lines)
        if not line.drawn or all(shared(line, other)[1] <= 0.5 for other in plain)
    ]
