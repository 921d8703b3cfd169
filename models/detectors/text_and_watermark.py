"""Text and watermarks in one pass: one look of the U-Net and one search for lines serve both."""

from __future__ import annotations

from dataclasses import replace

from cleanplate.models.detectors.overlay.completion import completed
from cleanplate.models.detectors.text import TextDetector
from cleanplate.models.detectors.watermark import WatermarkDetector
from cleanplate.models.types import Image, Region


class WrittenDetector:
    """Detector of the kinds 'text' and 'watermark': finds what the two detectors find one after the other, in little
    more than the time of the slower. names: of the two.

    text: looks for lines for both. watermark: its U-Net looks for both. Holds no state between calls.
    """

    def __init__(self, text: TextDetector, watermark: WatermarkDetector) -> None:
        self.text, self.watermark = text, watermark
        self.names = (text.name, watermark.name)
        self.name = "+".join(self.names)

    def __call__(self, images: list[Image]) -> list[list[Region]]:
        """One list of regions for each HWC uint8 RGB image, text first; boxes xyxy pixels."""
        return self._found(images, doubts=False)

    def with_doubts(self, images: list[Image]) -> list[list[Region]]:
        """As a call, and doubtful, the lines that are not believed to be text, and what may be a watermark."""
        return self._found(images, doubts=True)

    def _found(self, images: list[Image], doubts: bool) -> list[list[Region]]:
        looks = self.watermark.overlay(images)
        proposed = self.text.propose(images, looks, slanted=True)
        # The rule of watermarks was fitted without slanted lines.
        level = [replace(one, slanted=[]) for one in proposed]
        few, all_lines = self.text.read_each(images, [level, proposed])
        marks = self.watermark.regions(images, looks, few, doubts)
        texts = self.text.regions(images, all_lines, doubts)
        found = [[*some, *more] for some, more in zip(texts, marks, strict=True)]
        if self.text.selects:
            return found
        return [completed(*one) for one in zip(images, looks, found, strict=True)]
