"""Known marks in photographs: the directions of edges, correlated over sizes and turns.

A mark laid over a picture keeps the directions of its edges whatever its opacity, and whether it is lighter or darker
than what it covers. So an image becomes a field of doubled angles (twice the gradient's angle, as unit complex
numbers, damped where the gradient is noise), a mark the same field on its own edges, and the score of a place is the
mean cosine between the two: 1 = every edge of the mark runs as it should. (Orientation correlation in the spirit of
Fitch et al., BMVC 2002, with the doubled angle of structure tensors, so that polarity does not matter.)

A coarse search (sizes in steps of 12 %, turns of 6 degrees, one Fourier transform of the image for all references and
turns) gives places. The likeliest are fitted on a finer copy, and scored by how evenly the mark's parts agree, which a
chance agreement of one strong edge does not. A place that this leaves in doubt is looked at again with the mark's
colours and the sign of its edges (`blended`): that finds faint marks on rough ground; directions alone find
marks in other colours than the reference's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt
import torch

from cleanplate.models.detectors.known_marks.fit import fitted_places
from cleanplate.models.detectors.known_marks.places import (
    MIN_SCORE,
    Place,
    apart,
    shape_of,
    standing_out,
    without_parts,
)
from cleanplate.models.detectors.known_marks.reference import COARSE, Mark, angles, resized, template_of
from cleanplate.models.types import Image, Region

SIZE_STEP = 1.12
TURN_STEP = 6.0
DOUBT, MOST_DOUBTS = 0.85, 8
"""From this share of the score that is asked on it may be one: nothing is copied from there. Of one mark in one picture
the best, at most: something in every picture resembles a mark by chance."""


class LogoDetector:
    """Detector of given marks, kind 'logo', with each mark's shape as `Region.mask`.

    marks: the references. rotation: largest turn either way, degrees. smallest, largest: long side of a mark, as
        shares of the image's long side; never below 32 pixels.
    min_score: lowest score that counts, and Region.score; below SURE a place must also stand out by MARGIN.

    Not found: marks turned further, mirrored, slanted or squeezed, cut off by the picture's edge, without edges
    of their own. Holds no state between calls. Raises ValueError for settings, nothing for an image's content.
    """

    def __init__(
        self,
        marks: Sequence[Mark],
        rotation: float = 15.0,
        smallest: float = 0.04,
        largest: float = 0.5,
        min_score: float = MIN_SCORE,
        name: str = "edge-angles",
    ) -> None:
        if not marks:
            raise ValueError("give at least one reference")
        if not 0 < smallest < largest <= 1:
            raise ValueError(f"sizes must be 0 < smallest < largest <= 1, not {smallest} and {largest}")
        self.name = name
        self.marks = list(marks)
        self.smallest, self.largest, self.min_score = smallest, largest, min_score
        steps = math.ceil(2 * rotation / TURN_STEP)
        self.turns = np.linspace(-rotation, rotation, steps + 1).tolist() if steps else [0.0]
        self._coarse = [[template_of(mark, COARSE, turn) for turn in self.turns] for mark in self.marks]

    def __call__(self, images: list[Image]) -> list[list[Region]]:
        """One list of regions for each HWC uint8 RGB image, surest first; boxes xyxy pixels, masks HW bool."""
        return [[r for r in regions if not r.doubtful] for regions in self.with_doubts(images)]

    def with_doubts(self, images: list[Image]) -> list[list[Region]]:
        """As a call, and behind them, doubtful, places that score DOUBT of what is asked or do not stand out."""
        return [self._regions(image) for image in images]

    def places(self, image: Image) -> list[list[Place]]:
        """Per reference, every place that was looked at closely, best first; scores below min_score too."""
        coarse = self._search(image)
        return [
            sorted(fitted_places(image, mark, some), key=lambda place: -place.score)
            for mark, some in zip(self.marks, coarse, strict=True)
        ]

    def _search(self, image: Image) -> list[list[Place]]:
        height, width = image.shape[:2]
        long = max(height, width)
        side = max(32.0, self.smallest * long)
        found: list[list[Place]] = [[] for _ in self.marks]
        while side <= max(self.largest * long, 32.0):
            factor = COARSE / side
            size = (max(1, round(width * factor)), max(1, round(height * factor)))
            if min(size) >= 12:
                small = resized(image, size)
                field = torch.from_numpy(angles(small))
                self._search_at(field, (width / size[0], height / size[1]), side, found)
            side *= SIZE_STEP
        return [apart(some, alike=1.5) for some in found]

    def _search_at(
        self, field: torch.Tensor, scale: tuple[float, float], side: float, found: list[list[Place]]
    ) -> None:
        """Add the peaks of every reference at one size. scale: image pixels for one of `field`'s, x and y."""
        canvas = max(t.weight.shape[0] for some in self._coarse for t in some)
        full = (_smooth_size(field.shape[0] + canvas), _smooth_size(field.shape[1] + canvas))
        spectrum = torch.fft.fft2(field, s=full)
        for number, templates in enumerate(self._coarse):
            best, which = torch.full(full, -1.0), torch.zeros(full, dtype=torch.int32)
            for n, template in enumerate(templates):
                own = torch.fft.fft2(torch.from_numpy(template.field), s=full)
                half = template.weight.shape[0] // 2
                # Rolled by half the canvas: the score then stands at the mark's centre, and may hang over the edge.
                score = torch.roll(torch.fft.ifft2(spectrum * own.conj()).real, (half, half), (0, 1))
                better = score > best
                best, which = torch.where(better, score, best), which.masked_fill_(better, n)
            highest = best[: field.shape[0], : field.shape[1]].numpy()
            for y, x in _peaks(highest, 0.2, 9):
                found[number].append(
                    Place(
                        (x + 0.5) * scale[0],
                        (y + 0.5) * scale[1],
                        side,
                        self.turns[int(which[y, x])],
                        float(highest[y, x]),
                    )
                )

    def _regions(self, image: Image) -> list[Region]:
        height, width = image.shape[:2]
        regions = []
        for mark, places in zip(self.marks, self.places(image), strict=True):
            sure = without_parts(apart(standing_out(places, self.min_score)))
            doubts = [one for one in places if one not in sure and one.score >= DOUBT * self.min_score]
            for place in [*sure, *doubts[:MOST_DOUBTS]]:
                mask = shape_of(mark, place, (height, width))
                ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
                if xs.size:
                    box = (float(xs[0]), float(ys[0]), float(xs[-1] + 1), float(ys[-1] + 1))
                    name, score = f"{self.name}:{mark.name}", min(1.0, place.score)
                    regions.append(Region("logo", name, score, box, mask, doubtful=place not in sure))
        return sorted(regions, key=lambda region: (region.doubtful, -region.score))


def _smooth_size(least: int) -> int:
    """The smallest number of at least `least` without prime factors above 5: fast Fourier transforms."""
    while True:
        rest = least
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return least
        least += 1


def _peaks(score: npt.NDArray[np.float32], least: float, width: int) -> list[tuple[int, int]]:
    """(y, x) of the pixels that are the highest of their neighbourhood and above `least`, at most 40."""
    top = cv2.dilate(score, np.ones((width, width), np.uint8))
    ys, xs = np.nonzero((score >= top) & (score > least))
    order = np.argsort(-score[ys, xs])[:40]
    return [(int(ys[i]), int(xs[i])) for i in order]
