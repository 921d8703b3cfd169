"""The inpainter that is chosen by the hole: one for strokes, another for all that is thicker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from cleanplate.models.inpainters.contract import Forbidden, check_pairs
from cleanplate.models.metrics.pixelwise import thickness
from cleanplate.models.types import Image, Inpainter, Mask

THIN = 20.0
"""Pixels: what is at most so thick on the mean counts as strokes. Of 32 masks of letters grown by 3 px in pictures of
256 and 512 px the thickest had 18.4, of 12 blobs the thinnest 28 (docs/notebook.md)."""


@dataclass
class ByHole:
    """strokes fills holes that are at most THIN thick; others fills the rest. Rows name the one that filled."""

    strokes: Inpainter
    others: Inpainter
    name: str = "auto"

    def choose(self, mask: Mask) -> Inpainter:
        """What fills a mask (HW bool), whose parts are of one thing: a line of text, an object."""
        return self.strokes if thickness(mask) <= THIN else self.others

    def __call__(
        self, images: list[Image], masks: list[Mask], forbidden: Forbidden | None = None
    ) -> list[Image]:
        """Every connected part of a mask by what is chosen for it; a part of the other kind is never copied from."""
        check_pairs(images, masks)
        results = list(images)
        closed = [
            m if f is None else m | f for m, f in zip(masks, forbidden or [None] * len(masks), strict=True)
        ]
        halves = [_parted(mask) for mask in masks]
        for number, inpainter in enumerate((self.others, self.strokes)):
            results = inpainter(results, [pair[number] for pair in halves], closed)
        return results


def _parted(mask: Mask) -> tuple[Mask, Mask]:
    """(the thick parts of a mask, the thin ones), HW bool each."""
    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    parts = np.asarray(labels)
    thin = np.zeros_like(mask)
    for number in range(1, count):
        part = parts == number
        if thickness(part) <= THIN:
            thin |= part
    return mask & ~thin, thin


def parts_of(inpainter: Inpainter) -> Sequence[Inpainter]:
    """The inpainters that fill in its name: itself, or those it chooses from."""
    return (inpainter.strokes, inpainter.others) if isinstance(inpainter, ByHole) else (inpainter,)


def chosen(inpainter: Inpainter, mask: Mask) -> Inpainter:
    """What fills a mask (HW bool) in its name."""
    return inpainter.choose(mask) if isinstance(inpainter, ByHole) else inpainter
