"""What may be laid over a picture: lines of text, and pieces of what the U-Net calls overlay, with their evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from models.detectors.evidence import evidence
from models.detectors.lines import Line, angle_of
from models.detectors.overlay import Looks, hysteresis
from models.detectors.reading import is_text
from models.marks import Probability
from models.masks import grow, polygon_mask
from models.regions import Image, Mask
from models.strokes import line_strokes

LOW, HIGH = 0.4, 0.8
"""A piece's pixels are above LOW and hang together with one above HIGH. Lower limits proposed more marks, but more
that are none: of what could be told apart there was no more."""
LEAST = 2e-4
"""Share of the picture that a piece without a line covers at least."""
FAINT = 0.25
"""The U-Net's chance from which a pixel of an overlaid line's box belongs to it."""


@dataclass(frozen=True)
class Candidate:
    """mask: HW bool, its pixels. line: of text, or None for a piece of the U-Net's map. inside: HW bool, the line's
    box (empty without a line). readable: whether the line can be read. evidence: numbers by name."""

    mask: Mask
    line: Line | None
    inside: Mask
    readable: bool
    evidence: Mapping[str, float]


def candidates(image: Image, looks: Looks, lines: Sequence[Line]) -> list[Candidate]:
    """Those of one picture, HWC uint8 RGB: its lines, then the pieces of each look and of all together."""
    chance, agreed = looks.chance, looks.agreed
    share = float((chance > 0.5).mean())
    found = [one for line in lines if (one := _of_line(image, chance, agreed, line, share)) is not None]
    lined, read = np.zeros(chance.shape, np.bool_), np.zeros(chance.shape, np.bool_)
    for one in found:
        lined |= one.inside
        if one.readable:
            read |= one.inside
    nowhere = np.zeros(chance.shape, np.bool_)
    for mask, own in _pieces(looks, chance):
        numbers = evidence(image, chance, agreed, mask)
        numbers |= {
            "lined": float(lined[mask].mean()),
            "readable": float(read[mask].mean()),
            "map": share,
            "own": own,
        }
        found.append(Candidate(mask, None, nowhere, False, numbers))
    return found


def _of_line(
    image: Image, chance: Probability, agreed: Probability, line: Line, share: float
) -> Candidate | None:
    height, width = chance.shape
    inside = polygon_mask((height, width), line.quad)
    if not inside.any():
        return None
    strokes = line_strokes(image, line.quad)
    told = strokes is not None and bool(strokes.any())
    letters = strokes if strokes is not None and told else inside
    readable = is_text(line, height * width)
    turn = abs(angle_of(line)) % 90
    numbers = evidence(image, chance, agreed, letters) | {
        "map": share,
        "strokes": float(told),
        "readable": float(readable),
        "found": line.found,
        "read": line.read,
        "height": float(np.log10(max(line.height, 1) / min(height, width))),
        "upright": float(min(turn, 90 - turn) < 1.5),
        "share": float((chance[letters] > 0.5).mean()),
        "letters": float(len(line.text)),
    }
    seen = inside & (chance > FAINT)
    if told:
        seen |= letters
    return Candidate(seen, line, inside, readable, numbers) if seen.any() or readable else None


def _pieces(looks: Looks, chance: Probability) -> list[tuple[Mask, float]]:
    """(HW bool, mean chance by the look that gave it): pieces of all looks together and of each alone, each once."""
    maps = [chance]
    if len(looks.each) > 1:
        maps += [np.asarray(one, np.float32) / np.float32(255) for one in looks.each]
    found: list[tuple[Mask, float]] = []
    for one in maps:
        for part in parts(hysteresis(one, LOW, HIGH)):
            size = np.count_nonzero(part)
            if size < LEAST * part.size:
                continue
            if not any(_same(part, other) for other, _ in found):
                found.append((part, float(one[part].mean())))
    return found


def _same(one: Mask, other: Mask) -> bool:
    return bool(np.count_nonzero(one & other) > 0.9 * np.count_nonzero(one | other))


def parts(mask: Mask, reach: int | None = None) -> list[Mask]:
    """The mask in pieces that lie more than twice `reach` pixels apart (None: 2 % of the short side, at least 4), each
    HW bool: letters of a line together."""
    reach = max(4, round(0.02 * min(mask.shape))) if reach is None else reach
    count, labels = cv2.connectedComponents(grow(mask, reach).astype(np.uint8), connectivity=8)
    return [mask & (labels == number) for number in range(1, count)]
