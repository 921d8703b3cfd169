"""Where a known mark was seen, and which of such places count."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from cleanplate.models.detectors.known_marks.blend import Pose
from cleanplate.models.detectors.known_marks.reference import Mark, placing
from cleanplate.models.detectors.views import tiles
from cleanplate.models.types import Mask

MIN_SCORE, SURE, MARGIN = 0.32, 0.5, 0.22
"""Lowest score that counts; score that counts by itself; how far one below it must stand out from what else in the
picture resembles the mark by chance. docs/notebook.md tells what they were chosen on."""
AGREES, OPACITY = 0.4, 0.1
"""Lowest agreement in sign and colour, and lowest opacity that goes with it, by which a place counts."""


@dataclass(frozen=True)
class Place:
    """Where a mark was seen: centre x, y in image pixels, its long side in pixels, degrees (clockwise), score.
    agrees, opacity: what `blend` says of it; 0 where it was not asked."""

    x: float
    y: float
    side: float
    turn: float
    score: float
    agrees: float = 0.0
    opacity: float = 0.0

    @property
    def pose(self) -> Pose:
        return Pose(self.x, self.y, self.side, self.turn)


def shape_of(mark: Mark, place: Place, size: tuple[int, int]) -> Mask:
    """HW bool of an image of size (height, width): the mark's pixels where it was seen."""
    matrix = placing(mark.shape.shape, place.side / mark.side, place.turn, (place.x, place.y))
    warped = cv2.warpAffine(
        mark.cover.astype(np.uint8) * 255, matrix, (size[1], size[0]), flags=cv2.INTER_LINEAR
    )
    return np.asarray(warped > 25)


def apart(places: list[Place], alike: float = math.inf) -> list[Place]:
    """Of places nearer to each other than 40 % of the larger one's side, and within `alike` times of one size, the
    better; best first."""

    def near(a: int, b: int) -> float:
        one, other = places[a], places[b]
        larger, smaller = max(one.side, other.side), min(one.side, other.side)
        away = math.hypot(one.x - other.x, one.y - other.y)
        return float(away < 0.4 * larger and larger <= alike * smaller)

    kept = tiles.suppress(len(places), [p.score for p in places], near, 0.5)
    return [places[i] for i in kept]


def without_parts(places: list[Place]) -> list[Place]:
    """Without the smaller ones inside a better one: a corner of a flat mark looks like the mark's own."""

    def inside(one: Place, other: Place) -> bool:
        away = math.hypot(one.x - other.x, one.y - other.y)
        return one.side < 0.7 * other.side and away < 0.6 * other.side

    return [one for n, one in enumerate(places) if not any(inside(one, other) for other in places[:n])]


def standing_out(places: list[Place], min_score: float) -> list[Place]:
    """Of the places of one mark in one picture those that are no chance: sure ones, those that have the mark's colours,
    and those of at least min_score that score MARGIN above the median of the five next best that are not sure."""
    kept = []
    for n, place in enumerate(places):
        rest = sorted((p.score for m, p in enumerate(places) if m != n and p.score < SURE), reverse=True)[:5]
        chance = float(np.median(rest)) if rest else 0.0
        coloured = place.agrees >= AGREES and place.opacity >= OPACITY
        if place.score >= min_score and (place.score >= SURE or coloured or place.score - chance >= MARGIN):
            kept.append(place)
    return kept
