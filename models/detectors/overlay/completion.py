"""What belongs to marks that were found, and was missed: copies of a tiling, and what stands beside a mark."""

from __future__ import annotations

from cleanplate.models.detectors.overlay.beside import with_beside
from cleanplate.models.detectors.overlay.lattice import with_copies
from cleanplate.models.detectors.overlay.overlay_map import Looks
from cleanplate.models.types import Image, Region


def completed(image: Image, looks: Looks, regions: list[Region]) -> list[Region]:
    """The regions found in an HWC uint8 RGB image, and after them what belongs to them by the U-Net's looks."""
    return with_beside(image, looks, with_copies(image, looks, regions))
