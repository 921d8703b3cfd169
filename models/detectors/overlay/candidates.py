"""What may be laid over a picture: lines of text, and pieces of what the U-Net calls overlay, with their evidence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from cleanplate.models.detectors.lettering.lines import Line, angle_of, without_seen
from cleanplate.models.detectors.lettering.reading import is_text, reads_well
from cleanplate.models.detectors.lettering.strokes import line_strokes
from cleanplate.models.detectors.overlay.evidence import Box, cut, evidence, window
from cleanplate.models.detectors.overlay.overlay_map import Looks, hysteresis
from cleanplate.models.detectors.unet import Probability
from cleanplate.models.segmenters.masks import grow, polygon_mask
from cleanplate.models.types import Image, Mask

LOW, HIGH = 0.4, 0.8
"""A piece's pixels are above LOW and hang together with one above HIGH. Lower limits proposed more marks, but more
that are none: there were no more that could be distinguished."""
LEAST = 2e-4
"""Share of the picture that a piece without a line covers at least."""
FAINT, CLEAR = 0.25, 0.5
"""The U-Net's chance from which a pixel of an overlaid line's box belongs to it: of one whose strokes cannot be told
from the ground, and beside those that can."""


@dataclass(frozen=True)
class Candidate:
    """box: the window of the picture that it lies in. mask: bool, of the window's size, its pixels. line: of text, or
    None for a piece of the U-Net's map. inside: as the mask, the line's quadrilateral (empty without a line).
    readable: whether the line can be read. evidence: numbers by name."""

    box: Box
    mask: Mask
    line: Line | None
    inside: Mask
    readable: bool
    evidence: Mapping[str, float]


MOST_MAPPED = 0.1
"""Most that the share of the picture which the U-Net calls overlay counts, as evidence: a little is a sign of a mark,
half of the picture is a sign that the U-Net errs (a facade, a wall of petals)."""

MOST_UNREAD = 0.1
"""Of the picture: a larger line that cannot be read is a facade or a hedge, not writing. The U-Net may still see it."""


def candidates(image: Image, looks: Looks, lines: Sequence[Line]) -> list[Candidate]:
    """Those of one picture, HWC uint8 RGB: its lines, then the pieces of each look and of all together."""
    chance, agreed = looks.chance, looks.agreed
    share = min(MOST_MAPPED, float((chance > 0.5).mean()))
    believed = [is_text(line, chance.size) for line in lines]
    fresh = [lines[n] for n in without_seen(lines, believed)]
    found = [one for line in fresh if (one := _of_line(image, chance, agreed, line, share)) is not None]
    lined, read = np.zeros(chance.shape, np.bool_), np.zeros(chance.shape, np.bool_)
    for one in found:
        cut(lined, one.box)[one.inside] = True
        if one.readable:
            cut(read, one.box)[one.inside] = True
    for box, mask, own in _pieces(looks):
        numbers = evidence(image, chance, agreed, box, mask) | {
            "lined": float(cut(lined, box)[mask].mean()),
            "readable": float(cut(read, box)[mask].mean()),
            "map": share,
            "own": own,
        }
        found.append(Candidate(box, mask, None, np.zeros_like(mask), False, numbers))
    return found


def _of_line(
    image: Image, chance: Probability, agreed: Probability, line: Line, share: float
) -> Candidate | None:
    height, width = chance.shape
    inside = polygon_mask((height, width), line.quad)
    giant = line.height * line.width > MOST_UNREAD * height * width and not reads_well(line, height * width)
    if giant or not inside.any():
        return None
    strokes = line_strokes(image, line.quad)
    known = strokes is not None and bool(strokes.any())
    letters = strokes if strokes is not None and known else inside
    readable = is_text(line, height * width)
    turn = abs(angle_of(line)) % 90
    box = window(letters)
    numbers = evidence(image, chance, agreed, box, cut(letters, box)) | {
        "map": share,
        "strokes": float(known),
        "readable": float(readable),
        "found": line.found,
        "read": line.read,
        "height": float(np.log10(max(line.height, 1) / min(height, width))),
        "upright": float(min(turn, 90 - turn) < 1.5),
        "share": float((chance[letters] > 0.5).mean()),
        "letters": float(len(line.text)),
        "drawn": float(line.drawn),
        "sketch": line.sketch,
    }
    seen = inside & (chance > FAINT)
    if not (readable or known or seen.any()):
        return None
    if known:
        seen = letters | (inside & (chance > CLEAR))
    box = window(seen | inside)
    return Candidate(box, cut(seen, box), line, cut(inside, box), readable, numbers)


def _pieces(looks: Looks) -> Iterator[tuple[Box, Mask, float]]:
    """(window, its pixels, mean chance by the look that gave them): pieces of all looks together and of each alone,
    each once."""
    maps = [np.maximum.reduce(looks.each), *(looks.each if len(looks.each) > 1 else ())]
    found: list[tuple[Box, Mask]] = []
    for one in maps:
        for box, mask in parts(hysteresis(one, 255 * LOW, 255 * HIGH)):
            if np.count_nonzero(mask) < LEAST * one.size:
                continue
            if not any(_same(box, mask, *other) for other in found):
                found.append((box, mask))
                yield box, mask, float(cut(one, box)[mask].mean()) / 255


def _same(box: Box, mask: Mask, other: Box, others: Mask) -> bool:
    x0, y0 = max(box[0], other[0]), max(box[1], other[1])
    x1, y1 = min(box[2], other[2]), min(box[3], other[3])
    if x1 <= x0 or y1 <= y0:
        return False
    common = (x0, y0, x1, y1)
    both = np.count_nonzero(cut(mask, common, box) & cut(others, common, other))
    return bool(both > 0.9 * (np.count_nonzero(mask) + np.count_nonzero(others) - both))


def parts(mask: Mask, reach: int | None = None) -> list[tuple[Box, Mask]]:
    """The mask in pieces that lie more than twice `reach` pixels apart (None: 2 % of the short side, at least 4):
    letters of a line together. Each as its tight window and its pixels there."""
    reach = max(4, round(0.02 * min(mask.shape))) if reach is None else reach
    wide = grow(mask, reach).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(wide, connectivity=8)
    found = []
    for number in range(1, count):
        x, y, width, height = (int(stats[number, k]) for k in range(4))
        rough = (x, y, x + width, y + height)
        own = cut(mask, rough) & (cut(labels, rough) == number)
        x0, y0, x1, y1 = window(own)
        found.append(((x + x0, y + y0, x + x1, y + y1), own[y0:y1, x0:x1].copy()))
    return found
