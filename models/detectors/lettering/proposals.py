"""Where lines of text may be in a picture: PP-OCR's detector on views of it, the cheap ones first.

The picture is seen level, whole and in tiles. Turned by 45 degrees either way it is seen where a level view or an
overlay's map leaves a question: something like lettering that is no clear level line. The overlay's map, a drawing of
letters without the ground they lie on, is searched where there is something in it, and turned where no level line
explains that. `LineViews.thorough` asks every view about everything.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from cleanplate.models.detectors.lettering.lines import Line, Quad, angle_of, quads, without_twins
from cleanplate.models.detectors.onnx_session import Floats, Session, levels, on_gpu, planes
from cleanplate.models.detectors.overlay.overlay_map import Looks
from cleanplate.models.detectors.views import tiles
from cleanplate.models.detectors.views.windows import Window, holding
from cleanplate.models.types import Image, Mask

LEVELS = levels([255 * m for m in (0.485, 0.456, 0.406)], [255 * s for s in (0.229, 0.224, 0.225)])
BATCH_PIXELS = 4 * 960 * 960
SLANTS, SLANTED = (-45.0, 45.0), 480
"""Degrees by which the whole picture is turned for one more view each, and the long side that it then has: the
network knows lines that are level or upright, and lines across a picture are large."""
ENLARGE, OTHERS = 1.5, (1.2, 0.9)
"""How many times a small picture is enlarged; for a second opinion, one of the others."""
DRAWN = 640
"""Long side of the overlay's map when lines are looked for in it."""
FAINT = 0.3
"""The network's probability from which a pixel leaves a question that turned views are asked."""
LEAST = 2e-4
"""Share of the picture that a piece which leaves a question has (`overlay.candidates.LEAST`)."""
CLEAR, LONG, STRAIGHT = 0.6, 2.0, 15.0
"""Of a line that leaves no question: its least probability, how many times it is as long as high, and its most degrees
from level or upright."""


@dataclass(frozen=True)
class LineViews:
    """How the picture is seen. long_side: pixels of the long side that the network sees. Photographs more than 1.5
    times larger are seen whole and again in tiles. enlarge: how many times a small picture may be enlarged. offset:
    shift of the tiling, in tiles. unlike: the long_side of another instance, with the default `enlarge`: no picture as
    a whole is seen at a scale within a seventh of that one's. level: whether the picture is seen as it is. slants:
    degrees by which it is turned for one more view each. thorough: every view sees everything.
    probability, box_probability: thresholds of the network's map and of its mean in a line."""

    long_side: int = 960
    offset: float = 0.0
    enlarge: float = ENLARGE
    unlike: int = 0
    level: bool = True
    slants: tuple[float, ...] = SLANTS
    thorough: bool = False
    probability: float = 0.3
    box_probability: float = 0.5

    def __post_init__(self) -> None:
        if self.long_side < 32:
            raise ValueError(f"long_side must be at least 32 pixels, got {self.long_side}")

    def of(self, height: int, width: int) -> list[tiles.View]:
        """The level views of a picture."""
        enlarge = self.enlargement(max(height, width))
        views = tiles.views(height, width, self.long_side, enlarge, offset=self.offset)
        # Letters a quarter of the picture high are too large for the network unless it is shrunk.
        small = self.long_side // 3
        if max(height, width) > 1.3 * small:
            views.append(tiles.whole(height, width, small))
        return views

    def enlargement(self, longest: int) -> float:
        """How many times a picture may be enlarged; with `unlike` the first of OTHERS that is another scale."""
        if not self.unlike:
            return self.enlarge
        other = min(ENLARGE, self.unlike / longest)
        return next(scale for scale in OTHERS if max(scale / other, other / scale) > 1.15)


@dataclass(frozen=True)
class Proposed:
    """Where lines may be in one picture: level or upright, slanted, and in an overlay's map of it."""

    level: list[Line]
    slanted: list[Line]
    drawn: list[Line]


Seen = list[tuple[list[Line], Mask]]
"""Of each image the lines in level views, and where the network saw anything like lettering (at SLANTED)."""


class LineProposer:
    """Images, and an overlay's looks at them -> Proposed each.

    Remembers what level views of the last images showed while those exist and cannot be written to, for detectors of
    several kinds that are shown the same images one after the other.
    """

    def __init__(self, session: Session, views: LineViews) -> None:
        self.session, self.views = session, views
        self._last: tuple[list[weakref.ref[Image]], Seen] = [], []

    def __call__(
        self, images: Sequence[Image], looks: Sequence[Looks] | None, slanted: bool
    ) -> list[Proposed]:
        """images: HWC uint8 RGB. looks: of each image, whose map is searched as well, level and slanted. slanted: also
        the lines of the turned picture."""
        seen = self._remembered(images)
        maps = [np.maximum.reduce(one.each) for one in looks] if looks is not None else [None for _ in images]
        return [
            Proposed(
                level,
                self._slanted(image, self._asked(image, level, hot, drawing)) if slanted else [],
                [] if drawing is None else self.drawn(drawing),
            )
            for image, (level, hot), drawing in zip(images, seen, maps, strict=True)
        ]

    def _remembered(self, images: Sequence[Image]) -> Seen:
        known, seen = self._last
        if len(known) == len(images) and all(a() is b for a, b in zip(known, images, strict=True)):
            return seen
        seen = self._level(images)
        fixed = all(not image.flags.writeable for image in images)
        self._last = ([weakref.ref(image) for image in images], seen) if fixed else ([], [])
        return seen

    def _level(self, images: Sequence[Image]) -> Seen:
        found: list[list[Line]] = [[] for _ in images]
        hot = [np.zeros(_shrunk(image.shape), np.bool_) for image in images]
        plans = [self.views.of(*image.shape[:2]) if self.views.level else [] for image in images]
        for members, crops in tiles.batches(images, plans, BATCH_PIXELS, on_gpu(self.session)):
            for (number, view), probability in zip(members, self.maps(crops), strict=True):
                found[number] += [Line(view.to_image(q), p) for q, p in self._quads(probability)]
                _mark(hot[number], images[number].shape, view.box, probability > FAINT)
        return list(zip(found, hot, strict=True))

    def _asked(
        self, image: Image, level: Sequence[Line], hot: Mask, drawing: npt.NDArray[np.uint8] | None
    ) -> list[Window]:
        """Where turned views are asked: windows about what no clear level line explains; everywhere when there was
        no level view to tell."""
        if self.views.thorough or not self.views.level:
            return [(0, 0, image.shape[1], image.shape[0])]
        asked = hot.copy()
        if drawing is not None:
            _mark(asked, image.shape, (0, 0, image.shape[1], image.shape[0]), drawing > 127)
        return _unexplained(asked, level, image.shape)

    def _slanted(self, image: Image, windows: Sequence[Window]) -> list[Line]:
        """What is proposed in windows of the turned picture, in the frame of the one that was given."""
        if min(image.shape[:2]) < 64:
            return []
        found = []
        for degrees in self.views.slants:
            for window in windows:
                canvas, back = tiles.slanted(image, degrees, SLANTED, window=window)
                (probability,) = self.maps([canvas])
                for quad, score in self._quads(probability):
                    placed = quad @ back[:, :2].T + back[:, 2]
                    if _inside(placed, window):  # Not in what is round it, or mirrored beyond the edges.
                        found.append(Line(placed, score, slanted=True))
        return found

    def drawn(self, chance: npt.NDArray[np.uint8]) -> list[Line]:
        """What is proposed in an overlay's map (HW uint8), seen as a grey picture."""
        seen = chance > 127
        thorough = self.views.thorough
        if not seen.any():
            return []
        drawing = np.repeat(chance[..., None], 3, 2)
        whole = tiles.whole(chance.shape[0], chance.shape[1], DRAWN)
        canvas = whole.crop(drawing)
        windows = [(0, 0, whole.size[1], whole.size[0])]
        if not thorough:
            windows = holding(canvas[..., 0] > 127, LEAST, step=32)
        level = []
        for x0, y0, x1, y1 in windows:
            (probability,) = self.maps([np.ascontiguousarray(canvas[y0:y1, x0:x1])])
            level += [
                Line(whole.to_image(quad + np.array([x0, y0])), score)
                for quad, score in self._quads(probability)
            ]
        asked = np.zeros(_shrunk(chance.shape), np.bool_)
        image_box = (0, 0, chance.shape[1], chance.shape[0])
        _mark(asked, chance.shape, image_box, seen)
        windows = [image_box] if thorough else _unexplained(asked, level, chance.shape)
        lines = without_twins(level + self._slanted(drawing, windows))
        return [replace(line, slanted=False, drawn=True) for line in lines]

    def maps(self, crops: Sequence[Image]) -> Floats:
        """Crops of one size -> N x H x W probabilities."""
        # The network was trained on BGR with the statistics in this order.
        return self.session.run(None, {"x": planes(crops, LEVELS, bgr=True)})[0][:, 0]

    def _quads(self, probability: Floats) -> list[tuple[Quad, float]]:
        return quads(probability, self.views.probability, self.views.box_probability)


def _shrunk(shape: tuple[int, ...]) -> tuple[int, int]:
    """(height, width) at which questions are kept: what a turned view shows of a picture of this shape."""
    factor = min(1.0, SLANTED / max(shape[:2]))
    return max(1, round(shape[0] * factor)), max(1, round(shape[1] * factor))


def _mark(small: Mask, shape: tuple[int, ...], box: Window, hot: npt.NDArray[np.bool_]) -> None:
    """Set in `small`, which stands for a picture of this shape, what is hot in the part of it in `box`."""
    fy, fx = small.shape[0] / shape[0], small.shape[1] / shape[1]
    x0, y0 = int(box[0] * fx), int(box[1] * fy)
    x1, y1 = max(x0 + 1, round(box[2] * fx)), max(y0 + 1, round(box[3] * fy))
    part = cv2.resize(hot.astype(np.uint8) * 255, (x1 - x0, y1 - y0), interpolation=cv2.INTER_AREA)
    small[y0:y1, x0:x1] |= part[: small.shape[0] - y0, : small.shape[1] - x0] > 32


def _unexplained(asked: Mask, lines: Sequence[Line], shape: tuple[int, ...]) -> list[Window]:
    """The window of a picture of this shape that holds what was asked, lies in no clear line and runs aslant."""
    factor = np.array([asked.shape[1] / shape[1], asked.shape[0] / shape[0]])
    left = asked.astype(np.uint8)
    cv2.fillPoly(left, [np.round(line.quad * factor).astype(np.int32) for line in lines if _clear(line)], 0)
    return [
        (
            int(x0 / factor[0]),
            int(y0 / factor[1]),
            min(shape[1], round(x1 / factor[0])),
            min(shape[0], round(y1 / factor[1])),
        )
        for x0, y0, x1, y1 in holding(_aslant(left > 0), 0)
    ]


def _aslant(mask: Mask) -> Mask:
    """Of the pieces of a mask those that are long and neither level nor upright: letters of a slanted line together."""
    wide = cv2.dilate(mask.astype(np.uint8), np.ones((17, 17), np.uint8))
    count, labels = cv2.connectedComponents(wide, connectivity=8)
    sizes = np.bincount(labels[mask], minlength=count)
    out = np.zeros_like(mask)
    for number in np.flatnonzero(sizes >= max(LEAST * mask.size, 5))[1 if sizes[0] else 0 :]:
        piece = mask & (labels == number)
        _, (across, along), angle = cv2.minAreaRect(np.argwhere(piece)[:, ::-1].astype(np.int32))
        turn = angle % 90
        if max(across, along) >= LONG * min(across, along) and min(turn, 90 - turn) >= STRAIGHT:
            out |= piece
    return out


def _clear(line: Line) -> bool:
    """Whether a level line leaves no question: sure, long and straight."""
    turn = abs(angle_of(line)) % 90
    straight = min(turn, 90 - turn) < STRAIGHT
    return line.found >= CLEAR and line.width >= LONG * line.height and straight


def _inside(quad: Quad, window: Window) -> bool:
    """Whether a line's middle lies in a window of the picture."""
    x, y = quad.mean(0)
    return bool(window[0] <= x < window[2] and window[1] <= y < window[3])
