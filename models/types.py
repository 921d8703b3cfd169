"""The types that every room shares: an image, a mask, a detected region, what a model is, the root of our errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
"""HWC uint8 RGB, upright (EXIF orientation already applied)."""
Mask = npt.NDArray[np.bool_]
"""HW bool, True = remove; same height and width as its image."""


class CleanplateError(Exception):
    """Every error that is raised by this package on purpose: `cleanplate.pipeline.errors` draws the tree."""


@dataclass(frozen=True)
class Region:
    """One thing found in one image.

    box: xyxy pixels in the upright image, floats, 0 <= x0 < x1 <= width, 0 <= y0 < y1 <= height.
    score: [0, 1], the detector's own confidence; not comparable between detectors.
    mask: HW bool of the whole image, True = the thing's pixels, when the detector knows better than its
        box (text strokes, a given mask); None otherwise.
    doubtful: below what the detector itself believes (`DoubtingDetector`). Never edited, never copied from.
    """

    kind: str
    detector: str
    score: float
    box: tuple[float, float, float, float]
    mask: Mask | None = None
    doubtful: bool = False

    def __repr__(self) -> str:
        """Short enough to print a list of them: the box in whole pixels, the mask by its number of pixels."""
        box = ", ".join(f"{side:.0f}" for side in self.box)
        mask = "" if self.mask is None else f", mask of {int(self.mask.sum()):,} pixels"
        return f"Region({self.kind}, {self.detector}, score {self.score:.2f}, box [{box}]{mask})"


class Detector(Protocol):
    """Finds regions. Never raises for an image's content; an image without finds gives an empty list."""

    name: str

    def __call__(self, images: list[Image]) -> list[list[Region]]: ...


class DoubtingDetector(Detector, Protocol):
    """A detector that can also name what it saw and did not believe."""

    def with_doubts(self, images: list[Image]) -> list[list[Region]]:
        """What a call gives and, marked `doubtful`, what scored too low for it."""
        ...


class Segmenter(Protocol):
    """Turns regions into pixel masks: for each image, one HW bool mask per region, in the regions' order."""

    name: str

    def __call__(self, images: list[Image], regions: list[list[Region]]) -> list[list[Mask]]: ...


class Inpainter(Protocol):
    """Fills masks. Same sizes out; every pixel outside its mask is bit-equal to the input.

    forbidden: for each image HW bool or None. An inpainter that copies from the surroundings copies nothing from
    where it is True: another thing that goes, too, or that may be one.
    """

    name: str

    def __call__(
        self, images: list[Image], masks: list[Mask], forbidden: Sequence[Mask | None] | None = None
    ) -> list[Image]: ...


def iou(one: Sequence[float], other: Sequence[float]) -> float:
    """Intersection over union of two boxes, xyxy first."""
    across, down = (
        min(one[2], other[2]) - max(one[0], other[0]),
        min(one[3], other[3]) - max(one[1], other[1]),
    )
    shared = max(0.0, across) * max(0.0, down)
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return shared / max(areas - shared, 1e-9)
