"""What many images have in common at the same place: a mark laid over a whole collection.

Natural images have gradients of zero median: what the median over the images keeps is the mark (`common_steps`, after
Dekel et al., CVPR 2017). models/static_watermark/matte.py then tells its opacity and colours.

Stacks are NHWC uint8 RGB: N images of one size, or windows of one size cut from the same place of N images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
import numpy.typing as npt

from cleanplate.models.static_watermark.matte import MatteSettings, matte
from cleanplate.models.static_watermark.overlay import PRESENT, Anchor, Mark, placed, shift, strength
from cleanplate.models.static_watermark.traces import parts_of, relief, with_unsure
from cleanplate.models.types import Image, Mask

Stack = npt.NDArray[np.uint8]
"""NHWC uint8 RGB."""
Steps = npt.NDArray[np.float32]
_CONTRAST, _RATIOS_FROM = 4.0, 20
"""Standard errors from which a change of contrast counts, and images from which it is asked for. Of 400,000 edges of 60
photographs without a mark, one was beyond 4."""
_NEAR = 11
"""Pixels across of what is near an edge: JPEG's ringing, the end of a soft shadow."""
_MOST_PIXELS = 60_000_000
"""Of windows of a stack, held as floats a few times over: 3 GB at the peak."""


@dataclass(frozen=True)
class ConsensusSettings:
    """significance: an edge counts when its median is so many standard errors from zero. join: parts of a mark
    lie at most so many pixels apart. matte: how its opacity is found."""

    significance: float = 4.5
    join: int = 24
    matte: MatteSettings = field(default_factory=MatteSettings)


def find_marks(
    stack: Stack, coarse: bool = False, settings: ConsensusSettings = ConsensusSettings()
) -> list[Mark]:
    """The marks that the images of a stack share; none where they share nothing. At least 8 images.

    coarse: most images come from JPEG files whose colour is stored at half the size. Small stacks find what is
    opaque; from about 30 images on, opacities of .15 are found (docs/notebook.md).
    """
    if len(stack) < 8:
        return []
    steps = common_steps(stack, settings.significance)
    marks = [_estimated(stack, steps, box, coarse, settings.matte) for box in _boxes(steps > 0, settings)]
    return [mark for mark in marks if mark is not None]


ANCHORS: tuple[Anchor, ...] = tuple((x, y) for y in (0, 0.5, 1) for x in (0, 0.5, 1))
"""Corners, middles of the sides, the centre."""
_AGREED = 0.75


def common_marks(
    pictures: Sequence[Image],
    coarse: bool = False,
    share: float = 0.25,
    settings: ConsensusSettings = ConsensusSettings(),
) -> list[Mark]:
    """The marks of pictures (HWC uint8 RGB) of one or of several sizes, each found in `share` of them at least.

    Of several sizes, marks that grow with the picture are looked for, and marks that keep their size in pixels,
    from each of ANCHORS. What is found in two ways is taken the way that more pictures agree with; the way with the
    strongest edges is tried first, and the others are not once three pictures in four agree.
    """
    sizes = sorted({(p.shape[1], p.shape[0]) for p in pictures})
    tries: list[tuple[float, Mark, Steps]] = []
    for anchor in (None, *ANCHORS) if len(sizes) > 1 else (None,):
        stack = _stack(pictures, anchor)
        if len(stack) < 8:
            continue
        steps = common_steps(stack, settings.significance)
        for box in _boxes(steps > 0, settings):
            strong = float(steps[box[1] : box[3], box[0] : box[2]].sum())
            tries.append((strong, _blank(box, (stack.shape[2], stack.shape[1]), anchor), steps))
    found: list[tuple[float, Mark]] = []
    for _, place, steps in sorted(tries, key=lambda one: -one[0]):
        if any(agreed > _AGREED and _same_place(place, mark, sizes) for agreed, mark in found):
            continue
        stack = _stack(pictures, place.anchor)
        mark = _estimated(stack, steps, place.box, coarse, settings.matte)
        if mark is not None and mark.support >= max(8, share * len(stack)):
            found.append((mark.support / len(stack), replace(mark, anchor=place.anchor)))
    chosen: list[Mark] = []
    for _, mark in sorted(found, key=lambda one: -one[0]):
        if not any(_same_place(mark, other, sizes) for other in chosen):
            chosen.append(mark)
    return chosen


def _blank(box: tuple[int, int, int, int], frame: tuple[int, int], anchor: Anchor | None) -> Mark:
    """The place of a mark that is not known yet."""
    nothing = np.zeros((box[3] - box[1], box[2] - box[0]), np.float32)
    return Mark(box, nothing, nothing, frame, anchor=anchor)


def _stack(pictures: Sequence[Image], anchor: Anchor | None) -> Stack:
    """The pictures brought to one size; with an anchor, the part round it that (nearly) all have, unscaled."""
    sizes = np.array([(p.shape[1], p.shape[0]) for p in pictures])
    if anchor is None:
        frame = tuple(max(sizes.tolist()))
        fitting = [
            p if p.shape[1::-1] == frame else cv2.resize(p, frame, interpolation=cv2.INTER_AREA)
            for p in pictures
        ]
        return np.stack(fitting)
    least = np.quantile(sizes, 0.1, axis=0, method="lower")
    # A mark at a side lies in that side's part of the picture.
    width, height = (int(n if a == 0.5 else 0.8 * n) for n, a in zip(least, anchor, strict=True))
    large = [p for p in pictures if p.shape[1] >= least[0] and p.shape[0] >= least[1]]
    corners = [shift(anchor, (width, height), (p.shape[1], p.shape[0])) for p in large]
    return np.stack([p[y : y + height, x : x + width] for p, (x, y) in zip(large, corners, strict=True)])


def _same_place(one: Mark, other: Mark, sizes: Sequence[tuple[int, int]]) -> bool:
    """Do two marks overlap by a third of the smaller one in a picture of some size?"""
    for size in sizes:
        a, b = placed(one, size), placed(other, size)
        if a and b:
            wide, high = (min(a.box[n + 2], b.box[n + 2]) - max(a.box[n], b.box[n]) for n in (0, 1))
            areas = [(m.box[2] - m.box[0]) * (m.box[3] - m.box[1]) for m in (a, b)]
            if min(wide, high) > 0 and wide * high > min(areas) / 3:
                return True
    return False


def _estimated(
    stack: Stack, steps: Steps, box: tuple[int, int, int, int], coarse: bool, settings: MatteSettings
) -> Mark | None:
    x0, y0, x1, y1 = box
    near = cv2.dilate((steps[y0:y1, x0:x1] > 0).astype(np.uint8), np.ones((_NEAR, _NEAR), np.uint8)) > 0
    # Floats of a large mark over many images: every second or third image will do.
    every = 1 + near.size * len(stack) // _MOST_PIXELS
    found = matte(stack[::every, y0:y1, x0:x1], near, coarse, settings)
    if found is None:
        return None
    mark = Mark(box, *found, frame=(stack.shape[2], stack.shape[1]))
    own = steps[y0:y1, x0:x1]
    mark = replace(mark, relief=relief(stack[:, y0:y1, x0:x1], own), parts=parts_of(own))
    carrying = [image for image in stack if strength(image, mark) > PRESENT]
    mark = replace(mark, support=len(carrying))
    return with_unsure(mark, carrying, coarse) if carrying else mark


def common_steps(stack: Stack, significance: float) -> Steps:
    """HW float32: the largest median over the images of a pixel's steps to its neighbours, in levels; 0 where none is
    away from zero by its own standard error. At least 1 where a pixel's contrast over the images is surely another than
    its neighbours': so an edge whose colour is that of most pictures is seen, too.

    Two neighbours both count where the gradient between them does. Works in strips: a stack of differences
    would be twice the stack.
    """
    count, height, width = stack.shape[:3]
    out = np.zeros((height, width), np.float32)
    strip = max(1, (64 << 20) // (count * width * 3 * 2))
    for y in range(0, height, strip):
        rows = stack[:, y : y + strip + 1].astype(np.int16)
        own = min(strip, height - y)
        across = _steady(np.diff(rows[:, :own], axis=2), significance)
        for part in (out[y : y + own, :-1], out[y : y + own, 1:]):
            np.maximum(part, across, out=part)
        if rows.shape[1] > 1:
            down = _steady(np.diff(rows, axis=1), significance)
            for part in (out[y : y + len(down)], out[y + 1 : y + 1 + len(down)]):
                np.maximum(part, down, out=part)
        if count >= _RATIOS_FROM:
            fewer = _contrasts(stack[:, max(0, y - 8) : y + own + 8])[y - max(0, y - 8) :][:own]
            np.maximum(out[y : y + own], fewer, out=out[y : y + own])
    return out


def _contrasts(stack: Stack) -> Steps:
    """HW: 1 where the spread over the images changes from one pixel to the next, or, of averages of 5 x 5, to the
    fourth next: a shadow's edge is soft."""
    bright = np.stack([cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in stack]).astype(np.float32)
    out = np.zeros(bright.shape[1:], np.float32)
    for reach, seen in ((1, bright), (4, np.stack([cv2.blur(image, (5, 5)) for image in bright]))):
        off = seen - seen.mean(axis=0)
        spread = (off * off).sum(axis=0) + 0.1 * len(stack)
        for axis in (0, 1):
            if out.shape[axis] <= reach:
                continue
            p, q = (
                tuple(one if n == axis else slice(None) for n in (0, 1))
                for one in (slice(None, -reach), slice(reach, None))
            )
            both = (off[:, *p] * off[:, *q]).sum(axis=0) ** 2 / (spread[p] * spread[q])
            error = np.sqrt(np.maximum(1 - both, 0) / (len(stack) - 2)) + 1e-3
            sure = np.abs(np.log(spread[q] / spread[p])) / 2 > _CONTRAST * error
            for n in range(reach + 1):
                at = tuple(slice(n, n + sure.shape[axis]) if k == axis else slice(None) for k in (0, 1))
                np.maximum(out[at], sure, out=out[at])
    return out


def _steady(differences: npt.NDArray[np.int16], significance: float) -> Steps:
    """N x h x w x 3 differences -> h x w: the largest channel's median, 0 unless it is beyond its noise and at least
    one level."""
    median = np.median(differences, axis=0)
    spread = 1.4826 * np.median(np.abs(differences - median), axis=0)
    # The median of n normal numbers has 1.2533 times the standard error of their mean.
    error = 1.2533 * np.maximum(spread, 1.0) / np.sqrt(len(differences))
    size = np.abs(median)
    return np.asarray(np.where((size >= 1) & (size > significance * error), size, 0).max(axis=-1), np.float32)


def _boxes(edges: Mask, settings: ConsensusSettings) -> list[tuple[int, int, int, int]]:
    """xyxy boxes, with a rim, of the groups of edges that are large enough to be a mark."""
    reach = 2 * (settings.join // 2) + 1
    joined = cv2.dilate(edges.astype(np.uint8), np.ones((reach, reach), np.uint8))
    count, labels = cv2.connectedComponents(joined)
    height, width = edges.shape
    boxes = []
    for label in range(1, count):
        ys, xs = np.nonzero((labels == label) & edges)
        if len(ys) < settings.matte.min_edges:
            continue
        rim = 16
        x0, y0 = max(0, int(xs.min()) - rim), max(0, int(ys.min()) - rim)
        boxes.append((x0, y0, min(width, int(xs.max()) + rim + 1), min(height, int(ys.max()) + rim + 1)))
    return boxes
