"""What still shows of a mark, by its parts and against what the collection shares, whatever was thought of its colours.

The median of the gradients over many pictures, integrated, is the mark's *relief*: what all of them have in common, in
levels. A part is a set of edges of it that hang together: an outline, a letter. A fit of a picture's gradients by those
of one part is near 1 where the part shows as usual, and near 0 where it is gone. So a part that the estimate of opacity
and colours has missed is seen all the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt

from cleanplate.models.static_watermark.edges import Floats, edges_in, integrated
from cleanplate.models.static_watermark.overlay import Mark, take_off
from cleanplate.models.static_watermark.ycc import to_ycc
from cleanplate.models.types import Image, Mask

Labels = npt.NDArray[np.uint8]
_STEP = 1.5
"""Levels between neighbours from which the pictures' common step tells more than their contrast does."""
_LEAST = 60
"""Edge pixels of a part; smaller ones count together."""
_MOST_PARTS = 200
_SURE, _CERTAIN, _SEEN = 5.0, 0.12, 6.0
"""A trace in one picture is beyond so many of its standard errors (neighbouring pixels err together), which are below
so much (else the picture's own edges run along the mark's), and of so many levels."""
_LEVELS, _COARSE_LEVELS = 1.6, 4.0
"""What may be left of a part in all pictures, in levels (root mean square, along its edges), in lossless files and in
JPEG files: 44 and 36 dB."""


def relief(stack: npt.NDArray[np.uint8], steps: Floats) -> Floats:
    """HWC float32, levels: what N x H x W x 3 windows share, 0 far from it. steps: HW, as `consensus.common_steps`."""
    pairs = edges_in(cv2.dilate((steps > 0).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0)
    flat = stack.reshape(len(stack), -1, 3)
    shared = np.zeros((len(pairs.p), 3), np.float32)
    for start in range(0, len(pairs.p), 20_000):
        at = slice(start, start + 20_000)
        shared[at] = np.median(flat[:, pairs.q[at]].astype(np.int16) - flat[:, pairs.p[at]], axis=0)
    return np.stack([integrated(pairs, shared[:, c]) for c in range(3)], axis=-1).astype(np.float32)


def parts_of(steps: Floats) -> Labels:
    """HW: the part, 1 and up, that each edge pixel belongs to; 0 elsewhere."""
    edges = (steps > _STEP).astype(np.uint8)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(edges, connectivity=8)
    sizes = stats[:, cv2.CC_STAT_AREA]
    large = [n for n in range(1, len(sizes)) if sizes[n] >= _LEAST]
    large = sorted(large, key=lambda n: -sizes[n])[:_MOST_PARTS]
    rest = int(sizes[1:].sum() - sizes[large].sum())
    numbers = np.full(len(sizes), len(large) + 1 if rest >= _LEAST // 2 else 0, np.uint8)
    numbers[0] = 0
    numbers[large] = np.arange(1, len(large) + 1)
    return np.asarray(numbers[labels], np.uint8)


def traces(image: Image, mark: Mark) -> tuple[Floats, Floats]:
    """How strongly each part of the mark shows in a picture (HWC uint8 RGB, the frame of mark.box): 1 = as in most
    pictures that carry it, 0 = not at all; and the standard errors. Nothing for a mark without a relief."""
    if mark.relief is None or mark.parts is None or not mark.parts.any():
        return np.zeros(0, np.float32), np.zeros(0, np.float32)
    x0, y0, x1, y1 = mark.box
    pairs = edges_in(mark.parts > 0)
    seen, result = (
        pairs.differences(to_ycc(field).reshape(1, -1, 3))[0] for field in (image[y0:y1, x0:x1], mark.relief)
    )
    part = mark.parts.reshape(-1)[pairs.p].astype(np.intp)
    count = int(mark.parts.max()) + 1
    fit, weight = np.zeros(count, np.float32), np.ones(len(seen), np.float32)
    for _ in range(5):
        power = np.bincount(part, weight * (result * result).sum(axis=1), count) + 1e-6
        fit = (np.bincount(part, weight * (seen * result).sum(axis=1), count) / power).astype(np.float32)
        away = seen - fit[part, None] * result
        off = np.sqrt((away * away).mean(axis=1))
        usual = np.bincount(part, weight * off, count) / (np.bincount(part, weight, count) + 1e-6)
        weight = (1 / (off**2 + (1.2 * usual[part] + 1) ** 2)).astype(np.float32)
    noise = np.bincount(part, ((weight[:, None] * result * away) ** 2).sum(axis=1), count)
    return fit[1:], (np.sqrt(noise) / power)[1:].astype(np.float32)


def showing(image: Image, mark: Mark, limit: float) -> float:
    """The strongest trace of a part beyond `limit` that is surely one, and to be seen; 0 where none is."""
    fit, error = traces(image, mark)
    if not len(fit):
        return 0.0
    size = np.abs(fit)
    sure = (size > np.maximum(limit, _SURE * error)) & (error < _CERTAIN) & (size * _usual_step(mark) > _SEEN)
    return float(fit[sure][np.abs(fit[sure]).argmax()]) if sure.any() else 0.0


def with_unsure(mark: Mark, stack: Sequence[Image], coarse: bool, most: float = 0.7) -> Mark:
    """The mark with `unsure`: the parts that still show in what is left of the pictures, all alike, once it is taken
    off. What is there is not known well enough to be computed back."""
    if mark.relief is None or mark.parts is None or not mark.parts.any():
        return mark
    x0, y0, x1, y1 = mark.box
    here = replace(mark, box=(0, 0, x1 - x0, y1 - y0))
    cleaned = [take_off(np.ascontiguousarray(p[y0:y1, x0:x1]), here, most)[0] for p in stack]
    found = [traces(picture, here) for picture in cleaned]
    fits, errors = (np.stack([one[n] for one in found]) for n in (0, 1))
    levels = left_levels(fits, errors) * _usual_step(mark)
    bad = np.flatnonzero(levels > (_COARSE_LEVELS if coarse else _LEVELS)) + 1
    unsure = np.zeros(mark.alpha.shape, np.bool_)
    for number in bad:
        unsure |= _filled(mark.parts == number, mark.alpha >= most)
    return replace(mark, unsure=unsure if unsure.any() else None)


def left_levels(fits: Floats, errors: Floats) -> Floats:
    """Parts: the root mean square over the pictures of what is left of each, as a share of it, less what their own
    texture adds; by the half of the pictures that tell it best. fits, errors: N x parts."""
    best = np.argsort(errors, axis=0)[: max(4, len(errors) // 2)]
    fit, error = (np.take_along_axis(one, best, axis=0) for one in (fits, errors))
    common = np.abs(np.median(fit, axis=0)) - 2 * 1.25 * np.median(error, axis=0) / np.sqrt(len(fit))
    spread = np.sqrt(np.maximum(np.median(fit**2 - 2 * error**2, axis=0), 0))
    return np.asarray(np.maximum(np.maximum(common, 0), spread), np.float32)


def _usual_step(mark: Mark) -> Floats:
    """Parts: the levels across an edge of each in the relief, root mean square."""
    assert mark.relief is not None
    assert mark.parts is not None
    pairs = edges_in(mark.parts > 0)
    steps = pairs.differences(to_ycc(mark.relief).reshape(1, -1, 3))[0]
    part, count = mark.parts.reshape(-1)[pairs.p].astype(np.intp), int(mark.parts.max()) + 1
    power = np.bincount(part, (steps * steps).sum(axis=1), count) / np.maximum(
        np.bincount(part, minlength=count), 1
    )
    # Half of the pairs lie along the edge.
    return np.asarray(np.sqrt(2 * power[1:]), np.float32)


def _filled(edges: Mask, opaque: Mask) -> Mask:
    """A part's edges, two pixels round them and what they enclose; not what is opaque, which is filled anyway."""
    near = cv2.dilate(edges.astype(np.uint8), np.ones((5, 5), np.uint8))
    outside = np.pad(1 - near, 1, constant_values=1).astype(np.uint8)
    _, labels = cv2.connectedComponents(outside, connectivity=4)
    return np.asarray(labels != labels[0, 0])[1:-1, 1:-1] & ~opaque
