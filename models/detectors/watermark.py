"""Watermarks: what was laid over a picture after it was taken, told apart from lettering that was photographed.

Three witnesses. The U-Net of `models.marks` gives each pixel the chance of an overlay; the text detector gives
lines that can be read; the pixels of a line tell whether the picture shows through it. The rule (`judge`):

1. A line is overlay when the U-Net calls at least seven tenths of its strokes overlay (OVERLAY). Flat colour, constant
   opacity, sharp edges and no perspective are what the network was taught to see; lettering in the light,
   grain and perspective of its scene was shown to it unmarked.
2. A line is overlay when the picture shows through it (`shows_through`) and the U-Net calls at least a tenth of
   it overlay: paint on a sign does not follow what is behind it.
3. A line is overlay, whatever the U-Net says, when the same words stand three times or more in the picture at
   one height and one angle (`repeated`): that is a tiling.
4. Any other line belongs to the scene, and what the U-Net saw inside it is dropped: shop signs stay.
5. What the U-Net is sure of outside all lines is a mark without words: a logo, a grid, text that is too faint or
   too large to be read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import cv2
import numpy as np

from models.detectors.lines import Line, Quad
from models.detectors.overlay import LOW, OVERLAY, OverlayMap, hysteresis, overlay_share
from models.detectors.reading import is_text
from models.detectors.text import TextDetector
from models.marks import Probability
from models.masks import grow, polygon_mask
from models.regions import Image, Mask, Region
from models.strokes import line_strokes

SOME = 0.1
"""Share of a line's strokes that the U-Net must call overlay when the picture shows through it."""
THROUGH = 0.4
"""Correlation of strokes and ground from which the picture shows through."""


class WatermarkDetector:
    """Detector of overlaid marks, kind 'watermark', with the mark's pixels as `Region.mask`.

    overlay: the U-Net's view. text: the detector of readable lines; None leaves rules 1 to 4 out.
    min_score: lowest score of a region with a line, and Region.score: the mean certainty of its pixels.
    wordless_score, wordless_share: lowest score, and size as a share of the picture's pixels, of a region without a
    line, where the U-Net stands alone (docs/marks.md tells how both were set).

    As a second opinion use another instance with an OverlayMap of another Sight and a TextDetector of another
    scale: the same networks, shown other pixels. Holds no state between calls.
    """

    def __init__(
        self,
        overlay: OverlayMap,
        text: TextDetector | None = None,
        min_score: float = 0.5,
        wordless_score: float = 0.93,
        wordless_share: float = 1e-3,
        name: str = "marks",
    ) -> None:
        self.name = name
        self.overlay, self.text = overlay, text
        self.min_score = min_score
        self.wordless_score, self.wordless_share = wordless_score, wordless_share

    def __call__(self, images: list[Image]) -> list[list[Region]]:
        """One list of regions for each HWC uint8 RGB image; boxes xyxy pixels."""
        maps = self.overlay(images)
        lines = self.text.lines(images) if self.text else [[] for _ in images]
        return [self._regions(*one) for one in zip(images, maps, lines, strict=True)]

    def _regions(self, image: Image, chance: Probability, lines: list[Line]) -> list[Region]:
        area = image.shape[0] * image.shape[1]
        belief, lined = judge(image, chance, [line for line in lines if is_text(line, area)])
        regions = []
        for part in parts(belief > 0, reach=max(4, round(0.02 * min(image.shape[:2])))):
            score = float(belief[part].mean())
            large = np.count_nonzero(part) >= self.wordless_share * area
            if score >= (self.min_score if (part & lined).any() else self.wordless_score if large else 2):
                regions.append(Region("watermark", self.name, min(1.0, score), _box(part), part))
        return regions


def judge(image: Image, chance: Probability, lines: Sequence[Line]) -> tuple[Probability, Mask]:
    """(HW in [0, 1]: how sure it is that a pixel is overlay, by the rule at the top of this file, 0 where it is not;
    HW bool: where overlaid lines are).

    lines: those that can be read. The strokes of an overlaid line are as sure as the line is.
    """
    sure = hysteresis(chance)
    belief = np.where(sure, chance, np.float32(0))
    lined = np.zeros(chance.shape, np.bool_)
    tiled = repeated(lines)
    for number, line in enumerate(lines):
        inside = polygon_mask(chance.shape, line.quad)
        strokes = line_strokes(image, line.quad)
        letters = inside if strokes is None else strokes
        share = overlay_share(chance, letters)
        through = strokes is not None and share >= SOME and shows_through(image, line.quad, strokes)
        if number in tiled or share >= OVERLAY or through:
            whole = letters | (inside & (chance > LOW / 2))
            belief[whole] = np.maximum(belief[whole], line.found)
            lined |= inside
        else:
            belief[_mostly_inside(belief > 0, inside)] = 0
    return belief, lined


def shows_through(image: Image, quad: Quad, strokes: Mask) -> bool:
    """Whether a line's strokes follow the ground around them: their colours rise and fall with it (THROUGH, slope at
    least .15), as alpha blending makes them (Porter and Duff 1984) and paint does not. Ground without variation tells
    nothing: False."""
    height, width = image.shape[:2]
    x0, y0 = np.clip(np.floor(quad.min(0)).astype(int) - 8, 0, [width - 1, height - 1])
    x1, y1 = np.clip(np.ceil(quad.max(0)).astype(int) + 8, [x0 + 1, y0 + 1], [width, height])
    pixels, ink = image[y0:y1, x0:x1].astype(np.float32), strokes[y0:y1, x0:x1]
    inner = cv2.erode(ink.astype(np.uint8), np.ones((2, 2), np.uint8)) > 0  # without the letters' soft edges
    ground = ~grow(ink, 2)
    window = max(5, round(0.5 * float(np.linalg.norm(quad[3] - quad[0])))) | 1
    weight = cv2.blur(ground.astype(np.float32), (window, window))
    known = (inner if np.count_nonzero(inner) >= 20 else ink) & (weight > 0.05)
    if np.count_nonzero(known) < 20:
        return False
    around = cv2.blur(pixels * ground[..., None], (window, window)) / np.maximum(weight, 1e-3)[..., None]
    ours, theirs = pixels[known] - pixels[known].mean(0), around[known] - around[known].mean(0)
    together, own, other = float((ours * theirs).sum()), float((ours**2).sum()), float((theirs**2).sum())
    return together / np.sqrt(own * other + 1) >= THROUGH and 0.15 <= together / (other + 1) <= 3


def repeated(lines: Sequence[Line], times: int = 3) -> set[int]:
    """Numbers of the lines whose words stand `times` or more in the picture, as high within a fifth and at the same
    angle within 5 degrees: a tiling. Two letters or digits at least."""
    by_words: dict[str, list[int]] = defaultdict(list)
    for number, line in enumerate(lines):
        words = "".join(char for char in line.text.lower() if char.isalnum())
        if len(words) >= 2:
            by_words[words].append(number)
    found: set[int] = set()
    for numbers in by_words.values():
        for one in numbers:
            alike = [n for n in numbers if _alike(lines[one], lines[n])]
            if len(alike) >= times:
                found.update(alike)
    return found


def _alike(one: Line, other: Line) -> bool:
    turn = abs(_angle(one) - _angle(other)) % 180
    return (
        abs(one.height - other.height) <= 0.2 * max(one.height, other.height) and min(turn, 180 - turn) <= 5
    )


def _angle(line: Line) -> float:
    along = line.quad[1] - line.quad[0]
    return float(np.degrees(np.arctan2(along[1], along[0])))


def _mostly_inside(mask: Mask, area: Mask) -> Mask:
    """The components of the mask that lie in the area by seven tenths or more."""
    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    whole = np.bincount(labels.ravel(), minlength=count)
    inside = np.bincount(labels[area], minlength=count)
    taken = inside >= 0.7 * np.maximum(whole, 1)
    taken[0] = False
    return np.asarray(taken[labels], np.bool_)


def parts(mask: Mask, reach: int) -> list[Mask]:
    """The mask in pieces that lie more than twice `reach` pixels apart, each HW bool: letters of a line together."""
    count, labels = cv2.connectedComponents(grow(mask, reach).astype(np.uint8), connectivity=8)
    return [mask & (labels == number) for number in range(1, count)]


def _box(mask: Mask) -> tuple[float, float, float, float]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)
