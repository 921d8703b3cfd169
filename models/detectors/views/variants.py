"""Other ways for a detector to look: at the mirrored picture, or for a sign of something else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cleanplate.models.types import Detector, Image, Region


class Mirrored:
    """A detector that is shown every picture mirrored left to right: other pixels for the same network.

    Boxes and masks come back in the picture as it is. For networks that fix the size of their input, where no other
    scale is to be had; useless for what reads letters.
    """

    def __init__(self, detector: Detector) -> None:
        self._detector = detector
        self.name = f"{detector.name}@mirrored"

    def __call__(self, images: list[Image]) -> list[list[Region]]:
        """One list of regions for each HWC uint8 RGB image; boxes xyxy pixels."""
        mirrored = [np.ascontiguousarray(image[:, ::-1]) for image in images]
        return [
            [self._back(region, image.shape[1]) for region in regions]
            for image, regions in zip(images, self._detector(mirrored), strict=True)
        ]

    def _back(self, region: Region, width: int) -> Region:
        x0, y0, x1, y1 = region.box
        mask = None if region.mask is None else np.ascontiguousarray(region.mask[:, ::-1])
        return replace(region, detector=self.name, box=(width - x1, y0, width - x0, y1), mask=mask)


class SignOf:
    """Finds of a detector as a sign that something of another kind is there: a face says that a person is.

    kind: what they are called. Their masks are left out, because they are of the sign alone.
    """

    def __init__(self, kind: str, detector: Detector) -> None:
        self.kind, self._detector = kind, detector
        self.name = f"{kind}-by-{detector.name}"

    def __call__(self, images: list[Image]) -> list[list[Region]]:
        """One list of regions for each HWC uint8 RGB image; boxes xyxy pixels."""
        return [
            [replace(region, kind=self.kind, detector=self.name, mask=None) for region in regions]
            for regions in self._detector(images)
        ]
