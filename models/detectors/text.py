"""Text in photographs: PP-OCRv6 (small) finds lines; a line is kept when its recogniser can read it, or when
its strokes look like letters (`cleanplate.models.detectors.lettering.letters`): other scripts, decorative faces.

The networks are the Apache-2.0 ONNX files of PP-OCR (Du et al. 2020, arXiv:2009.09941). Unverified,
the detector also fires on textures and frames, over large areas; see `reading.is_text`, `is_lettering`.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cleanplate.models.detectors.lettering.letters import Lettering, StrokeFinder
from cleanplate.models.detectors.lettering.lines import (
    Line,
    Quad,
    beside,
    box_of,
    quads,
    without_parts,
    without_seen,
    without_twins,
)
from cleanplate.models.detectors.lettering.meaning import Meaning
from cleanplate.models.detectors.lettering.reading import (
    Reader,
    is_lettering,
    is_text,
    reads_in_map,
    reads_well,
)
from cleanplate.models.detectors.lettering.strokes import text_mask
from cleanplate.models.detectors.onnx_session import Floats, on_gpu, open_session
from cleanplate.models.detectors.overlay.evidence import window
from cleanplate.models.detectors.overlay.overlay_map import Looks, OverlayMap
from cleanplate.models.detectors.views import tiles
from cleanplate.models.segmenters.masks import polygon_mask
from cleanplate.models.types import Image, Mask, Region

MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)
BATCH_PIXELS = 4 * 960 * 960
SLANTS, SLANTED = (-45.0, 45.0), 480
"""Degrees by which the whole picture is turned for one more look each, and the long side that it then has: the
network knows lines that are level or upright, and lines across a picture are large."""
ENLARGE, OTHERS = 1.5, (1.2, 0.9)
"""How many times a small picture is enlarged; for a second opinion, one of the others."""
DRAWN = 640
"""Long side of the overlay's map when lines are looked for in it."""


@dataclass(frozen=True)
class Proposed:
    """Where lines may be in one picture: level or upright, slanted, and in an overlay's map of it."""

    level: list[Line]
    slanted: list[Line]
    drawn: list[Line]


class TextDetector:
    """Detector of lines of text, kind 'text', with the strokes of each line as `Region.mask`.

    det_path, rec_path: PP-OCRv6 small detector and recogniser (ONNX); no `rec_path`, no verification.
    strokes_path: weights of `cleanplate.models.detectors.lettering.letters`; with them lines that cannot be
    read may count, those that read
        badly must look like lettering, and masks are its strokes.
    min_score: drops regions below it. Region.score is the detector's mean probability in the line, or, with a
        recogniser, the mean of that and of the reading's score (of a line that cannot be read: of its strokes').
    long_side: pixels of the long side that the network sees. Photographs more than 1.5 times larger are seen
        whole and again in tiles. enlarge: how many times a small image may be enlarged.
    unlike: the long_side of another instance, with the default `enlarge`: no picture as a whole is seen at a scale
        within a seventh of that one's.
    level: whether the picture is seen as it is. slants: degrees by which it is turned for one more view each.
    offset: shift of the tiling, in tiles.
    probability, box_probability: thresholds of the map and of its mean in a line.

    As a second opinion on a cleaned image use another instance with `long_side=1280, offset=0.5, unlike=960`: the
    same text then falls on other pixels of the network, which catches lines lost at one size or cut by one
    grid. It is the same network all the same: text of a kind that it cannot see is missed by both, so this
    is worth less than a detector of another family.

    Holds no state between calls. Raises ValueError for settings, nothing for an image's content.
    """

    def __init__(
        self,
        det_path: Path | str,
        rec_path: Path | str | None = None,
        strokes_path: Path | str | None = None,
        min_score: float = 0.0,
        long_side: int = 960,
        offset: float = 0.0,
        enlarge: float = ENLARGE,
        unlike: int = 0,
        level: bool = True,
        slants: Sequence[float] = SLANTS,
        probability: float = 0.3,
        box_probability: float = 0.5,
        threads: int = 1,
        name: str = "ppocr-v6-small",
    ) -> None:
        if long_side < 32:
            raise ValueError(f"long_side must be at least 32 pixels, got {long_side}")
        self.name = name
        self.min_score = min_score
        self.long_side = long_side
        self.offset = offset
        self.enlarge, self.unlike = enlarge, unlike
        self.level, self.slants = level, tuple(slants)
        self.probability = probability
        self.box_probability = box_probability
        self._detector = open_session(det_path, threads)
        self._overlay: OverlayMap | None = None
        self._meaning: Meaning | None = None
        self._strokes = None if strokes_path is None else StrokeFinder(strokes_path)
        self._reader = None if rec_path is None else Reader(open_session(rec_path, threads))

    def seeing(self, name: str, level: bool, slanted: bool) -> TextDetector:
        """The same networks under another name, with other views of the picture."""
        found = copy.copy(self)
        found.name, found.level = name, level
        found.slants = self.slants if slanted else ()
        return found

    def with_overlay(self, overlay: OverlayMap) -> TextDetector:
        """The same detector, which also looks for lines where the U-Net of
        `cleanplate.models.detectors.unet` sees something laid over the
        picture. Its map is a drawing of letters without the ground they lie on, in which lines are found that the
        ground hides; whether they are text is told by the map and, as of all others, by the picture itself."""
        found = copy.copy(self)
        found._overlay = overlay
        return found

    def saying(self, meaning: Meaning | None) -> TextDetector:
        """The same detector, of whose lines only what `meaning` names is found; None = all of it."""
        found = copy.copy(self)
        found._meaning = meaning
        return found

    @property
    def reads(self) -> bool:
        """Whether there is a recogniser."""
        return self._reader is not None

    def __call__(self, images: list[Image]) -> list[list[Region]]:
        """One list of regions for each HWC uint8 RGB image; boxes xyxy pixels."""
        looks = self._overlay(images) if self._overlay is not None else None
        return self.regions(images, self.lines(images, looks, slanted=True))

    def with_doubts(self, images: list[Image]) -> list[list[Region]]:
        """As a call, and behind them, doubtful, the other lines that the network proposes."""
        looks = self._overlay(images) if self._overlay is not None else None
        return self.regions(images, self.lines(images, looks, slanted=True), doubts=True)

    def lines(
        self, images: list[Image], looks: Sequence[Looks] | None = None, slanted: bool = False
    ) -> list[list[Line]]:
        """Every line that the network proposes, read where there is a recogniser, not yet judged.

        slanted: also those of the picture turned by SLANTS. looks: an overlay's of each image, whose map is searched
        as well, level and slanted.
        """
        return self.read(images, self.propose(images, looks, slanted))

    def propose(
        self, images: list[Image], looks: Sequence[Looks] | None = None, slanted: bool = False
    ) -> list[Proposed]:
        """The first half of `lines`: where lines may be."""
        found: list[list[Line]] = [[] for _ in images]
        plans = [self._views(image.shape[0], image.shape[1]) if self.level else [] for image in images]
        for members, crops in tiles.batches(images, plans, BATCH_PIXELS, on_gpu(self._detector)):
            for (number, view), probability in zip(members, self._maps(crops), strict=True):
                for quad, score in quads(probability, self.probability, self.box_probability):
                    found[number].append(Line(view.to_image(quad), score))
        drawn = [self._drawn(seen) for seen in looks] if looks is not None else [[] for _ in images]
        return [
            Proposed(level, self._slanted(image) if slanted else [], sketched)
            for image, level, sketched in zip(images, found, drawn, strict=True)
        ]

    def read(self, images: list[Image], proposed: Sequence[Proposed]) -> list[list[Line]]:
        """The second half of `lines`: each line once, read where there is a recogniser."""
        lines = [[*without_twins([*one.level, *one.slanted]), *one.drawn] for one in proposed]
        return self._reader(images, lines) if self._reader is not None else lines

    def _slanted(self, image: Image) -> list[Line]:
        """What is proposed in the turned picture, in the frame of the one that was given."""
        if min(image.shape[:2]) < 64:
            return []
        found = []
        for degrees in self.slants:
            canvas, back = tiles.slanted(image, degrees, SLANTED)
            (probability,) = self._maps([canvas])
            for quad, score in quads(probability, self.probability, self.box_probability):
                placed = quad @ back[:, :2].T + back[:, 2]
                if _inside(placed, image):  # Not in what is mirrored beyond the edges.
                    found.append(Line(placed, score, slanted=True))
        return found

    def _drawn(self, looks: Looks) -> list[Line]:
        """What is proposed in an overlay's map, seen as a grey picture."""
        chance = np.maximum.reduce(looks.each)
        if not (chance > 127).any():
            return []
        drawing = np.repeat(chance[..., None], 3, 2)
        whole = tiles.whole(chance.shape[0], chance.shape[1], DRAWN)
        (probability,) = self._maps([whole.crop(drawing)])
        found = quads(probability, self.probability, self.box_probability)
        level = [Line(whole.to_image(quad), score) for quad, score in found]
        lines = without_twins(level + self._slanted(drawing))
        if self._reader is not None:
            (lines,) = self._reader([drawing], [lines])
        return [
            Line(one.quad, one.found, drawn=True, sketch=one.read if one.letters > 1 else 0.0)
            for one in lines
        ]

    def _views(self, height: int, width: int) -> list[tiles.View]:
        enlarge = self._enlarge(max(height, width))
        views = tiles.views(height, width, self.long_side, enlarge, offset=self.offset)
        # Letters a quarter of the picture high are too large for the network unless it is shrunk.
        small = self.long_side // 3
        if max(height, width) > 1.3 * small:
            views.append(tiles.whole(height, width, small))
        return views

    def _enlarge(self, longest: int) -> float:
        """How many times a picture may be enlarged; with `unlike` the first of OTHERS that is another scale."""
        if not self.unlike:
            return self.enlarge
        other = min(ENLARGE, self.unlike / longest)
        return next(scale for scale in OTHERS if max(scale / other, other / scale) > 1.15)

    def _maps(self, crops: list[Image]) -> Floats:
        """Crops of one size -> N x H x W probabilities."""
        # The network was trained on BGR with the statistics in this order.
        batch = (np.stack(crops)[..., ::-1] / np.float32(255) - MEAN) / STD
        feeds = {"x": np.ascontiguousarray(batch.transpose(0, 3, 1, 2), dtype=np.float32)}
        return self._detector.run(None, feeds)[0][:, 0]

    def regions(
        self, images: list[Image], lines: list[list[Line]], doubts: bool = False
    ) -> list[list[Region]]:
        """What of each image's lines is text, with its masks; with doubts, the others behind it, doubtful."""
        return [self._regions(image, some, doubts) for image, some in zip(images, lines, strict=True)]

    def _regions(self, image: Image, lines: list[Line], doubts: bool) -> list[Region]:
        height, width = image.shape[:2]
        seen: list[Lettering | None] = [None] * len(lines)
        if self._strokes is not None:
            seen = list(self._strokes(image, [line.quad for line in lines]))
        judged = self._judged(lines, seen, height * width)
        believed = [score is not None for score in judged]
        kept = [n for n in without_seen(lines, believed) if believed[n]]
        kept = [kept[k] for k in without_parts([lines[n] for n in kept])]
        masks = self._masks(image, [lines[n].quad for n in kept], [seen[n] for n in kept])
        regions = []
        for n, mask in zip(kept, masks, strict=True):
            box, score = box_of(lines[n].quad, height, width), judged[n] or 0.0
            if box is not None and score >= self.min_score:
                name = self.name + lines[n].view
                region = Region("text", name, min(1.0, score), _round(box, mask), mask)
                regions += [region] if self._meaning is None else parts_of(region, lines[n], self._meaning)
        left = sorted({*range(len(lines))} - {*kept}) if doubts else []
        return regions + [r for n in left if (r := doubt_of(lines[n], "text", self.name, image)) is not None]

    def _judged(
        self, lines: list[Line], seen: list[Lettering | None], image_area: float
    ) -> list[float | None]:
        """`_score` of each line, less being asked of those beside a line that counts by itself."""
        judged = [self._score(line, ink, image_area) for line, ink in zip(lines, seen, strict=True)]
        text = [line for line, score in zip(lines, judged, strict=True) if score is not None]
        for n, (line, ink) in enumerate(zip(lines, seen, strict=True)):
            if judged[n] is None:
                score = self._score(line, ink, image_area, beside_text=True)
                # Asked last: a page has hundreds of lines, and of most proposals the strokes alone say no.
                if score is not None and any(beside(line, one) for one in text):
                    judged[n] = score
        return judged

    def _masks(self, image: Image, quads: list[Quad], seen: list[Lettering | None]) -> list[Mask]:
        """Of each line: what the network of strokes sees from close by where it saw enough, else what stands out."""
        clear = {n: ink for n, ink in enumerate(seen) if ink is not None and ink.clear}
        closer: dict[int, Mask] = {}
        if self._strokes is not None:
            found = self._strokes.closer(image, [quads[n] for n in clear], [*clear.values()])
            closer = dict(zip(clear, found, strict=True))
        return [closer[n] if n in closer else text_mask(image, quad) for n, quad in enumerate(quads)]

    def _score(
        self, line: Line, ink: Lettering | None, image_area: float, beside_text: bool = False
    ) -> float | None:
        """How sure it is that a line is text; None when it is not believed."""
        if self._reader is None:
            return line.found
        if line.drawn and not reads_in_map(line, ink):
            return None
        if ink is None:
            return (line.found + line.read) / 2 if is_text(line, image_area) else None
        if reads_well(line, image_area):
            return (line.found + line.read) / 2
        return (line.found + ink.sure) / 2 if is_lettering(line, ink, image_area, beside_text) else None


def parts_of(region: Region, line: Line, meaning: Meaning) -> list[Region]:
    """The parts of a line's region that must go, named with why; the region itself where that is all of the line."""
    targets = meaning.targets(line.text)
    if not meaning.only and (targets == [(0, len(line.text), "")] or not line.text):
        return [region]
    found = []
    for start, stop, why in targets:
        quad = part_of(line, start, stop)
        assert region.mask is not None
        inside = polygon_mask(region.mask.shape, quad)
        mask = region.mask & inside if (region.mask & inside).any() else inside
        if mask.any():
            x0, y0, x1, y1 = window(mask)
            name = f"{region.detector.removesuffix(line.view)}{why and ':' + why}{line.view}"
            found.append(replace(region, detector=name, box=(x0, y0, x1, y1), mask=mask))
    return found


def part_of(line: Line, start: int, stop: int) -> Quad:
    """The quadrilateral of some characters of a line, up to the middle of the gaps beside them, a quarter of the line
    higher and lower."""
    places = line.places
    step = abs(places[-1] - places[0]) / max(1, len(places) - 1) * (1 if places[-1] >= places[0] else -1)
    first = (places[start - 1] + places[start]) / 2 if start else places[0] - 1.5 * step
    last = (places[stop - 1] + places[stop]) / 2 if stop < len(places) else places[-1] + 1.5 * step
    low, high = sorted((max(-0.1, min(1.1, first)), max(-0.1, min(1.1, last))))
    q = line.quad
    down = (q[3] - q[0] + q[2] - q[1]) / 8
    return np.array(
        [
            q[0] + low * (q[1] - q[0]) - down,
            q[0] + high * (q[1] - q[0]) - down,
            q[3] + high * (q[2] - q[3]) + down,
            q[3] + low * (q[2] - q[3]) + down,
        ]
    )


def doubt_of(line: Line, kind: str, name: str, image: Image) -> Region | None:
    """A line that may be lettering and is not believed, as a region; None where it lies outside the picture."""
    box = box_of(line.quad, *image.shape[:2])
    return None if box is None else Region(kind, name, min(1.0, line.found), box, doubtful=True)


def _round(box: tuple[float, float, float, float], mask: Mask) -> tuple[float, float, float, float]:
    """The box, larger where the mask stands out of it: xyxy pixels."""
    if not mask.any():
        return box
    x0, y0, x1, y1 = window(mask)
    return min(box[0], x0), min(box[1], y0), max(box[2], x1), max(box[3], y1)


def _inside(quad: Quad, image: Image) -> bool:
    """Whether a line's middle lies in the image."""
    x, y = quad.mean(0)
    height, width = image.shape[:2]
    return bool(0 <= x < width and 0 <= y < height)
