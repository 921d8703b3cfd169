"""What stands beside a found mark and belongs to it: the rest of its line, an emblem, a frame.

A first finding asks much of a candidate, because most pictures carry no mark. Beside a mark that was found less is
asked: a piece of the U-Net's map at a lower limit counts when it is near, of the mark's size, and changes its ground
as the mark does, with sharper edges and less texture than what is round it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from cleanplate.models.detectors.overlay.candidates import parts
from cleanplate.models.detectors.overlay.evidence import Box, cut, evidence, window
from cleanplate.models.detectors.overlay.overlay_map import Looks, hysteresis
from cleanplate.models.segmenters.masks import grow, short_side
from cleanplate.models.types import Image, Mask, Region

LOW, HIGH = 0.3, 0.6
"""Of the U-Net's map: a piece is above LOW and hangs together with a pixel above HIGH."""
OVERLAID = 0.4
"""Mean chance in a mark's pixels from which something is looked for beside it: lettering of the scene has less."""
REACH, LARGEST, AREA = 1.2, 7.0, 12.0
"""How far a piece may lie from a mark and how large it may be, in heights of the mark's letters; and how many times the
mark's pixels all pieces beside it may have."""
CHANCE, SURE, CALM, SHARP = 0.55, 0.8, 0.2, 0.25
"""Least mean chance of a piece, and of its evidence of those names; a SURE piece is not asked for evidence."""
ALIKE, STRENGTH = 0.7, 5.0
"""Least cosine between what a piece and its mark add to their ground; how many times the one may be the other."""
LEAST = 12
"""Pixels of a piece."""
LINKS = 3
"""How many pieces on from the mark."""


@dataclass(frozen=True)
class Piece:
    """box: its window of the picture. mask: bool, of the window's size. chance: mean of the U-Net's in it. fits:
    whether its pixels look laid over the picture. added: what it adds to the ground round about it, RGB levels."""

    box: Box
    mask: Mask
    chance: float
    fits: bool
    added: npt.NDArray[np.float32]


VIEW = "@beside"
"""What the name of the detector of a mark ends in, of what stands beside it."""


def with_beside(image: Image, looks: Looks, regions: list[Region]) -> list[Region]:
    """The regions of the HWC uint8 RGB image, and after them, of a mark's kind, what stands beside each."""
    marks = [r for r in regions if r.mask is not None and not r.doubtful]
    masks = [(r.mask, short_side(r.mask)) for r in marks if r.mask is not None]
    more = []
    for mark, pieces in zip(marks, beside(image, looks, masks), strict=True):
        for piece in pieces:
            whole = np.zeros(image.shape[:2], np.bool_)
            cut(whole, piece.box)[piece.mask] = True
            x0, y0, x1, y1 = (float(side) for side in piece.box)
            name = mark.detector.partition("@")[0] + VIEW
            more.append(Region(mark.kind, name, min(1.0, piece.chance), (x0, y0, x1, y1), whole))
    return [*regions, *more]


def beside(image: Image, looks: Looks, marks: Sequence[tuple[Mask, float]]) -> list[list[Piece]]:
    """For each mark, a HW bool mask of the HWC uint8 RGB image and the height of its letters in pixels, what stands
    beside it; each piece once."""
    found: list[list[Piece]] = [[] for _ in marks]
    chance = looks.chance
    overlaid = [n for n, (mask, _) in enumerate(marks) if mask.any() and chance[mask].mean() >= OVERLAID]
    if not overlaid:
        return found
    known = np.logical_or.reduce([mask for mask, _ in marks])
    rest = hysteresis(chance, LOW, HIGH) & ~grow(known, 2)
    free = [piece for box, mask in parts(rest, 1) if (piece := _piece(image, looks, box, mask)).fits]
    for n in overlaid:
        mask, height = marks[n]
        box = window(mask)
        own = _added(image, looks, box, cut(mask, box))
        room = AREA * np.count_nonzero(mask)
        front = mask
        for _ in range(LINKS):
            near = cv2.distanceTransform((~front).astype(np.uint8), cv2.DIST_L2, 3)
            joined = []
            for piece in free:
                area = np.count_nonzero(piece.mask)
                if area <= room and _belongs(
                    piece, float(cut(near, piece.box)[piece.mask].min()), height, own
                ):
                    joined.append(piece)
                    room -= area
            if not joined:
                break
            free = [piece for piece in free if not any(piece is one for one in joined)]
            found[n] += joined
            front = front.copy()
            for piece in joined:
                cut(front, piece.box)[piece.mask] = True
    return found


def _piece(image: Image, looks: Looks, box: Box, mask: Mask) -> Piece:
    chance = float(cut(looks.chance, box)[mask].mean())
    if np.count_nonzero(mask) < LEAST or chance < CHANCE:
        return Piece(box, mask, chance, False, np.zeros(3, np.float32))
    told = evidence(image, looks.chance, looks.agreed, box, mask)
    fits = chance >= SURE or (told["calm"] >= CALM and told["sharp"] >= SHARP)
    return Piece(box, mask, chance, fits, _added(image, looks, box, mask))


def _belongs(piece: Piece, away: float, height: float, own: npt.NDArray[np.float32]) -> bool:
    """Whether a piece so far from a mark is of it; the mark's letters are so high, and add so much to their ground."""
    size = max(piece.box[2] - piece.box[0], piece.box[3] - piece.box[1])
    if away > REACH * height or size > LARGEST * height:
        return False
    here, there = float(np.linalg.norm(piece.added)), float(np.linalg.norm(own))
    if min(here, there) < 1 or max(here, there) > STRENGTH * min(here, there):
        return False
    return float(piece.added @ own) >= ALIKE * here * there


def _added(image: Image, looks: Looks, box: Box, mask: Mask) -> npt.NDArray[np.float32]:
    """What a piece adds to the ground round about it: RGB, levels."""
    height, width = image.shape[:2]
    reach = 8
    x0, y0 = max(0, box[0] - reach), max(0, box[1] - reach)
    wide = (x0, y0, min(width, box[2] + reach), min(height, box[3] + reach))
    ink = np.zeros((wide[3] - wide[1], wide[2] - wide[0]), np.bool_)
    cut(ink, box, wide)[:] = mask
    pixels = cut(image, wide)
    ground = grow(ink, reach) & ~grow(ink, 2) & (cut(looks.each[0], wide) < 64)
    core = cv2.erode(ink.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    core = core if np.count_nonzero(core) >= 9 else ink
    if not ground.any():
        return np.zeros(3, np.float32)
    return np.asarray(np.median(pixels[core], 0) - np.median(pixels[ground], 0), np.float32)
