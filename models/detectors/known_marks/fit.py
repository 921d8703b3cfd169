"""A place of the coarse search, fitted on a finer copy by the directions of edges, then by colours."""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np

from cleanplate.models.detectors.known_marks.blend import CLOSE, QUICK, Looked, Render, evenly
from cleanplate.models.detectors.known_marks.places import AGREES, OPACITY, SURE, Place
from cleanplate.models.detectors.known_marks.reference import (
    Angles,
    Mark,
    angles,
    renderer,
    resized,
    template_of,
)
from cleanplate.models.types import Image

FINE = 96
"""Long side of a mark on the finer copy, at most, pixels."""
SLACK = 8
"""Pixels of the finer copy by which the coarse place may err."""
AT_MOST = 12
"""Places of one reference that are looked at closely for their directions; as many again may be for their colours."""
PROMISING = 0.15
"""Agreement in a first, coarse test of colours from which a place is looked at closely."""


def fitted_places(image: Image, mark: Mark, coarse: list[Place]) -> list[Place]:
    """The likeliest of the coarse search's places (best first), looked at closely: those whose edges run best, and
    those that also have the mark's colours."""
    render = renderer(mark)
    colours = [Looked(image, render, place.pose, QUICK).test(place.pose).agreement for place in coarse]
    both = sorted(range(len(coarse)), key=lambda n: -(coarse[n].score + colours[n]))
    wanted = {*range(min(AT_MOST, len(coarse))), *(n for n in both[:AT_MOST] if colours[n] > PROMISING)}
    return [_in_colour(image, render, _fitted(image, mark, coarse[n])) for n in sorted(wanted)]


def _in_colour(image: Image, render: Render, place: Place) -> Place:
    """The place with what its colours say, moved to where they agree best when that is what speaks for it."""
    if place.score >= SURE:
        return place
    looked = Looked(image, render, place.pose, CLOSE)
    found = looked.test(place.pose)
    if found.agreement > PROMISING and found.opacity > OPACITY / 4:
        pose, better = looked.refined(place.pose)
        if better.agreement >= AGREES and better.opacity >= OPACITY:
            score = max(place.score, better.agreement)
            return Place(pose.x, pose.y, pose.side, pose.turn, score, better.agreement, better.opacity)
        found = better
    return replace(place, agrees=found.agreement, opacity=found.opacity)


def _fitted(image: Image, mark: Mark, place: Place) -> Place:
    """The place, its size, turn and centre corrected on a finer copy, and scored there."""
    fine = min(float(FINE), 2 * place.side)
    factor = fine / place.side
    reach = place.side * 0.85 + 6 / factor
    x0, y0 = max(0, math.floor(place.x - reach)), max(0, math.floor(place.y - reach))
    x1, y1 = min(image.shape[1], math.ceil(place.x + reach)), min(image.shape[0], math.ceil(place.y + reach))
    window = image[y0:y1, x0:x1]
    size = (max(8, round((x1 - x0) * factor)), max(8, round((y1 - y0) * factor)))
    field = angles(resized(np.ascontiguousarray(window), size))
    middle = (round((place.x - x0) * size[0] / (x1 - x0)), round((place.y - y0) * size[1] / (y1 - y0)))
    best = (-1.0, fine, place.turn, 0.0, 0.0, -1.0)
    for sizes, turns in (
        ((0.92, 0.96, 1.0, 1.04, 1.08), (0.0,)),
        ((1.0,), (-4.0, -2.0, 2.0, 4.0)),
        ((0.98, 1.02), (0.0,)),
        ((1.0,), (-1.0, 1.0)),
    ):
        mean, side, turn, *_ = best
        if -1 < mean < 0.3:
            break  # Chance: what is there agrees still less on the finer copy.
        for s in sizes:
            for t in turns:
                best = max(best, _best_at(field, middle, mark, side * s, turn + t))
    _, side, turn, x, y, score = best
    sx, sy = (x1 - x0) / size[0], (y1 - y0) / size[1]
    return Place(x0 + x * sx, y0 + y * sy, side * (sx + sy) / 2, turn, score)


def _best_at(
    field: Angles, middle: tuple[int, int], mark: Mark, side: float, turn: float
) -> tuple[float, float, float, float, float, float]:
    """(mean cosine, side, turn, x, y, score) of the best place, within SLACK of `middle`, of a mark in a field."""
    template = template_of(mark, side, turn)
    canvas = template.weight.shape[0]
    # With a rim of half a canvas, the place of a mark's centre in the field is that of its canvas's corner here.
    padded = np.pad(field, canvas // 2)
    left, top = max(0, middle[0] - SLACK), max(0, middle[1] - SLACK)
    near = padded[top : middle[1] + SLACK + canvas, left : middle[0] + SLACK + canvas]
    pairs = [np.dstack([a.real, a.imag]) for a in (near, template.field)]
    _, highest, _, (x, y) = cv2.minMaxLoc(cv2.matchTemplate(pairs[0], pairs[1], cv2.TM_CCORR))
    agreement = np.real(near[y : y + canvas, x : x + canvas] * template.field.conj())
    ys, xs = np.nonzero(template.weight)
    score = evenly(ys, xs, template.weight[ys, xs], agreement[ys, xs])
    return highest, side, turn, left + x + 0.5, top + y + 0.5, score
