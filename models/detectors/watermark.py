"""Watermarks: what was laid over a picture after it was taken, distinguished from lettering that was photographed.

Candidates are the lines that the text detector proposes, in the picture and in the U-Net's map of it, and the pieces
of what the U-Net calls overlay (`cleanplate.models.detectors.overlay.candidates`). The rule:

1. Each candidate gets a score, the chance that it is overlay, from what the U-Net says about its pixels at several
   sizes and from the pixels: an overlay has one colour and one opacity, follows the ground behind it, has sharp
   edges and less texture than what is round it (`cleanplate.models.detectors.overlay.evidence`). The weights
   are fitted to rendered marks, scene-like lettering and photographs (`cleanplate.models.detectors.overlay.rule`).
   Pieces that are more than a tenth of the picture together must be surer.
2. A picture is marked when one candidate reaches `Rule.first`; then those that reach `Rule.more` count as well:
   where one mark is, there are more.
3. The same words three times or more, equally high and at one angle, are a tiling, whatever the score (`repeated`).
4. Any other line that can be read belongs to the scene, and what the U-Net saw inside it is dropped: shop signs stay.
   Not so a line that was found in the U-Net's map only.
5. Where a mark was found less is asked of the rest of it: copies of a tiling, an emblem beside a name
   (`cleanplate.models.detectors.overlay.completion`).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from cleanplate.models.detectors.lettering.lines import Line, turn_between
from cleanplate.models.detectors.overlay.candidates import Candidate, candidates, parts
from cleanplate.models.detectors.overlay.completion import completed
from cleanplate.models.detectors.overlay.evidence import cut
from cleanplate.models.detectors.overlay.overlay_map import Looks, OverlayMap
from cleanplate.models.detectors.overlay.rule import Rule
from cleanplate.models.detectors.text import TextDetector
from cleanplate.models.detectors.unet import Probability
from cleanplate.models.types import Image, Region

DOUBT = 0.5
"""From this share of `Rule.more` on a candidate may be a mark: nothing is copied from there."""
UNREAD = 0.44
"""So many logits below `Rule.first`, a piece of the U-Net's map and a line that cannot be read are no mark, though the
picture is marked: most of them are the scene's, and what is of a mark stands beside it. `Rule.more` is 1.5 below."""
LARGE, SURER = 0.1, 2.0
"""Likely pieces of the U-Net's map that are together more than this share of the picture count as so many logits less
sure: bands and tilings reach it, but a few photographs that would lose a wall of petals are most clean pixels lost."""


class WatermarkDetector:
    """Detector of overlaid marks, kind 'watermark', with the mark's pixels as `Region.mask`.

    overlay: the U-Net's view. text: the detector of lines; None leaves rules 3 and 4 out.
    min_score: lowest score of a region; Region.score is the mean, over its pixels, of its candidates' scores.

    As a second opinion use another instance with an OverlayMap of another Sight and a TextDetector of another
    scale: the same networks, shown other pixels. Holds no state between calls.
    """

    def __init__(
        self,
        overlay: OverlayMap,
        text: TextDetector | None = None,
        min_score: float = 0.0,
        name: str = "marks",
    ) -> None:
        self.name = name
        self.overlay, self.text, self.min_score = overlay, text, min_score

    def __call__(self, images: list[Image]) -> list[list[Region]]:
        """One list of regions for each HWC uint8 RGB image; boxes xyxy pixels."""
        return self._found(images, doubts=False)

    def with_doubts(self, images: list[Image]) -> list[list[Region]]:
        """As a call, and doubtful, candidates that score at least DOUBT of what a marked picture's others must."""
        return self._found(images, doubts=True)

    def _found(self, images: list[Image], doubts: bool) -> list[list[Region]]:
        looks = self.overlay(images)
        lines = self.text.lines(images, looks) if self.text else [[] for _ in images]
        found = self.regions(images, looks, lines, doubts)
        return [completed(*one) for one in zip(images, looks, found, strict=True)]

    def regions(
        self,
        images: list[Image],
        looks: Sequence[Looks],
        lines: Sequence[Sequence[Line]],
        doubts: bool = False,
    ) -> list[list[Region]]:
        """What of each image is overlay, by the U-Net's looks at it and the lines proposed in it; with doubts, what
        may be one, too, doubtful."""
        return [self._regions(*one, doubts) for one in zip(images, looks, lines, strict=True)]

    def _regions(self, image: Image, looks: Looks, lines: Sequence[Line], doubts: bool) -> list[Region]:
        rule, shape = self.overlay.rule, image.shape[:2]
        seen = candidates(image, looks, lines)
        belief = decided(seen, shape, rule)
        regions = []
        for box, mask in parts(belief > 0):
            score = float(cut(belief, box)[mask].mean())
            if score >= self.min_score:
                whole = np.zeros(belief.shape, np.bool_)
                cut(whole, box)[:] = mask
                x0, y0, x1, y1 = (float(side) for side in box)
                regions.append(Region("watermark", self.name, min(1.0, score), (x0, y0, x1, y1), whole))
        if doubts:
            for one, score in zip(seen, scores(seen, rule, shape), strict=True):
                if score >= DOUBT * rule.more and not cut(belief, one.box)[one.mask].any():
                    x0, y0, x1, y1 = (float(side) for side in one.box)
                    regions.append(Region("watermark", self.name, score, (x0, y0, x1, y1), doubtful=True))
        return regions


def decided(found: Sequence[Candidate], shape: tuple[int, ...], rule: Rule) -> Probability:
    """HW in [0, 1]: how sure it is that a pixel is overlay, by the rule at the top of this file, of the candidates of a
    picture of this shape; 0 where it is not."""
    belief, scene = np.zeros(shape[:2], np.float32), np.zeros(shape[:2], np.bool_)
    chances = scores(found, rule, shape)
    if max(chances, default=0.0) < rule.first:
        return belief
    for one, score in zip(found, chances, strict=True):
        if one.readable and score < rule.more and not (one.line is not None and one.line.drawn):
            cut(scene, one.box)[one.inside] = True
    for one, score in zip(found, chances, strict=True):
        if one.line is not None and score >= least(one, rule):
            # Within a line that is overlay its strokes are the mark, and not all that the U-Net calls overlay there.
            cut(scene, one.box)[one.inside & ~one.mask] = True
    for one, score in zip(found, chances, strict=True):
        if score >= least(one, rule):
            part = cut(belief, one.box)
            mine = one.mask if one.line is not None else one.mask & ~cut(scene, one.box)
            part[mine] = np.maximum(part[mine], np.float32(score))
    return belief


def least(one: Candidate, rule: Rule) -> float:
    """The least score of a candidate in a picture that is marked."""
    if one.readable or not 0 < rule.first < 1:
        return rule.more
    unread = rule.first / (rule.first + (1 - rule.first) * math.exp(UNREAD))
    return max(rule.more, unread)


def scores(found: Sequence[Candidate], rule: Rule, shape: tuple[int, ...]) -> list[float]:
    """How sure it is that each is overlay, in a picture of this shape. What is repeated reaches `rule.first` in any
    case, a single letter never: specks are read as one. Likely pieces that cover LARGE together must be surer."""
    chances = [rule.score(one.line is not None, one.evidence) for one in found]
    pieces = [n for n, one in enumerate(found) if one.line is None and chances[n] > 0.5]
    if _covered([found[n] for n in pieces], shape) > LARGE:
        for n in pieces:
            chances[n] = 1 / (1 + math.exp(SURER) * (1 - chances[n]) / chances[n])
    tiled = repeated([one.line for one in found if one.line is not None and one.readable])
    number = 0
    for n, one in enumerate(found):
        if one.line is not None and one.line.letters == 1:
            chances[n] = min(chances[n], math.nextafter(rule.first, 0))
        if one.readable:
            chances[n] = max(chances[n], rule.first) if number in tiled else chances[n]
            number += 1
    return chances


def _covered(found: Sequence[Candidate], shape: tuple[int, ...]) -> float:
    """Share of the picture."""
    covered = np.zeros(shape[:2], np.bool_)
    for one in found:
        cut(covered, one.box)[one.mask] = True
    return float(covered.mean())


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
    alike = abs(one.height - other.height) <= 0.2 * max(one.height, other.height)
    return alike and turn_between(one, other) <= 5
