"""Text in photographs: PP-OCRv6 (small) finds lines; a line is kept when its recogniser can read it, or when
its strokes look like letters (`cleanplate.models.detectors.lettering.letters`): other scripts, decorative faces.

The networks are the Apache-2.0 ONNX files of PP-OCR (Du et al. 2020, arXiv:2009.09941). Unverified,
the detector also fires on textures and frames, over large areas; see `reading.is_text`, `is_lettering`.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cleanplate.models.detectors.lettering.letters import Lettering, StrokeFinder
from cleanplate.models.detectors.lettering.lines import (
    Line,
    Quad,
    beside,
    box_of,
    without_parts,
    without_seen,
    without_twins,
)
from cleanplate.models.detectors.lettering.meaning import Meaning
from cleanplate.models.detectors.lettering.proposals import LineProposer, LineViews, Proposed
from cleanplate.models.detectors.lettering.reading import (
    Reader,
    is_lettering,
    is_text,
    reads_in_map,
    reads_well,
)
from cleanplate.models.detectors.lettering.strokes import text_mask
from cleanplate.models.detectors.onnx_session import open_session
from cleanplate.models.detectors.overlay.completion import completed
from cleanplate.models.detectors.overlay.evidence import window
from cleanplate.models.detectors.overlay.overlay_map import Looks, OverlayMap
from cleanplate.models.segmenters.masks import polygon_mask
from cleanplate.models.types import Image, Mask, Region


class TextDetector:
    """Detector of lines of text, kind 'text', with the strokes of each line as `Region.mask`.

    det_path, rec_path: PP-OCRv6 small detector and recogniser (ONNX); no `rec_path`, no verification.
    strokes_path: weights of `cleanplate.models.detectors.lettering.letters`; with them lines that cannot be
    read may count, those that read
        badly must look like lettering, and masks are its strokes.
    min_score: drops regions below it. Region.score is the detector's mean probability in the line, or, with a
        recogniser, the mean of that and of the reading's score (of a line that cannot be read: of its strokes').
    views: how the picture is seen. device: where all three networks run.

    As a second opinion on a cleaned image use another instance with `LineViews(1280, 0.5, unlike=960)`: the
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
        views: LineViews | None = None,
        device: str = "cpu",
        name: str = "ppocr-v6-small",
    ) -> None:
        self.name = name
        self.min_score = min_score
        self.proposer = LineProposer(open_session(det_path, device=device), views or LineViews())
        self._overlay: OverlayMap | None = None
        self._meaning: Meaning | None = None
        self._strokes = None if strokes_path is None else StrokeFinder(strokes_path, device)
        self._reader = None if rec_path is None else Reader(open_session(rec_path, device=device))

    def seeing(self, name: str, **views: Any) -> TextDetector:
        """The same networks under another name, with other `views` (fields of LineViews)."""
        found = copy.copy(self)
        found.name = name
        found.proposer = LineProposer(self.proposer.session, replace(self.proposer.views, **views))
        return found

    def with_overlay(self, overlay: OverlayMap) -> TextDetector:
        """The same detector, which also looks for lines where the U-Net of
        `cleanplate.models.detectors.unet` sees something laid over the
        picture. Its map is a drawing of letters without the ground they lie on, in which lines are found that the
        ground hides; whether they are text is decided by the map and, as of all others, by the picture itself."""
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

    @property
    def selects(self) -> bool:
        """Whether only some of a line is wanted."""
        return self._meaning is not None

    def __call__(self, images: list[Image]) -> list[list[Region]]:
        """One list of regions for each HWC uint8 RGB image; boxes xyxy pixels."""
        return self._found(images, doubts=False)

    def with_doubts(self, images: list[Image]) -> list[list[Region]]:
        """As a call, and behind them, doubtful, the other lines that the network proposes."""
        return self._found(images, doubts=True)

    def _found(self, images: list[Image], doubts: bool) -> list[list[Region]]:
        looks = self._overlay(images) if self._overlay is not None else None
        found = self.regions(images, self.lines(images, looks, slanted=True), doubts)
        if looks is None or self.selects:
            return found
        return [completed(*one) for one in zip(images, looks, found, strict=True)]

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
        proposed = self.proposer(images, looks, slanted)
        if self._reader is None or looks is None:
            return proposed
        drawings = [np.repeat(np.maximum.reduce(seen.each)[..., None], 3, 2) for seen in looks]
        sketched = self._reader(drawings, [one.drawn for one in proposed])
        return [
            replace(one, drawn=[_sketch(line) for line in lines])
            for one, lines in zip(proposed, sketched, strict=True)
        ]

    def read(self, images: list[Image], proposed: Sequence[Proposed]) -> list[list[Line]]:
        """The second half of `lines`: each line once, read where there is a recogniser."""
        (lines,) = self.read_each(images, [proposed])
        return lines

    def read_each(
        self, images: list[Image], proposals: Sequence[Sequence[Proposed]]
    ) -> list[list[list[Line]]]:
        """As `read` of each of the proposals; what several have in common is read once."""
        wanted = [
            [[*without_twins([*one.level, *one.slanted]), *one.drawn] for one in some] for some in proposals
        ]
        if self._reader is None:
            return wanted
        fresh = [
            {_key(line): line for some in wanted for line in some[number]} for number in range(len(images))
        ]
        read = self._reader(images, [list(lines.values()) for lines in fresh])
        answers = [dict(zip(lines, some, strict=True)) for lines, some in zip(fresh, read, strict=True)]
        return [
            [[done[_key(line)] for line in lines] for lines, done in zip(some, answers, strict=True)]
            for some in wanted
        ]

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


def _key(line: Line) -> tuple[bytes, bool]:
    return line.quad.tobytes(), line.drawn


def _sketch(line: Line) -> Line:
    """A line as it was read in an overlay's map: that it reads there says little of what stands in the picture."""
    return Line(line.quad, line.found, drawn=True, sketch=line.read if line.letters > 1 else 0.0)


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
