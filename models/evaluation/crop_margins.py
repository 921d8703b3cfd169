"""How much context a crop needs: fills of crops against fills of whole photographs, inside the mask."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from cleanplate.models.inpainters.crops import CropSettings, plan_crops
from cleanplate.models.inpainters.inpainters import LamaInpainter
from cleanplate.models.types import Image, Inpainter, Mask

RULES: dict[str, CropSettings] = {
    "margin 32": CropSettings(context=0, margin=32, min_side=64, bucket=8),
    "margin 64": CropSettings(context=0, margin=64, min_side=64, bucket=8),
    "margin 128": CropSettings(context=0, margin=128, min_side=64, bucket=8),
    "twice the hole": CropSettings(context=1, margin=0, min_side=64, bucket=8),
    "twice the hole, 256 or more": CropSettings(context=1, margin=0, min_side=256, bucket=8),
    "default": CropSettings(),
}
"""Ways to choose the context; the name says what is round the hole."""

HOLES = (40, 100, 200, 300)
"""Sides in pixels of the square holes that are punched."""


@dataclass
class _Sums:
    """Squared errors inside the masks, in grey levels, and what was looked at."""

    from_whole: float = 0.0
    from_truth: float = 0.0
    values: int = 0
    seen: int = 0
    image: int = 0

    def row(self) -> dict[str, float]:
        return {
            "psnr_from_whole_db": _psnr(self.from_whole, self.values),
            "psnr_from_truth_db": _psnr(self.from_truth, self.values),
            "area_share": self.seen / self.image,
        }


def _psnr(squares: float, values: int) -> float:
    return 10 * math.log10(255**2 * values / max(squares, 1e-9))


def table(
    photos: Iterable[Image], models: dict[str, Inpainter], holes: tuple[int, ...] = HOLES
) -> list[dict[str, Any]]:
    """For each side of hole and each way to fill: PSNR in dB inside the hole from the whole image's fill and from
    the photograph, and the share of the image that was seen. models: `fillers`; photos: HWC uint8 RGB."""
    rng = np.random.default_rng(0)
    sums = {(side, rule): _Sums() for side in holes for rule in models}
    for photo in photos:
        for side in holes:
            mask = _hole(rng, photo, side)
            if mask is None:
                continue
            fills = {rule: model([photo], [mask])[0] for rule, model in models.items()}
            for rule, fill in fills.items():
                one = sums[side, rule]
                one.from_whole += _squares(fill, fills["whole image"], mask)
                one.from_truth += _squares(fill, photo, mask)
                one.values += 3 * int(mask.sum())
                one.image += mask.size
                settings = RULES.get(rule)
                seen = plan_crops(mask, settings) if settings else []
                one.seen += sum(c.size[0] * c.size[1] for c in seen) if settings else mask.size
    return [{"hole": side, "rule": rule, **one.row()} for (side, rule), one in sums.items() if one.values]


def fillers(inpainter_of: Any) -> dict[str, Inpainter]:
    """ "whole image" and every rule -> an inpainter; inpainter_of makes one from CropSettings."""
    whole: LamaInpainter = inpainter_of(CropSettings(whole_image=True))
    return {"whole image": whole} | {rule: inpainter_of(settings) for rule, settings in RULES.items()}


def _hole(rng: np.random.Generator, photo: Image, side: int) -> Mask | None:
    """A square hole somewhere in the photograph; None where it would take more than a quarter of a side."""
    height, width = photo.shape[:2]
    if side * 3 > min(height, width):
        return None
    y, x = rng.integers(0, height - side), rng.integers(0, width - side)
    mask = np.zeros((height, width), np.bool_)
    mask[y : y + side, x : x + side] = True
    return mask


def _squares(one: Image, other: Image, mask: Mask) -> float:
    return float(((one[mask].astype(np.float64) - other[mask]) ** 2).sum())
