"""Number plates by reading: a line of text that reads like one. Our network of them: `objects/plate_finder.py`."""

from __future__ import annotations

from cleanplate.models.detectors.lettering.lines import Line, box_of
from cleanplate.models.detectors.text import TextDetector, doubt_of
from cleanplate.models.types import Image, Region


class PlateDetector:
    """Detector of licence plates, kind 'plate', on top of a TextDetector that has a recogniser.

    Region.score is the reading's. It needs plates that can be read: Latin letters and digits, at least about
    10 pixels high. It also takes other codes for plates (route numbers, phone numbers, dates); on photographs
    without cars use the text detector. Raises ValueError when `text` has no recogniser.
    """

    def __init__(self, text: TextDetector, min_score: float = 0.5) -> None:
        if not text.reads:
            raise ValueError("plates are found by reading: give the TextDetector its recogniser (rec_path)")
        self.name = f"plate-by-{text.name}"
        self.min_score = min_score
        self._text = text

    def __call__(self, images: list[Image]) -> list[list[Region]]:
        """One list of regions for each HWC uint8 RGB image; boxes xyxy pixels, no masks."""
        return [
            [region for line in lines if (region := self._plate(image, line)) is not None]
            for image, lines in zip(images, self._text.lines(images), strict=True)
        ]

    def with_doubts(self, images: list[Image]) -> list[list[Region]]:
        """As a call, and behind them, doubtful, all other lines: a plate that was misread is one of them."""
        found = []
        for image, lines in zip(images, self._text.lines(images), strict=True):
            judged = [(line, self._plate(image, line)) for line in lines]
            doubts = [doubt_of(line, "plate", self.name, image) for line, plate in judged if plate is None]
            found.append([r for r in (*(plate for _, plate in judged), *doubts) if r is not None])
        return found

    def _plate(self, image: Image, line: Line) -> Region | None:
        box = box_of(line.quad, *image.shape[:2])
        if box is None or line.read <= self.min_score or not is_plate(line):
            return None
        return Region("plate", self.name, min(1.0, line.read), box)


def is_plate(line: Line) -> bool:
    """What `reads_as_plate`, in a line 1.5 to 8 times as wide as high."""
    return reads_as_plate(line.text) and 1.5 <= line.width / max(line.height, 1e-6) <= 8


def reads_as_plate(text: str) -> bool:
    """4 to 10 Latin capitals and digits, two digits or more.

    Small letters count as capitals (the recogniser confuses them); other signs (dots, dashes, badges) are
    passed over.
    """
    signs = [char for char in text.upper() if char.isascii() and char.isalnum()]
    return 4 <= len(signs) <= 10 and sum(char.isdigit() for char in signs) >= 2
